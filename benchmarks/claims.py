"""Both papers' claims on CIFAR-10, one by one: `python benchmarks/claims.py [RESULTS]`.

Reads the per-image tables of `fig06`, `fig07`, `equal-pairs`, `trainings` and `gsc-*` in a folder of results (they stay
out of the repository; `linksim reproduce` writes them). Writes `claims.csv` beside them, and the same as tables into
the folder's README.md where that has the marks for it, with the curves that they are about. A gap is the mean, over
image groups, of the paired difference, averaged over the SNRs of the claim first: draws are keyed by image group, so
that the SNRs of a group are one observation. PSNR is the paper's, of the squared error pooled over a group's users.
Variants that differ in `weights` alone are trainings of one scheme, and the chance in training is in the interval.
`pairs` are those that both were trained on, with those of the weights that they were started from. A claim whose
per-image table is not at hand keeps its line, unless the curves in the folder are of other weights than the line's:
then it is measured on the first image groups, which `per_group.parquet` has.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

import linksim
from linksim.engine.context import fact_name
from linksim.engine.pairs import per_group
from linksim.engine.stats import difference_of_trainings
from linksim.engine.sweep import PER_GROUP
from linksim.errors import LinksimError
from linksim.files import write_atomic
from linksim.link.units import parse_rho, ratio_of
from linksim.report.compare import TRAINING, by_training
from linksim.schemes.learned import TRAINED

CSV = "claims.csv"
#: Papers, and the marks of their claims in the README.
PAPERS = {"KDD": "claims", "GSC": "gsc-claims"}
CHANNELS = {"awgn": "AWGN", "rayleigh": "Rayleigh"}
#: The curves that the README shows, and where on them, dB.
FIGURES, SHOWN_SNR_DB = ("fig06", "fig07"), (0.0, 5.0, 10.0, 15.0, 20.0)
PSNR, SSIM = "psnr_pooled_db", "ssim"
DECIBELS = (PSNR, "psnr_db")
#: What "comparable" means here, dB; the paper gives no number.
COMPARABLE_DB = 0.2
#: How many times the pairs of the other side `better` may have seen.
LEEWAY = 1.1
UNKNOWN = "not yet measurable"


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper, or an order that linksim asks for.

    Args:
        figure: results folder.
        channel, rho, snr_db: where it is said to hold; both ends of the SNR range.
        better, worse: variants.
        source: where it is said; what a sentence leaves open stands in brackets.
        said: the gap that the sentence names, both ends; none for an order alone, and for `equal`.
        metric: PSNR, SSIM, or another column of the per-image table; of LPIPS less is better.
        equal: whether the two are said to be comparable, and not one above the other.
        share: whether the gap is said in percent of the mean of `worse`, as papers do of decibels too.
        level: whether `said` is of the mean of `better` itself, and nothing of `worse`.
        paper: "KDD" or "GSC".
    """

    figure: str
    channel: str
    rho: str
    snr_db: tuple[float, float]
    better: str
    worse: str
    source: str
    said: tuple[float, float] | None = None
    metric: str = PSNR
    equal: bool = False
    share: bool = False
    level: bool = False
    paper: str = "KDD"

    @property
    def snr_words(self) -> str:
        """The SNRs that it is said for, dB."""
        low, high = self.snr_db
        return f"{low:g}" if low == high else f"{low:g} to {high:g}"

    @property
    def key(self) -> dict[str, str]:
        """What tells its line of claims.csv from the others."""
        metric = f"{self.metric} %" if self.share else f"{self.metric} level" if self.level else self.metric
        names = {"better": self.better, "worse": self.worse, "metric": metric}
        return {**names, "channel": self.channel, "rho": self.rho, "snr_db": self.snr_words, "figure": self.figure}

    @property
    def words(self) -> str:
        """What is said of the gap."""
        if self.equal:
            return f"comparable [within {COMPARABLE_DB} dB]"
        if self.said is None:
            return "above"
        low, high = self.said
        unit = "%" if self.share else " dB" if self.metric in DECIBELS else ""
        if self.level:
            return f"{low:g} to {high:g}{unit}"
        return f"{low:+g}{unit}" if low == high else f"{low:+g} to {high:g}{unit}"

    @property
    def sign(self) -> int:
        """1 where more of the metric is better, -1 where less is."""
        return -1 if self.metric.startswith("lpips") else 1


