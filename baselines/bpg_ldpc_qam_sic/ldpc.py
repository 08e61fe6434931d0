"""LDPC codes of 5G NR (TS 38.212, section 5.3.2): encoding by Sionna, decoding by a fast min-sum or by Sionna.

LLRs have Sionna's sign throughout: log p(bit = 1) / p(bit = 0), positive for a one. Most other libraries have
the opposite.

The fast decoder is a layered normalised min-sum (Hocevar 2004; Chen and Fossorier 2002) over the quasi-cyclic
graph, in 16-bit fixed point, on one thread. One vector holds 32 neighbouring checks of a layer, so a cyclic shift
is an unaligned load from a column that is stored twice in a row, and a codeword is decoded by itself: neither its
result nor its stopping depends on its batch.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from linksim.errors import LinksimError, unknown

if TYPE_CHECKING:
    import torch

BACKENDS = ("numba", "sionna")

ALPHA = {
    1: {"1/3": 0.625, "1/2": 0.65, "2/3": 0.7, "3/4": 0.75, "5/6": 0.775, "11/12": 0.8},
    2: {"1/5": 0.68, "1/3": 0.7, "1/2": 0.68, "2/3": 0.775, "3/4": 0.85, "5/6": 0.9, "11/12": 0.875},
}
"""The min-sum's factor by base graph and code rate; a rate between two of these takes the nearest one's.

Each fails the fewest words near the thresholds of its codes (`results/ldpc/search.csv`), except at rate 1/2: there it
is the smallest that is not measurably worse than boxplus-phi, and gives the numbers of published results; 0.68 and
0.725 fail 12 to 24% fewer where one word in ten fails. On words of another seed (`results/ldpc/held_out.csv`; 20
iterations, BPSK, AWGN), words that fail with this factor alone / with boxplus-phi alone: rate 1/2 81 / 99, 2/3 9 / 299,
3/4 53 / 163, 5/6 23 / 249, 11/12 15 / 243. Below rate 1/2 no factor closes the gap to boxplus-phi: 1/3 105 / 42, 1/5
39 / 9.
"""

_LANES = 32
_STEPS = 32
"""Fixed-point steps of one unit of LLR."""
_CHANNEL_LIMIT = 20.0
"""Channel LLRs are clipped to this, as Sionna's decoder clips them: an overconfident demapper does less harm."""
_KNOWN_ZERO = 16000
_LARGEST_MESSAGE = 8191
"""In fixed-point steps; small enough that a posterior saturates only when its sign is beyond doubt."""


@dataclass(frozen=True)
class Decoded:
    """What a decoder returns for B codewords.

    Attributes:
        bits: uint8 [B, k], the information bits.
        parity_ok: bool [B], whether the decided codeword satisfies every parity check that the transmitted bits
            reach. Sufficient rather than necessary: the information bits can be right while the decision on a
            parity bit that only one check holds is still wrong. A CRC tells lost blocks better.
        iterations: int64 [B], the iterations run.
    """

    bits: np.ndarray
    parity_ok: np.ndarray
    iterations: np.ndarray


class LayeredMinSum:
    """Layered normalised min-sum decoding of any quasi-cyclic code, 5G's or another (`lifting` 1 is any code).

    Args:
        base: int [rows, columns], the shift of each circulant, -1 where there is none: check `i` of row r holds
            bit `(i + shift) mod lifting` of column c.
        lifting: the size of a circulant.
        iterations: the most iterations of a codeword.
        alpha: the factor on the minimum, in (0, 1].
        early_stopping: stop a codeword when all its checks are satisfied.
    """

    def __init__(
        self,
        base: np.ndarray,
        lifting: int,
        *,
        iterations: int = 20,
        alpha: float = 0.7,
        early_stopping: bool = True,
    ) -> None:
        self.lifting = lifting
        self.columns = base.shape[1]
        self.iterations = iterations
        self.early_stopping = early_stopping
        self._alpha = min(round(alpha * 65536), 65535)
        self._graph = _edges(base, lifting)

    def decode(self, llr: np.ndarray, columns: int | None = None) -> Decoded:
        """Decode B codewords.

        Args:
            llr: float [B, base columns * lifting], log p(1)/p(0); 0 for a bit that was not sent.
            columns: how many leading base columns to return (default: all).

        Returns:
            `Decoded` whose `bits` are uint8 [B, columns * lifting].
        """
        return self.decode_fixed(_fixed_point(llr), columns)

    def decode_fixed(self, metric: np.ndarray, columns: int | None = None) -> Decoded:
        """`decode` of `metric` int16, the LLRs with the sign of log p(0)/p(1) in steps of 1/32."""
        batch = metric.shape[0]
        bits = np.empty((batch, (self.columns if columns is None else columns) * self.lifting), np.uint8)
        parity_ok = np.empty(batch, np.bool_)
        iterations = np.empty(batch, np.int64)
        _compiled_min_sum()(
            metric, *self._graph, self.lifting, self.iterations, self.early_stopping, self._alpha, bits, parity_ok,
            iterations,
        )  # fmt: skip
        return Decoded(bits, parity_ok, iterations)


