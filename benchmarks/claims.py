"""The KDD paper's claims on CIFAR-10, one by one: `python benchmarks/claims.py [RESULTS]`.

Reads the per-image tables of `fig06`, `fig07`, `equal-pairs` and `table5` in a folder of results (they stay out of the
repository; `linksim reproduce` writes them), prints a Markdown table and writes `claims.csv` beside them. A gap is the
mean, over image groups, of the paired difference in per-image PSNR, averaged over the SNRs of the claim first: draws
are keyed by image group, so that the SNRs of a group are one observation. `pairs` are those that both were trained
on, with those of the weights that they were started from.
"""

from __future__ import annotations

import argparse
import csv
import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import linksim
from linksim.engine.stats import mean_and_half_width
from linksim.errors import LinksimError
from linksim.schemes.learned import TRAINED

METRIC = "psnr_db"


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper (section VI-B, table V), or an order that linksim asks for.

    Args:
        figure: results folder.
        channel, rho, snr_db: where it is said to hold; both ends of the SNR range.
        better, worse: variants.
        said_db: the smallest gap that the sentence names; 0 for an order alone.
        words: what the paper says.
    """

    figure: str
    channel: str
    rho: str
    snr_db: tuple[float, float]
    better: str
    worse: str
    said_db: float
    words: str


def _both_rho(figure: str, channel: str, *rest: object) -> list[Claim]:
    return [Claim(figure, channel, rho, *rest) for rho in ("1/6", "1/3")]  # type: ignore[arg-type]


ALL, BASELINE = (0.0, 20.0), "bpg-ldpc-qam-sic"
# The networks of DeepJSCC-NOMA start from no others: those that it is held against do not either.
SCRATCH = "semnoma:ablation=scratch"
CLAIMS = [
    *_both_rho("fig06", "awgn", ALL, "kd", "semnoma", 0.2, "+0.2 to 0.3 dB"),
    *_both_rho("fig06", "awgn", ALL, "semnoma", "semoma", 0.2, "+0.2 to 0.8 dB at equal overhead"),
    Claim("equal-pairs", "rayleigh", "1/6", ALL, SCRATCH, "deepjscc-noma", 1.0, "+1 to 2.5 dB"),
    Claim("equal-pairs", "rayleigh", "1/3", ALL, SCRATCH, "deepjscc-noma", 2.0, "+2 to 3 dB"),
    Claim("fig07", "rayleigh", "1/6", ALL, "kd", "semnoma", 0.2, "+0.2 dB"),
    Claim("fig07", "rayleigh", "1/3", ALL, "kd", "semnoma", 0.2, "+0.2 to 0.8 dB"),
    *_both_rho("fig07", "rayleigh", (10.0, 20.0), "kd", "semoma", 0.0, "above at high SNR, equal overhead"),
    *(
        claim
        for figure, channel in (("fig06", "awgn"), ("fig07", "rayleigh"))
        for learned in ("kd", "semnoma")
        for claim in _both_rho(figure, channel, (0.0, 6.0), learned, BASELINE, 0.0, "above at 0 to 6 dB")
    ),
    *(
        Claim("table5", channel, "1/3", (10.0, 10.0), better, worse, said, f"+{said:.2f} dB (table V)")
        for channel, gaps in (
            ("awgn", {"kd:ablation=crosskd": 0.23, "kd:ablation=fa": 0.24, "kd": 0.28}),
            ("rayleigh", {"kd:ablation=crosskd": 0.12, "kd:ablation=fa": 0.25, "kd": 0.47}),
        )
        for better, said in gaps.items()
        for worse in ("semnoma",)
    ),
]


def measured(images: pd.DataFrame, claim: Claim) -> tuple[float, float] | None:
    """Mean gap in dB and half of its 95% interval; None where a curve is missing."""
    numerator, denominator = map(int, claim.rho.split("/"))
    rows = images[
        (images["channel"] == claim.channel)
        & ((images["rho"] - numerator / denominator).abs() < 1e-9)
        & images["snr_db"].between(*claim.snr_db)
        & (images["stage"] == "first")
    ]
    curves = {
        name: rows[rows["variant"] == name].groupby(["group", "snr_db"])[METRIC].mean()
        for name in (claim.better, claim.worse)
    }
    if any(curve.empty for curve in curves.values()):
        return None
    gaps = (curves[claim.better] - curves[claim.worse]).dropna().groupby(level="group").mean()
    return mean_and_half_width(gaps.to_numpy())


def budgets(table: pd.DataFrame, claim: Claim) -> str:
    """Image pairs that the weights of `better` and of `worse` were trained on, in thousands; `-` for no weights."""
    numerator, denominator = map(int, claim.rho.split("/"))
    here = table[(table["channel"] == claim.channel) & ((table["rho"] - numerator / denominator).abs() < 1e-9)]
    if TRAINED not in here:
        return "- / -"
    pairs = [here.loc[here["variant"] == name, TRAINED].max() for name in (claim.better, claim.worse)]
    return " / ".join("-" if pd.isna(number) else f"{number / 1000:.0f}k" for number in pairs)


def verdict(claim: Claim, found: tuple[float, float] | None) -> str:
    """`holds` where the interval is above zero and reaches what the sentence names; else `fails`."""
    if found is None:
        return "not yet measurable"
    mean, half = found
    return "holds" if mean - half > 0 and mean + half >= claim.said_db else "fails"


def main() -> None:
    """Prints the table of claims and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"))
    folder = parser.parse_args().results
    if not folder.is_dir():
        parser.error(f"there is no folder {folder}")
    tables: dict[str, tuple[pd.DataFrame, pd.DataFrame]] = {}
    for figure in dict.fromkeys(claim.figure for claim in CLAIMS):
        try:
            tables[figure] = linksim.load_images(folder / figure), linksim.load(folder / figure)
        except LinksimError as error:
            print(f"{figure}: {error}")
    if not tables:
        parser.error(f"{folder} holds no per-image table: linksim reproduce fig06 writes one; --help says which else")
    rows = []
    head = ["claim", "channel", "rho", "SNR [dB]", "the paper", "measured", "pairs", "verdict"]
    print("|", " | ".join(head), "|\n" + "|---" * len(head) + "|")
    for claim in CLAIMS:
        images, table = tables.get(claim.figure, (None, None))
        found = measured(images, claim) if images is not None else None
        pairs = budgets(table, claim) if table is not None and found is not None else ""
        mean, half = found or (math.nan, math.nan)
        low, high = claim.snr_db
        span = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        shown = "" if found is None else f"{mean:+.3f} ± {half:.3f} dB"
        said = verdict(claim, found)
        order = f"`{claim.better}` over `{claim.worse}`"
        print("|", " | ".join([order, claim.channel, claim.rho, span, claim.words, shown, pairs, said]), "|")
        row = {"better": claim.better, "worse": claim.worse, "channel": claim.channel, "rho": claim.rho, "snr_db": span}
        rows.append({**row, "paper": claim.words, "gap_db": mean, "gap_db_ci95": half})
        rows[-1] |= {TRAINED: pairs, "verdict": said}
    with (folder / "claims.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