ALL, LOW, HIGH = (0.0, 20.0), (0.0, 9.0), (10.0, 20.0)
BASELINE = "bpg-ldpc-qam-sic"
# The networks of DeepJSCC-NOMA start from no others: those that it is held against do not either.
SCRATCH = "semnoma:ablation=scratch"
TEXT, TABLE, OURS = "section VI-B", "table V", "linksim's own order"


def _claims() -> list[Claim]:
    found = []
    for rho in ("1/6", "1/3"):
        awgn, fading, pairs = ("fig06", "awgn", rho), ("fig07", "rayleigh", rho), ("equal-pairs",)
        found += [
            Claim(*pairs, "awgn", rho, ALL, SCRATCH, "deepjscc-noma", TEXT),
            Claim(*awgn, ALL, "kd", "semnoma", TEXT, (0.2, 0.3)),
            Claim(*awgn, ALL, "kd", "semnoma", TEXT, metric=SSIM),
            Claim(*awgn, ALL, "semnoma", "semoma", f"{TEXT}, equal overhead", (0.2, 0.8)),
            Claim(*pairs, "rayleigh", rho, ALL, SCRATCH, "deepjscc-noma", TEXT, (1, 2.5) if rho == "1/6" else (2, 3)),
            Claim(*pairs, "rayleigh", rho, ALL, SCRATCH, "deepjscc-noma", TEXT, metric=SSIM),
            Claim(*fading, ALL, "kd", "semnoma", TEXT, (0.2, 0.2) if rho == "1/6" else (0.2, 0.8)),
            Claim(*fading, LOW, "kd", "semoma", f"{TEXT}, equal overhead, low SNR [0 to 9 dB]", equal=True),
            Claim(*fading, HIGH, "kd", "semoma", f"{TEXT}, equal overhead, high SNR [10 to 20 dB]"),
            Claim(*fading, ALL, "kd", "semoma", f"{TEXT}, equal overhead", metric=SSIM),
        ]
        for learned in ("kd", "semnoma"):
            found += [Claim(*place, (0.0, 6.0), learned, BASELINE, OURS) for place in (awgn, fading)]
    gaps = {
        "awgn": {"kd:ablation=crosskd": 0.23, "kd:ablation=fa": 0.24, "kd": 0.28},
        "rayleigh": {"kd:ablation=crosskd": 0.12, "kd:ablation=fa": 0.25, "kd": 0.47},
    }
    for channel, said in gaps.items():
        place = ("trainings", channel, "1/3", (10.0, 10.0))
        found += [Claim(*place, variant, "semnoma", TABLE, (gap, gap)) for variant, gap in said.items()]
        # The text: best where both are applied.
        for alone in ("kd:ablation=crosskd", "kd:ablation=fa"):
            gap = round(said["kd"] - said[alone], 2)
            found.append(Claim(*place, "kd", alone, TABLE, (gap, gap)))
    return found


def _gsc_claims() -> list[Claim]:
    """Of the GSC paper, whose figures are at rho 1/6 where its text is at 1/12 (gsc-fig04 draws both)."""
    found = []
    for channel, percent in (("awgn", 17.75), ("rayleigh", 20.86)):
        place = ("gsc-fig04", channel, "1/6")
        at = (15.0, 15.0)
        found += [
            Claim(*place, at, "gsc", "deepjscc", "section IV", (percent, percent), "psnr_db", share=True, paper="GSC"),
            Claim(*place, at, "gsc", "deepjscc", "section IV, the same in dB", metric="psnr_db", paper="GSC"),
            Claim(*place, (0.0, 0.0), "gsc", "ngf", "section IV", metric="psnr_db", paper="GSC"),
            Claim(*place, at, "gsc", "ngf", "section IV", metric="psnr_db", paper="GSC"),
        ]
    for channel, percent in (("awgn", 68.65), ("rayleigh", 28.18)):
        low = ("gsc-fig05", channel, "1/6", (0.0, 0.0))
        for metric in ("lpips_vgg", "lpips_alex"):
            found += [
                Claim(*low, "gsc", "deepjscc", "section IV", (percent, percent), metric, share=True, paper="GSC"),
                Claim(*low, "gsc", "ngf", OURS, metric=metric, paper="GSC"),
            ]
    found += [
        Claim("gsc-fig05", "awgn", "1/6", (0.0, 15.0), "gsc", "gsc:sft_ablation=no-prior", "section IV: the diffusion",
              metric="psnr_db", paper="GSC"),
        Claim("gsc-fig04-mu", "rayleigh", "1/6", (15.0, 15.0), "mu-gsc:detector=lmmse", "", "section IV, near 35 dB",
              (34.0, 36.0), "psnr_db", level=True, paper="GSC"),
        Claim("gsc-fig04-mu", "rayleigh", "1/6", (0.0, 15.0), "mu-gsc:detector=lmmse", "mu-gsc:detector=zf", OURS,
              metric="psnr_db", paper="GSC"),
        Claim("gsc-fig04", "awgn", "1/12", (0.0, 2.0), "jpeg-ldpc-qam", "", "section IV, nothing below 3 dB", (0, 14),
              "psnr_db", level=True, paper="GSC"),
        Claim("gsc-fig04", "awgn", "1/12", (7.0, 15.0), "jpeg-ldpc-qam", "", "section IV, near 20 dB above 6 dB",
              (19.0, 21.0), "psnr_db", level=True, paper="GSC"),
    ]  # fmt: skip
    for learned in ("ngf", "gsc"):
        found += [
            Claim("gsc-fig04", "awgn", "1/6", (0.0, 10.0), learned, "klt", f"{OURS}, a scheme without training",
                  metric="psnr_db", paper="GSC"),
            Claim("gsc-fig04", "awgn", "1/6", (5.0, 15.0), learned, "deepjscc", OURS, metric="psnr_db", paper="GSC"),
        ]  # fmt: skip
    return found