def check_code(k: int, n: int) -> None:
    """Raises LinksimError where no code of k information bits and n coded bits can be had."""
    if not (12 <= k <= 8448 and k <= 0.95 * n and n <= 5 * k):
        raise LinksimError(f"no 5G LDPC code has k = {k}, n = {n}: take k from 12 to 8448 and k/n from 1/5 to 0.95")
    if n > 3 * k > 3 * 3824 and not (k <= 3840 and n >= 4 * k):
        raise LinksimError(f"no 5G LDPC code has k = {k}, n = {n}: take k/n of 1/3 or more with a k above 3824")


def base_graph(k: int, n: int) -> int:
    """The base graph, 1 or 2, that TS 38.212 (section 7.2.2) chooses for k information bits and n coded bits.

    >>> base_graph(512, 1024), base_graph(4096, 8192)
    (2, 1)
    """
    return 2 if k <= 292 or (k <= 3824 and k <= 0.67 * n) or 4 * k <= n else 1


def tuned_alpha(k: int, n: int) -> float:
    """The min-sum's factor for the code of k information bits and n coded bits, from `ALPHA`.

    >>> tuned_alpha(512, 1024), tuned_alpha(1536, 2048)
    (0.68, 0.75)
    """
    factors = ALPHA[base_graph(k, n)]
    return factors[min(factors, key=lambda rate: abs(Fraction(rate) - Fraction(k, n)))]


