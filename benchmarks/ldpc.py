"""Codewords a second of the LDPC decoders, one thread, one run: `python benchmarks/ldpc.py`.

Numba's min-sum with 20 fixed iterations and with early stopping, beside Sionna's boxplus-phi of 20 iterations, on
the same LLRs of BPSK over AWGN. `ratio` is codewords a second over Sionna's for the same code and Eb/N0.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

CODES = ((4096, 8192), (1024, 2048), (512, 1024))
EBN0_DB = (1.2, 1.8)
REPEATS = 3


@dataclass(frozen=True)
class Row:
    """One decoder on one code at one Eb/N0.

    Attributes:
        block_error_rate: over `words` codewords, the same ones for every decoder of a code and Eb/N0.
        words: Sionna decodes fewer than the min-sum does, its rate is so much lower.
        ratio: `codewords_per_second` over Sionna's.
    """

    k: int
    n: int
    decoder: str
    ebn0_db: float
    words: int
    iterations: float
    block_error_rate: float
    codewords_per_second: float
    ratio: float


def rows(words: int = 1024, reference_words: int = 64) -> Iterator[Row]:
    """Measure every decoder; the rows of one code and Eb/N0 follow each other, Sionna's first."""
    import numpy as np
    import torch

    from baselines.bpg_ldpc_qam_sic.ldpc import ldpc_code

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for k, n in CODES:
            decoders = (
                ("sionna boxplus-phi", ldpc_code(k, n, backend="sionna"), reference_words, 1),
                ("numba fixed", ldpc_code(k, n, early_stopping=False), words, REPEATS),
                ("numba early stopping", ldpc_code(k, n), words, REPEATS),
            )
            for ebn0_db in EBN0_DB:
                rng = np.random.default_rng(0)
                bits = rng.integers(0, 2, (words, k), dtype=np.uint8)
                variance = 0.5 * n / k / 10 ** (ebn0_db / 10)
                signal = 2.0 * decoders[1][1].encode(bits) - 1 + np.sqrt(variance) * rng.standard_normal((words, n))
                llr = (2 / variance * signal).astype(np.float32)
                reference = 0.0
                for name, code, count, repeats in decoders:
                    code.decode(llr[:2])  # compiles and builds
                    seconds = []
                    for _ in range(repeats):
                        start = time.perf_counter()
                        decoded = code.decode(llr[:count])
                        seconds.append(time.perf_counter() - start)
                    rate = count / sorted(seconds)[len(seconds) // 2]
                    reference = reference or rate
                    yield Row(
                        k=k,
                        n=n,
                        decoder=name,
                        ebn0_db=ebn0_db,
                        words=count,
                        iterations=float(decoded.iterations.mean()),
                        block_error_rate=float((decoded.bits != bits[:count]).any(axis=1).mean()),
                        codewords_per_second=rate,
                        ratio=rate / reference,
                    )
    finally:
        torch.set_num_threads(threads)


def main() -> None:
    """Print the rows as a table."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    print(
        f"{'code':>13} {'Eb/N0 dB':>8} {'decoder':<21} {'iterations':>10} {'BLER':>7} {'codewords/s':>11} {'ratio':>7}"
    )
    for row in map(asdict, rows()):
        print(
            "({k:>4}, {n:>5}) {ebn0_db:>8.1f} {decoder:<21} {iterations:>10.1f} {block_error_rate:>7.4f} "
            "{codewords_per_second:>11.0f} {ratio:>7.1f}".format(**row),
            flush=True,
        )


if __name__ == "__main__":
    main()