CLAIMS = [*_claims(), *_gsc_claims()]


def _at(table: pd.DataFrame, claim: Claim) -> pd.DataFrame:
    alike = (table["channel"] == claim.channel) & ((table["rho"] - float(parse_rho(claim.rho))).abs() < 1e-9)
    return table[alike & table["snr_db"].between(*claim.snr_db)]


def measured(groups: pd.DataFrame, claim: Claim) -> tuple[float, float] | None:
    """Mean gap and half of its 95% interval, in the unit of the claim's metric.

    None where a curve or the metric is missing, or where the two are not of the same groups at the same SNRs, but for
    groups behind the last one of the shorter curve.

    Args:
        groups: one row a group, point and stage (`linksim.load_groups`).
        claim: what is said.
    """
    rows = by_training(_last_stage(_at(groups, claim)))
    curves = [rows[rows["variant"] == name] for name in (claim.better, claim.worse) if name]
    if any(curve.empty for curve in curves) or claim.metric not in rows:
        return None
    last = min(curve["group"].max() for curve in curves)
    curves = [curve[curve["group"] <= last] for curve in curves]
    values = [curve.set_index(["group", "snr_db", TRAINING])[claim.metric].unstack(TRAINING) for curve in curves]
    if any(one.isna().any(axis=None) or set(one.index) != set(values[0].index) for one in values):
        return None
    better, *others = (one.groupby(level="group").mean().to_numpy().T for one in values)
    if claim.level:
        return difference_of_trainings(better, np.zeros_like(better[:1]))
    (worse,) = others
    mean, half = difference_of_trainings(claim.sign * better, claim.sign * worse)
    # In percent of a mean that is taken for known: its own interval moves the share by little.
    scale = 100 / float(worse.mean()) if claim.share else 1.0
    return mean * scale, half * scale


def _last_stage(rows: pd.DataFrame) -> pd.DataFrame:
    """Of every variant what it shows in the end: a refiner's images where it has one."""
    refined = set(rows.loc[rows["stage"] != "first", "variant"])
    return rows[(rows["stage"] != "first") | ~rows["variant"].isin(refined)]


def budgets(table: pd.DataFrame, claim: Claim) -> tuple[float, float]:
    """Image pairs that the weights of `better` and of `worse` were trained on; NaN for no weights."""
    here = by_training(_at(table, claim))
    if TRAINED not in here:
        return math.nan, math.nan
    better, worse = (float(here.loc[here["variant"] == name, TRAINED].max()) for name in (claim.better, claim.worse))
    return better, worse


def favoured(pairs: tuple[float, float]) -> bool:
    """Whether `better` has seen so many more pairs than `worse` that its gap is no sign of the method."""
    return pairs[0] > LEEWAY * pairs[1]


