"""The table as text."""

from __future__ import annotations

import math

import pandas as pd

from linksim.columns import VS_FIRST
from linksim.metrics import columns


def _number(value: object, digits: int) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else f"{value:.{digits}f}"


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
        digits = metric.digits
        interval = table.get(f"{column}_ci95")
        shown[column] = [
            _number(value, digits)
            + ("" if interval is None or math.isnan(interval.iloc[i]) else f" ±{interval.iloc[i]:.{digits}f}")
            for i, value in enumerate(table[column])
        ]
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
