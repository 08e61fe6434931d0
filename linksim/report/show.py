"""The table as text."""

from __future__ import annotations

import math

import pandas as pd

from linksim.metrics import columns


def _number(value: object, digits: int) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else f"{value:.{digits}f}"


def table_text(table: pd.DataFrame) -> str:
    """The columns that a reader wants at once: each metric with its interval, block errors, counts, stop reason."""
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
    return shown.to_string(index=False)