def weights(table: pd.DataFrame, claim: Claim) -> str | None:
    """Eight digits of the hashes of both curves' weights; `-` for no weights, None where a curve is missing.

    Those of several trainings are joined by `+`.
    """
    here, facts = by_training(_at(table, claim)), table.attrs["run"]["identity"]
    names = [name for name in (claim.better, claim.worse) if name]
    if not set(names) <= set(here["variant"]):
        return None
    trainings = [sorted(set(here.loc[here["variant"] == name, TRAINING])) for name in names]
    point = claim.channel, parse_rho(claim.rho), "weights"
    hashes = [[facts.get(fact_name(one, *point), "-")[:8] for one in own] for own in trainings]
    return " / ".join(["+".join(own) for own in hashes] + ["-"] * (2 - len(names)))


def verdict(claim: Claim, found: tuple[float, float] | None, favour: bool = False) -> str:
    """Of the 95% interval: an order holds above zero, a gap where the interval meets it.

    A gap that is above zero and less than said fails, and says so; one that is more holds, and says so. Where longer
    training favours `better`, a gap below zero fails all the more; one above it says nothing.
    """
    if found is None:
        return UNKNOWN
    mean, half = found
    low, high = mean - half, mean + half
    if claim.level and claim.said is not None:
        return "holds" if low <= claim.said[1] and high >= claim.said[0] else "fails"
    if favour and low > 0:
        return f"{UNKNOWN}: unequal budgets"
    if claim.equal:
        return "holds" if low >= -COMPARABLE_DB and high <= COMPARABLE_DB else "fails"
    if not low > 0:
        return "fails"
    if claim.said is not None and high < claim.said[0]:
        return "fails: above, by less"
    if claim.said is not None and low > claim.said[1]:
        return "holds: by more"
    return "holds"


def _thousands(*pairs: float) -> str:
    return " / ".join("-" if math.isnan(number) else f"{number / 1000:.0f}k" for number in pairs)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(cells: Sequence[str]) -> list[str]:
    return [_row(cells), "|---" * len(cells) + "|"]


def _lines(path: Path) -> list[dict[str, str]]:
    """The lines of a claims.csv; none where there is none."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        for line in lines:
            float(line["gap"]), float(line["gap_ci95"])
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise LinksimError(f"{path} holds no claims ({error!r}): take it away, and measure them again") from None
    return lines


def kept(before: list[dict[str, str]], claim: Claim) -> dict[str, str] | None:
    """The line of a claim that was measured earlier."""
    for line in before:
        if all(line.get(key) == value for key, value in claim.key.items()):
            return None if math.isnan(float(line["gap"])) else line
    return None


def curves(table: pd.DataFrame) -> list[str]:
    """PSNR and SSIM of a figure's curves at some SNRs, and their budgets: a table for each channel and rho."""
    lines = []
    first = table[table["stage"] == "first"]
    for channel, rho in dict.fromkeys(zip(first["channel"].tolist(), first["rho"].tolist(), strict=True)):
        rows = first[(first["channel"] == channel) & (first["rho"] == rho)]
        title = f"{CHANNELS.get(channel, channel)}, rho {ratio_of(rho)}: PSNR / SSIM"
        lines += ["", *_head([title, *(f"{snr:g} dB" for snr in SHOWN_SNR_DB), "pairs"])]
        for variant, curve in rows.groupby("variant", sort=False):
            at = curve.set_index("snr_db")
            cells = [f"{at[PSNR][snr]:.2f} / {at[SSIM][snr]:.3f}" if snr in at.index else "" for snr in SHOWN_SNR_DB]
            pairs = float(curve[TRAINED].max()) if TRAINED in curve else math.nan
            lines.append(_row([f"`{variant}`", *cells, _thousands(pairs)]))
    return lines


def marks(name: str) -> tuple[str, str]:
    """What stands before and behind a table in the README."""
    return f"<!-- {name} -->", f"<!-- end of {name} -->"


def placed(text: str, name: str, lines: list[str]) -> str:
    """`text` with `lines` between the marks of a name; as it is where it has none."""
    begin, stop = marks(name)
    before, mark, rest = text.partition(begin)
    _, end, after = rest.partition(stop)
    return "".join([before, mark, "\n\n", "\n".join(lines).strip(), "\n\n", end, after]) if mark and end else text


def _shown(claim: Claim, found: tuple[float, float] | None) -> str:
    if found is None:
        return ""
    mean, half = found
    if claim.level:
        return f"{mean:.2f} ± {half:.2f} dB" if claim.metric in DECIBELS else f"{mean:.4f} ± {half:.4f}"
    if claim.share:
        return f"{mean:+.1f} ± {half:.1f}%"
    return f"{mean:+.3f} ± {half:.3f} dB" if claim.metric in DECIBELS else f"{mean:+.4f} ± {half:.4f}"


