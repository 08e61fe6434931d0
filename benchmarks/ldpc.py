"""The LDPC decoders, one thread: their speed, and the min-sum's factor at every code rate.

`python benchmarks/ldpc.py`: numba's min-sum with 20 fixed iterations and with early stopping, beside Sionna's
boxplus-phi of 20 iterations, on the same LLRs of BPSK over AWGN. `ratio` is codewords a second over Sionna's for the
same code and Eb/N0.

`python benchmarks/ldpc.py --search results/ldpc`: how many words near each code's threshold the min-sum fails with
every factor (`search.csv`), and, on words of another seed, what it fails with the factors in use where boxplus-phi
does not, and the other way round (`held_out.csv`).
"""

import argparse
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from baselines.bpg_ldpc_qam_sic.ldpc import Ldpc5G

CODES = ((4096, 8192), (1024, 2048), (512, 1024))
EBN0_DB = (1.2, 1.8)
REPEATS = 3

#: Codes of the search and two Eb/N0 in dB of each: block error rates of some 1/10 and some 1/100.
SEARCHED = {
    "1/5": {(410, 2048): (0.6, 0.8)},
    "1/3": {(341, 1024): (1.0, 1.4), (683, 2048): (0.8, 1.1), (4096, 12288): (0.6, 0.7)},
    "1/2": {(512, 1024): (1.4, 1.8), (1024, 2048): (1.2, 1.5), (4096, 8192): (1.1, 1.2)},
    "2/3": {
        (683, 1024): (2.1, 2.4),
        (1365, 2048): (1.95, 2.2),
        (2048, 3072): (1.9, 2.1),
        (4096, 6144): (1.85, 2.0),
    },
    "3/4": {(288, 384): (2.8, 3.2), (768, 1024): (2.6, 3.0), (1536, 2048): (2.5, 2.7)},
    "5/6": {(280, 336): (3.7, 4.2), (853, 1024): (3.3, 3.6), (2560, 3072): (3.05, 3.2), (5120, 6144): (3.0, 3.1)},
    "11/12": {(286, 312): (5.2, 5.8), (939, 1024): (4.3, 4.6), (1877, 2048): (4.2, 4.4)},
}
FACTORS = (0.55, 0.575, 0.6, 0.625, 0.65, 0.675, 0.68, 0.7, 0.725, 0.75, 0.775, 0.8, 0.825, 0.85, 0.875, 0.9, 0.925)
SEARCH_SEED, HELD_OUT_SEED = 1, 2


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


def received_words(code: "Ldpc5G", ebn0_db: float, words: int, seed: int) -> "tuple[np.ndarray, np.ndarray]":
    """Random information bits uint8 [words, k] and their LLRs float32 [words, n] of BPSK over AWGN."""
    import numpy as np

    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (words, code.k), dtype=np.uint8)
    variance = 0.5 * code.n / code.k / 10 ** (ebn0_db / 10)
    signal = 2.0 * code.encode(bits) - 1 + np.sqrt(variance) * rng.standard_normal((words, code.n))
    return bits, (2 / variance * signal).astype(np.float32)


def rows(words: int = 1024, reference_words: int = 64) -> Iterator[Row]:
    """Measure every decoder; the rows of one code and Eb/N0 follow each other, Sionna's first."""
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
                bits, llr = received_words(decoders[1][1], ebn0_db, words, seed=0)
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


@dataclass(frozen=True)
class Trial:
    """What one factor failed of one code's words at one Eb/N0."""

    rate: str
    k: int
    n: int
    base_graph: int
    ebn0_db: float
    words: int
    seed: int
    alpha: float
    failures: int


@dataclass(frozen=True)
class HeldOut(Trial):
    """One factor beside boxplus-phi on the same words; `alone` counts words that the other decodes."""

    boxplus_phi_failures: int
    alone: int
    boxplus_phi_alone: int


def trials(words: int = 4000) -> Iterator[Trial]:
    """Every factor on every code of the search."""
    from baselines.bpg_ldpc_qam_sic.ldpc import Ldpc5G, base_graph

    for rate, codes in SEARCHED.items():
        for (k, n), ebn0s in codes.items():
            decoders = [Ldpc5G(k, n, alpha=alpha) for alpha in FACTORS]
            for ebn0_db in ebn0s:
                bits, llr = received_words(decoders[0], ebn0_db, words, SEARCH_SEED)
                for code in decoders:
                    failures = int((code.decode(llr).bits != bits).any(axis=1).sum())
                    yield Trial(rate, k, n, base_graph(k, n), ebn0_db, words, SEARCH_SEED, code.alpha, failures)


def fewest_failures(found: list[Trial]) -> dict[tuple[int, str], float]:
    """For each base graph and rate the factor of the fewest failures, every code and Eb/N0 with the same weight."""
    score: defaultdict[tuple[int, str], defaultdict[float, float]] = defaultdict(lambda: defaultdict(float))
    for trial in found:
        score[trial.base_graph, trial.rate][trial.alpha] += math.log(trial.failures + 0.5)
    return {code: min(scores, key=lambda alpha: scores[alpha]) for code, scores in score.items()}


def held_out(bits: int = 1_536_000) -> Iterator[HeldOut]:
    """The factor in use, that of rate 1/2, and boxplus-phi on the same words, at the first Eb/N0 of each code.

    Args:
        bits: coded bits of a code's words, of which there are 2,000 at the most: boxplus-phi takes its time by them.
    """
    import torch

    from baselines.bpg_ldpc_qam_sic.ldpc import ALPHA, Ldpc5G, base_graph

    torch.set_num_threads(1)
    for rate, codes in SEARCHED.items():
        for (k, n), (ebn0_db, _) in codes.items():
            reference, graph, words = Ldpc5G(k, n, backend="sionna"), base_graph(k, n), min(2000, bits // n)
            sent, llr = received_words(reference, ebn0_db, words, HELD_OUT_SEED)
            other = (reference.decode(llr).bits != sent).any(axis=1)
            for alpha in dict.fromkeys((Ldpc5G(k, n).alpha, ALPHA[graph]["1/2"])):
                failed = (Ldpc5G(k, n, alpha=alpha).decode(llr).bits != sent).any(axis=1)
                yield HeldOut(
                    rate, k, n, graph, ebn0_db, words, HELD_OUT_SEED, alpha, int(failed.sum()), int(other.sum()),
                    int((failed & ~other).sum()), int((other & ~failed).sum()),
                )  # fmt: skip


def search(folder: Path) -> None:
    """Writes `search.csv` and `held_out.csv` and prints the factors that failed the fewest words."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    found = list(trials())
    pd.DataFrame(found).to_csv(folder / "search.csv", index=False)
    for (graph, rate), alpha in fewest_failures(found).items():
        print(f"base graph {graph}, rate {rate}: {alpha:g}", flush=True)
    pd.DataFrame(list(held_out())).to_csv(folder / "held_out.csv", index=False)


def main() -> None:
    """Print the rows as a table, or search."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", type=Path, metavar="FOLDER", help="search the min-sum's factors instead")
    if (folder := parser.parse_args().search) is not None:
        return search(folder)
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
