"""One run of every benchmark: `python benchmarks/run.py`.

Prints the LDPC decoders' codewords a second beside Sionna's, the image pairs a second of a sweep by stage on one
thread, and the seconds of the README's command with an empty cache of encodings.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import ldpc

README_COMMAND = ["sweep", "--scheme", "bpg-ldpc-qam-sic", "--channel", "rayleigh"]


def linksim(words: list[str], folder: Path, cache: Path) -> float:
    """Seconds of one command line."""
    start = time.perf_counter()
    environment = {**os.environ, "LINKSIM_CACHE": str(cache)}
    subprocess.run([sys.executable, "-m", "linksim", *words, "--quiet"], cwd=folder, env=environment, check=True)
    return time.perf_counter() - start


def stages(folder: Path) -> dict[str, float]:
    """Image pairs a second of each stage, from a results folder's journal."""
    seconds: Counter[str] = Counter()
    pairs = 0
    for path in (folder / "journal").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            record = json.loads(line.partition(" ")[2])
            pairs += record["stop"] - record["start"]
            seconds.update(record["seconds"])
    seconds["all"] = sum(seconds.values())
    return {stage: pairs / spent for stage, spent in seconds.items()}


def main() -> None:
    """Runs and prints everything."""
    print(f"{'LDPC':14}{'decoder':22}{'Eb/N0':>6}{'BLER':>8}{'words/s':>10}{'ratio':>8}")
    for row in ldpc.rows():
        print(
            f"({row.k}, {row.n})".ljust(14) + f"{row.decoder:22}{row.ebn0_db:6g}{row.block_error_rate:8.3f}"
            f"{row.codewords_per_second:10.0f}{row.ratio:8.1f}"
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cold = linksim([*README_COMMAND, "--out", "cold"], folder, folder / "cache")
        warm = linksim([*README_COMMAND, "--out", "warm"], folder, folder / "cache")
        linksim([*README_COMMAND, "--workers", "1", "--out", "one"], folder, folder / "cache")
        print(f"\nlinksim {' '.join(README_COMMAND)}: {cold:.1f} s, with encodings cached {warm:.1f} s")
        print("pairs/s on one thread, encodings cached:")
        for stage, rate in stages(folder / "one").items():
            print(f"  {stage:10}{rate:10.0f}")


if __name__ == "__main__":
    main()