def _line(
    claim: Claim,
    table: pd.DataFrame | None,
    groups: pd.DataFrame | None,
    few: pd.DataFrame | None,
    before: list[dict[str, str]],
) -> dict[str, str]:
    """A claim's line of claims.csv: measured here, else earlier on the same weights, else on a few groups, or none."""
    line = {**claim.key, "source": claim.source, "said": claim.words}
    line |= {"gap": "nan", "gap_ci95": "nan", TRAINED: "", "weights": "", "verdict": UNKNOWN}
    found = measured(groups, claim) if groups is not None else None
    old, here = kept(before, claim), weights(table, claim) if table is not None else None
    if table is None and old is not None:
        return {**line, **{key: old.get(key) or "" for key in line}}
    if found is None and old is not None and here is not None and old.get("weights") == here:
        found = float(old["gap"]), float(old["gap_ci95"])
    if found is None and few is not None:
        found = measured(few, claim)
    if found is None or table is None:
        return line
    pairs = budgets(table, claim)
    line |= {"gap": repr(found[0]), "gap_ci95": repr(found[1]), TRAINED: _thousands(*pairs)}
    return {**line, "weights": here or "", "verdict": verdict(claim, found, favoured(pairs))}


def _cells(claim: Claim, line: dict[str, str]) -> list[str]:
    """The same for the README."""
    order = f"`{claim.better}` over `{claim.worse}`" if claim.worse else f"`{claim.better}`"
    order += "" if claim.metric in DECIBELS else f", {claim.metric.replace('_', ' ').upper()}"
    found = float(line["gap"]), float(line["gap_ci95"])
    shown = _shown(claim, None if math.isnan(found[0]) else found)
    cells = [order, claim.channel, claim.rho, claim.snr_words, claim.source, claim.words, shown]
    return [*cells, line[TRAINED], line["verdict"]]


def write(folder: Path) -> list[str]:
    """Writes claims.csv and the tables of README.md in `folder`; returns the table of claims. Raises LinksimError."""
    tables: dict[str, pd.DataFrame] = {}
    groups: dict[str, pd.DataFrame] = {}
    few: dict[str, pd.DataFrame] = {}
    before, readme = _lines(folder / CSV), folder / "README.md"
    for figure in dict.fromkeys(claim.figure for claim in CLAIMS):
        try:
            table = linksim.load(folder / figure)
            if table.attrs["run"] is None or PSNR not in table.columns:
                raise LinksimError("no run.json, or no PSNR in its table: linksim reproduce writes them")
            tables[figure] = table
            if (kept_groups := folder / figure / PER_GROUP).is_file():
                few[figure] = pd.read_parquet(kept_groups)
            groups[figure] = per_group(linksim.load_images(folder / figure))
        except LinksimError as error:
            print(f"{figure}: {error}; claims on it stay as they were", file=sys.stderr)
    if not groups and not few and not before:
        raise LinksimError(
            f"{folder} holds no per-image table: linksim reproduce fig06 writes one; --help says which else"
        )
    rows = []
    for claim in CLAIMS:
        of_points, of_groups, of_few = (found.get(claim.figure) for found in (tables, groups, few))
        rows.append(_line(claim, of_points, of_groups, of_few, before))
    head = ["claim", "channel", "rho", "SNR [dB]", "source", "said", "measured", "pairs", "verdict"]
    lines = [*_head(head), *(_row(_cells(claim, row)) for claim, row in zip(CLAIMS, rows, strict=True))]
    try:
        text = readme.read_text(encoding="utf-8") if readme.is_file() else None
    except ValueError as error:
        raise LinksimError(f"{readme} is no text ({error})") from None
    if text is not None:
        for paper, name in PAPERS.items():
            own = [_row(_cells(claim, row)) for claim, row in zip(CLAIMS, rows, strict=True) if claim.paper == paper]
            text = placed(text, name, [*_head(head), *own])
        for figure in FIGURES:
            if figure in tables and marks(figure)[0] in text:
                text = placed(text, figure, curves(tables[figure]))
        write_atomic(readme, text.encode())
    content = StringIO(newline="")
    writer = csv.DictWriter(content, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(folder / CSV, content.getvalue().encode())
    return lines


def main() -> None:
    """Prints the table of claims and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"))
    folder = parser.parse_args().results
    if not folder.is_dir():
        parser.error(f"there is no folder {folder}")
    try:
        lines = write(folder)
    except LinksimError as error:
        parser.error(str(error))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
