"""The table as text, and as a paper, a README or a spreadsheet takes it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from linksim.columns import VS_FIRST
from linksim.engine.context import FIRST
from linksim.link.units import ratio_of
from linksim.metrics import columns
from linksim.report.names import FIRST_STAGE, SETTINGS, title

#: What `linksim show --format` takes.
FORMATS = ("text", "latex", "markdown", "csv")


def _number(value: object, digits: int) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else f"{value:.{digits}f}"


def _cells(table: pd.DataFrame, column: str, digits: int, sign: str = " ±") -> list[str]:
    """Each value with the half-width of its 95% interval, where it has one."""
    interval = table.get(f"{column}_ci95")
    return [
        _number(value, digits)
        + ("" if interval is None or math.isnan(interval.iloc[i]) else f"{sign}{interval.iloc[i]:.{digits}f}")
        for i, value in enumerate(table[column])
    ]


def table_text(table: pd.DataFrame) -> str:
    """The columns that a reader wants at once: each metric with its interval, block errors, counts, stop reason.

    Below it, for every refined row, what the second stage changed: `stages_text`.
    """
    shown = pd.DataFrame({"scheme": table["variant"]})
    for column in ("stage", "channel"):
        if table[column].nunique() > 1:
            shown[column] = table[column]
    shown["rho"] = [_number(rho, 4) for rho in table["rho"]]
    shown["SNR"] = [f"{snr:g}" for snr in table["snr_db"]]
    for column, metric in columns().items():
        if column not in table:
            continue
        shown[column] = _cells(table, column, metric.digits)
    if table["bler"].notna().any():
        shown["BLER"] = [_number(value, 4) for value in table["bler"]]
    if "refine_start" in table:
        shown["T'"] = [_number(start, 0) for start in table["refine_start"]]
    shown["images"] = table["n_images"]
    shown["tx_power"] = [_number(value, 3) for value in table["tx_power"]]
    shown["uses"] = table["channel_uses"]
    shown["stop"] = table["stop_reason"]
    text = shown.to_string(index=False)
    return f"{text}\n\n{stages}" if (stages := stages_text(table)) else text


def stages_text(table: pd.DataFrame) -> str:
    """A line for every refined row: each metric of the first stage, of the refined images, and their difference.

    Differences have the half-width of their 95% interval, paired over groups, where a metric is of single images. Empty
    for a table of first stages alone.
    """
    lines = []
    kinds = {column: metric for column, metric in columns().items() if f"{column}{VS_FIRST}" in table}
    for _, row in table.iterrows():
        parts = []
        for column, metric in kinds.items():
            digits, change = metric.digits, row[f"{column}{VS_FIRST}"]
            if math.isnan(change):
                continue
            half = row.get(f"{column}{VS_FIRST}_ci95", math.nan)
            paired = "" if math.isnan(half) else f" ±{half:.{digits}f}"
            before, after = row[column] - change, row[column]
            parts.append(f"{column} {before:.{digits}f} -> {after:.{digits}f} ({change:+.{digits}f}{paired})")
        if parts:
            start = row.get("refine_start", math.nan)
            told = "" if math.isnan(start) else f", T' {start:.0f}"
            lines.append(
                f"{row['variant']} {row['channel']} {row['rho']:.4g} {row['snr_db']:g} dB{told}: {', '.join(parts)}"
            )
    return "\n".join(["Second stages (first -> refined, difference):", *lines]) if lines else ""


def _for_print(table: pd.DataFrame, labels: Mapping[str, str] | None) -> pd.DataFrame:
    """The columns that a paper's table has, under their usual names; channel and users where they differ."""
    first = (table["stage"] == FIRST) & table["variant"].isin(set(table["variant"][table["stage"] != FIRST]))
    names = table["variant"].map(lambda variant: title(variant, labels))
    shown = pd.DataFrame({"Scheme": names.where(~first, names + FIRST_STAGE)})
    for column, name in (("channel", "Channel"), ("users", "Users")):
        if table[column].nunique() > 1:
            shown[name] = [SETTINGS.get(str(value), str(value)) for value in table[column]]
    shown["rho"] = [str(ratio_of(rho)) for rho in table["rho"]]
    shown["SNR (dB)"] = [f"{snr:g}" for snr in table["snr_db"]]
    for column, metric in columns().items():
        if column in table and table[column].notna().any():
            shown[metric.label] = _cells(table, column, metric.digits, " ± ")
    if table["bler"].notna().any():
        shown["BLER"] = [_number(value, 4) for value in table["bler"]]
    shown["Images"] = table["n_images"].astype(str)
    return shown


def table_latex(table: pd.DataFrame, labels: Mapping[str, str] | None = None) -> str:
    r"""A LaTeX tabular with rules of booktabs: names a reader knows, value and 95% interval in one cell.

    Args:
        table: one row a curve point, as `linksim.load` gives it.
        labels: names in place of the usual ones (`linksim.report.names.parse_labels`).

    Example:
        >>> row = {"variant": "kd", "stage": "first", "channel": "awgn", "users": 2, "rho": 1 / 6, "snr_db": 10.0}
        >>> table = pd.DataFrame([{**row, "psnr_db": 26.5, "psnr_db_ci95": 0.05, "bler": math.nan, "n_images": 512}])
        >>> print(table_latex(table))
        \begin{tabular}{lrrrr}
        \toprule
        Scheme & $\rho$ & SNR (dB) & PSNR (dB) & Images \\
        \midrule
        KD-SemNOMA & 1/6 & 10 & 26.50 $\pm$ 0.05 & 512 \\
        \bottomrule
        \end{tabular}
    """
    shown = _for_print(table, labels)
    words = sum(column in shown for column in ("Scheme", "Channel"))
    text = shown.to_latex(index=False, escape=True, column_format="l" * words + "r" * (shown.shape[1] - words))
    return text.replace("±", r"$\pm$").replace(" rho &", r" $\rho$ &", 1).rstrip("\n")


def table_markdown(table: pd.DataFrame, labels: Mapping[str, str] | None = None) -> str:
    """A table of Markdown with the columns of `table_latex`.

    Args:
        table: one row a curve point, as `linksim.load` gives it.
        labels: names in place of the usual ones (`linksim.report.names.parse_labels`).
    """
    shown = _for_print(table, labels)
    rows = [list(shown.columns), ["---"] * shown.shape[1], *shown.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def table_csv(table: pd.DataFrame) -> str:
    """The columns of `table_text` as comma-separated values, in full; intervals have columns of their own."""
    known = [name for column in columns() for name in (column, f"{column}_ci95")]
    wanted = ["variant", "stage", "channel", "rho", "snr_db", *known, "bler", "bler_low", "bler_high", "n_images",
              "tx_power", "channel_uses", "stop_reason"]  # fmt: skip
    there = [name for name in wanted if name in table and table[name].notna().any()]
    return table[there].to_csv(index=False, lineterminator="\n")