class Ldpc5G:
    """A 5G LDPC code of k information bits and n coded bits, redundancy version 0, without bit interleaver.

    Base graph, lifting and rate matching are those of Sionna's `LDPC5GEncoder`: the first two circulants of
    information bits are never sent, filler bits are known zeros, and only the checks that the sent bits reach
    are decoded.

    Args:
        k: information bits, 12 to 8448.
        n: coded bits; k / n from 1/5 (1/3 where base graph 1 is the standard's choice) to 0.95. The standard
            repeats bits below that; Sionna's encoder does not, and neither does this class.
        iterations: the most decoding iterations; state them with every result.
        backend: `"numba"` (min-sum, CPU, the fast one) or `"sionna"` (`boxplus-phi`, flooding, no early
            stopping: the quality reference, and the one for a GPU).
        device: torch device of the encoder and of the sionna backend.
        early_stopping: for the numba backend: stop a codeword when all its checks are satisfied.
        alpha: for the numba backend: the min-sum's factor, in (0, 1]; None takes the one tuned for the code.

    Raises:
        LinksimError: for a k, n, backend or factor outside these.
    """

    def __init__(
        self,
        k: int,
        n: int,
        *,
        iterations: int = 20,
        backend: str = "numba",
        device: str = "cpu",
        early_stopping: bool = True,
        alpha: float | None = None,
    ) -> None:
        if backend not in BACKENDS:
            raise unknown("LDPC backend", backend, BACKENDS)
        if iterations < 1:
            raise LinksimError(f"an LDPC decoder needs at least 1 iteration, not {iterations}")
        if alpha is not None and not 0 < alpha <= 1:
            raise LinksimError(f"a min-sum's factor lies in (0, 1], {alpha} does not")
        check_code(k, n)
        from linksim.link.phy import sionna

        self._encoder = sionna("fec.ldpc").LDPC5GEncoder(k, n, precision="single", device=device, check_input=False)
        self.k = k
        self.n = n
        self.rate = k / n
        self.iterations = iterations
        self.backend = backend
        self.device = device
        self.early_stopping = early_stopping
        self.alpha = tuned_alpha(k, n) if alpha is None else alpha

    @functools.cached_property
    def _min_sum(self) -> LayeredMinSum:
        base = _base_graph(self._encoder.pcm, self._encoder.z)
        information = self._encoder.k_ldpc // self._encoder.z
        sent = self.n + 2 * self._encoder.z + self._encoder.k_filler
        # The four core rows hold each other's parity bits; each later row adds one column of its own.
        columns = max(information + 4, -(-sent // self._encoder.z))
        return LayeredMinSum(
            base[: columns - information, :columns],
            self._encoder.z,
            iterations=self.iterations,
            alpha=self.alpha,
            early_stopping=self.early_stopping,
        )

    @functools.cached_property
    def _belief_propagation(self) -> "_RecordingDecoder":
        return _RecordingDecoder(self._encoder, self.iterations, self.device)

    def encode(self, bits: np.ndarray) -> np.ndarray:
        """Codewords uint8 [B, n] of the information bits uint8 [B, k]."""
        import torch

        self._check(bits, self.k)
        with torch.inference_mode():
            return np.concatenate(
                [
                    self._encoder(torch.from_numpy(part.astype(np.float32)).to(self.device)).to(torch.uint8).cpu()
                    for part in _parts(bits)
                ]
            )

    def decode(self, llr: np.ndarray) -> Decoded:
        """Information bits of the received codewords.

        Args:
            llr: float [B, n], log p(1)/p(0) of every sent bit; no NaN.
        """
        self._check(llr, self.n)
        if self.backend == "sionna":
            return self._belief_propagation.decode(llr)
        min_sum, z = self._min_sum, self._encoder.z
        filler_end = self._encoder.k_ldpc
        sent_information = self.k - 2 * z
        metric = np.zeros((llr.shape[0], min_sum.columns * z), np.int16)
        fixed = _fixed_point(llr)
        metric[:, 2 * z : self.k] = fixed[:, :sent_information]
        metric[:, self.k : filler_end] = _KNOWN_ZERO
        metric[:, filler_end : filler_end + self.n - sent_information] = fixed[:, sent_information:]
        decoded = min_sum.decode_fixed(metric, -(-self.k // z))
        return Decoded(decoded.bits[:, : self.k], decoded.parity_ok, decoded.iterations)

    @staticmethod
    def _check(array: np.ndarray, length: int) -> None:
        if array.ndim != 2 or array.shape[1] != length:
            raise ValueError(f"expected an array of shape [B, {length}], not {list(array.shape)}")


@functools.lru_cache(maxsize=32)
def ldpc_code(
    k: int,
    n: int,
    *,
    iterations: int = 20,
    backend: str = "numba",
    device: str = "cpu",
    early_stopping: bool = True,
    alpha: float | None = None,
) -> Ldpc5G:
    """The `Ldpc5G` of these arguments, built once a process."""
    return Ldpc5G(
        k, n, iterations=iterations, backend=backend, device=device, early_stopping=early_stopping, alpha=alpha
    )


class _RecordingDecoder:
    """Sionna's `LDPC5GDecoder` that also keeps the decisions on the two circulants that are never sent."""

    def __init__(self, encoder: Any, iterations: int, device: str) -> None:
        from linksim.link.phy import sionna

        self._encoder = encoder
        self._iterations = iterations
        self._device = device
        self._posterior: torch.Tensor | None = None
        self._decoder = sionna("fec.ldpc").LDPC5GDecoder(
            encoder,
            cn_update="boxplus-phi",
            num_iter=iterations,
            hard_out=True,
            return_infobits=False,
            v2c_callbacks=[self._record],
            precision="single",
            device=device,
        )

    def _record(self, messages: "torch.Tensor", iteration: int, posterior: "torch.Tensor") -> "torch.Tensor":
        self._posterior = posterior
        return messages

    def decode(self, llr: np.ndarray) -> Decoded:
        """`Ldpc5G.decode`; `parity_ok` says whether encoding the decided information bits gives the decided word."""
        import torch

        bits, parity_ok = [], []
        with torch.inference_mode():
            for part in _parts(llr):
                word = self._decoder(torch.from_numpy(part.astype(np.float32)).to(self._device))
                assert self._posterior is not None
                # Sionna's decoder works with log p(0)/p(1) inside.
                unsent = (self._posterior[:, : 2 * self._encoder.z] <= 0).to(word.dtype)
                information = torch.cat([unsent, word], dim=1)[:, : self._encoder.k]
                parity_ok.append((self._encoder(information) == word).all(dim=1).cpu().numpy())
                bits.append(information.to(torch.uint8).cpu().numpy())
        self._posterior = None
        return Decoded(
            np.concatenate(bits), np.concatenate(parity_ok), np.full(llr.shape[0], self._iterations, np.int64)
        )


def _parts(array: np.ndarray) -> list[np.ndarray]:
    # Sionna gathers some ten megabytes a codeword: more at once than this gains nothing, on a GPU either.
    return np.array_split(array, max(1, -(-array.shape[0] // 128)))


def _fixed_point(llr: np.ndarray) -> np.ndarray:
    """int16 steps of 1/32 with the sign of log p(0)/p(1), which makes the sign bit the decided bit."""
    if np.isnan(llr).any():
        raise ValueError("an LLR is NaN: check the noise variance that the demapper was given")
    scaled = np.clip(llr, -_CHANNEL_LIMIT, _CHANNEL_LIMIT)
    scaled *= -_STEPS
    found: np.ndarray = np.rint(scaled, out=scaled).astype(np.int16)
    return found


def _base_graph(parity_check: Any, lifting: int) -> np.ndarray:
    """Shifts int64 [rows, columns] of a lifted parity-check matrix (scipy CSR), -1 where a circulant is empty."""
    rows, columns = (size // lifting for size in parity_check.shape)
    base = np.full((rows, columns), -1, np.int64)
    for row in range(rows):
        held = parity_check.indices[parity_check.indptr[row * lifting] : parity_check.indptr[row * lifting + 1]]
        base[row, held // lifting] = held % lifting
    return base


def _edges(base: np.ndarray, lifting: int) -> tuple[np.ndarray, ...]:
    """The decoder's view of a base graph: six int64 arrays.

    A column is kept rotated by the shift of the row that used it last, so that a row writes it aligned.

    Returns:
        row_start [rows + 1]: the first edge of each row;
        row_single [rows]: the first edge of the row whose column no other row holds, these come last;
        column [edges];
        turn [edges]: the rotation from the column's previous row to this one;
        check_turn [edges]: the rotation from the column's last row to this one;
        rotation [columns]: the shift of the column's last row.
    """
    base = np.asarray(base)
    degree = (base >= 0).sum(axis=0)
    rotation = np.zeros(base.shape[1], np.int64)
    for row in base:
        rotation[row >= 0] = row[row >= 0] % lifting
    current = rotation.copy()
    row_start, row_single, column, turn, check_turn = [0], [], [], [], []
    for row in base:
        shared = np.flatnonzero((row >= 0) & (degree > 1))
        single = np.flatnonzero((row >= 0) & (degree == 1))
        for c in (*shared, *single):
            column.append(c)
            turn.append((row[c] - current[c]) % lifting)
            check_turn.append((row[c] - rotation[c]) % lifting)
            current[c] = row[c]
        row_single.append(row_start[-1] + len(shared))
        row_start.append(len(column))
    return tuple(np.array(values, np.int64) for values in (row_start, row_single, column, turn, check_turn, rotation))


# The vector operations of the kernel. Their bodies say what they mean, on numpy arrays of 32 int16, and run when the
# kernel is called uncompiled (as a test does); `_compiled_min_sum` lowers each to one or a few vector instructions.


def _load(array: np.ndarray, index: int) -> np.ndarray:
    return array[index : index + _LANES].copy()


def _store(array: np.ndarray, index: int, value: np.ndarray) -> None:
    array[index : index + _LANES] = value


def _splat(value: int) -> np.ndarray:
    return np.full(_LANES, value, np.int16)


def _and(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    found: np.ndarray = a & b
    return found


def _xor(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    found: np.ndarray = a ^ b
    return found


def _add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.clip(a.astype(np.int32) + b, -32768, 32767).astype(np.int16)
    return found


def _subtract(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.clip(a.astype(np.int32) - b, -32768, 32767).astype(np.int16)
    return found


def _magnitude(a: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(np.int32)).astype(np.uint16).view(np.int16)


def _lower(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.minimum(a.view(np.uint16), b.view(np.uint16)).view(np.int16)


def _higher(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(a.view(np.uint16), b.view(np.uint16)).view(np.int16)


def _scale(a: np.ndarray, factor: int) -> np.ndarray:
    return (a.view(np.uint16).astype(np.uint32) * np.uint32(factor) >> np.uint32(16)).astype(np.int16)


def _choose_if_equal(a: np.ndarray, b: np.ndarray, equal: np.ndarray, different: np.ndarray) -> np.ndarray:
    return np.where(a == b, equal, different)


def _with_sign(magnitude: np.ndarray, sign: np.ndarray) -> np.ndarray:
    return np.where(sign < 0, -magnitude, magnitude)


def _any_negative(a: np.ndarray) -> bool:
    return bool((a < 0).any())


def _min_sum(
    metric: np.ndarray,
    row_start: np.ndarray,
    row_single: np.ndarray,
    column: np.ndarray,
    turn: np.ndarray,
    check_turn: np.ndarray,
    rotation: np.ndarray,
    lifting: int,
    most_iterations: int,
    early_stopping: bool,
    alpha: int,
    bits: np.ndarray,
    parity_ok: np.ndarray,
    iterations: np.ndarray,
) -> None:
    """Decode `metric` int16 [B, columns * lifting] into the last three arrays; `_edges` names the graph's arrays."""
    padded = -(-lifting // _LANES) * _LANES
    stride = 2 * padded
    posterior = np.zeros(rotation.size * stride, np.int16)
    check_to_bit = np.zeros(column.size * padded, np.int16)
    bit_to_check = np.zeros(np.max(row_start[1:] - row_start[:-1]) * padded, np.int16)
    lowest = np.zeros(padded, np.int16)
    second = np.zeros(padded, np.int16)
    sign = np.zeros(padded, np.int16)
    in_use = np.zeros(padded, np.int16)
    in_use[:lifting] = -1

    for word in range(metric.shape[0]):
        for c in range(rotation.size):
            start, wrap = c * stride, lifting - rotation[c]
            posterior[start : start + wrap] = metric[word, c * lifting + rotation[c] : (c + 1) * lifting]
            posterior[start + wrap : start + lifting] = metric[word, c * lifting : c * lifting + rotation[c]]
            posterior[start + lifting : start + 2 * lifting] = posterior[start : start + lifting]
        check_to_bit[:] = 0
        done = False
        iteration = 0
        while iteration < most_iterations and not done:
            iteration += 1
            for row in range(row_single.size):
                first, single, end = row_start[row], row_single[row], row_start[row + 1]
                for block in range(0, padded, _LANES):
                    m1 = m2 = _splat(_LARGEST_MESSAGE)
                    s = _splat(0)
                    for e in range(first, single):
                        message = _subtract(
                            _load(posterior, column[e] * stride + turn[e] + block),
                            _load(check_to_bit, e * padded + block),
                        )
                        _store(bit_to_check, (e - first) * padded + block, message)
                        magnitude = _magnitude(message)
                        m2 = _lower(m2, _higher(m1, magnitude))
                        m1 = _lower(m1, magnitude)
                        s = _xor(s, message)
                    for e in range(single, end):
                        message = _load(posterior, column[e] * stride + block)
                        magnitude = _magnitude(message)
                        m2 = _lower(m2, _higher(m1, magnitude))
                        m1 = _lower(m1, magnitude)
                        s = _xor(s, message)
                    _store(lowest, block, m1)
                    _store(second, block, m2)
                    _store(sign, block, s)
                # Downwards, because the second copy of a column overwrites what the last block wrote past its end.
                for back in range(_LANES, padded + 1, _LANES):
                    block = padded - back
                    m1 = _load(lowest, block)
                    s = _load(sign, block)
                    low = _scale(m1, alpha)
                    high = _scale(_load(second, block), alpha)
                    for e in range(first, single):
                        message = _load(bit_to_check, (e - first) * padded + block)
                        answer = _with_sign(_choose_if_equal(_magnitude(message), m1, high, low), _xor(s, message))
                        _store(check_to_bit, e * padded + block, answer)
                        total = _add(message, answer)
                        _store(posterior, column[e] * stride + block, total)
                        _store(posterior, column[e] * stride + lifting + block, total)
                    # A column of one check never hears from another: `posterior` keeps its channel value, and
                    # `check_to_bit` its posterior, which only the parity check below asks for.
                    for e in range(single, end):
                        message = _load(posterior, column[e] * stride + block)
                        answer = _with_sign(_choose_if_equal(_magnitude(message), m1, high, low), _xor(s, message))
                        _store(check_to_bit, e * padded + block, _add(message, answer))
            if early_stopping or iteration == most_iterations:
                done = True
                for row in range(row_single.size):
                    for block in range(0, padded, _LANES):
                        s = _splat(0)
                        for e in range(row_start[row], row_single[row]):
                            s = _xor(s, _load(posterior, column[e] * stride + check_turn[e] + block))
                        for e in range(row_single[row], row_start[row + 1]):
                            s = _xor(s, _load(check_to_bit, e * padded + block))
                        if _any_negative(_and(s, _load(in_use, block))):
                            done = False
                    if not done:
                        break
        parity_ok[word] = done
        iterations[word] = iteration
        for row in range(row_single.size):
            for e in range(row_single[row], row_start[row + 1]):
                start = column[e] * stride
                posterior[start : start + lifting] = check_to_bit[e * padded : e * padded + lifting]
        for c in range(bits.shape[1] // lifting):
            start, wrap = c * stride, lifting - rotation[c]
            for i in range(wrap):
                bits[word, c * lifting + rotation[c] + i] = posterior[start + i] < 0
            for i in range(rotation[c]):
                bits[word, c * lifting + i] = posterior[start + wrap + i] < 0


@functools.cache
def _compiled_min_sum() -> Callable[..., None]:
    """`_min_sum` compiled, its vector operations in LLVM's vector types.

    Left to itself LLVM would guard every 32-element loop against overlapping arrays, and numba would widen int16.
    """
    import numba
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import lower_builtin, models, register_model, type_callable

    class Lanes(types.Type):
        def __init__(self) -> None:
            super().__init__(name=f"{_LANES} x int16")

    narrow = ir.VectorType(ir.IntType(16), _LANES)
    wide = ir.VectorType(ir.IntType(32), _LANES)

    @register_model(Lanes)
    class LanesModel(models.PrimitiveModel):
        def __init__(self, manager: Any, kind: Any) -> None:
            super().__init__(manager, kind, narrow)

    def define(function: Callable[..., Any], result: Any, arguments: tuple[Any, ...], emit: Callable[..., Any]) -> None:
        def typer(*given: Any) -> Any:
            return result

        typer.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        type_callable(function)(lambda context: typer)
        lower_builtin(function, *arguments)(emit)

    def constant(value: int) -> ir.Constant:
        return ir.Constant(narrow, [value] * _LANES)

    def spread(builder: Any, scalar: Any, vector: ir.VectorType) -> Any:
        scalar = builder.trunc(scalar, vector.element)
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(wide, [0] * _LANES))

    def address(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.bitcast(builder.gep(array.data, [arguments[1]]), narrow.as_pointer())

    def load(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(address(context, builder, signature, arguments), align=2)

    def store(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], address(context, builder, signature, arguments), align=2)
        return context.get_dummy_value()

    def llvm(name: str) -> Callable[..., Any]:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.FunctionType(narrow, [narrow, narrow])
            function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{_LANES}i16")
            return builder.call(function, arguments)

        return emit

    def negative(builder: Any, value: Any) -> Any:
        return builder.icmp_signed("<", value, constant(0))

    def with_sign(builder: Any, value: Any, sign: Any) -> Any:
        return builder.select(negative(builder, sign), builder.sub(constant(0), value), value)

    def scale(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        product = builder.mul(builder.zext(arguments[0], wide), spread(builder, arguments[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, [16] * _LANES)), narrow)

    def any_negative(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        mask = builder.bitcast(negative(builder, arguments[0]), ir.IntType(_LANES))
        return builder.icmp_unsigned("!=", mask, ir.Constant(ir.IntType(_LANES), 0))

    lanes = Lanes()
    define(_load, lanes, (types.Array, types.Integer), load)
    define(_store, types.none, (types.Array, types.Integer, Lanes), store)
    define(_splat, lanes, (types.Integer,), lambda c, b, s, a: spread(b, b.sext(a[0], ir.IntType(64)), narrow))
    define(_and, lanes, (Lanes, Lanes), lambda c, b, s, a: b.and_(*a))
    define(_xor, lanes, (Lanes, Lanes), lambda c, b, s, a: b.xor(*a))
    define(_add, lanes, (Lanes, Lanes), llvm("sadd.sat"))
    define(_subtract, lanes, (Lanes, Lanes), llvm("ssub.sat"))
    define(_lower, lanes, (Lanes, Lanes), llvm("umin"))
    define(_higher, lanes, (Lanes, Lanes), llvm("umax"))
    define(_magnitude, lanes, (Lanes,), lambda c, b, s, a: with_sign(b, a[0], a[0]))
    define(_scale, lanes, (Lanes, types.Integer), scale)
    define(_choose_if_equal, lanes, (Lanes,) * 4, lambda c, b, s, a: b.select(b.icmp_unsigned("==", *a[:2]), *a[2:]))
    define(_with_sign, lanes, (Lanes, Lanes), lambda c, b, s, a: with_sign(b, *a))
    define(_any_negative, types.boolean, (Lanes,), any_negative)
    return numba.njit(cache=True, nogil=True)(_min_sum)
