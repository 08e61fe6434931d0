"""What pairing needs of a sweep, small enough to go with its tables: the metrics of its first image groups.

All schemes of a sweep see the same draws, and so do sweeps of the same images and seed. So a reader who has these rows
of a figure can take paired differences from it, without the table of images that is too large to publish.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from linksim.errors import LinksimError
from linksim.metrics import image_metrics

#: Image groups that `per_group.parquet` has at the most.
GROUPS = 256

#: Of the spread of a metric over groups, what its numbers are rounded to: 1/64 dB of PSNR. What is left out compresses.
_PART = 1 / 256

#: The columns that say which group of which curve point a row is.
KEYS = ["variant", "scheme", "stage", "channel", "rho", "snr_db", "group"]

_NO_METRICS = {*KEYS, "user", "image", "mse", "lost", "envelope_of"}


def per_group(per_image: pd.DataFrame) -> pd.DataFrame:
    """The metrics of image groups: means over a group's users, and the pooled ones.

    Args:
        per_image: one row an image, user, point and stage.

    Returns:
        One row a group, point and stage, with the columns `KEYS` and those of the metrics.

    Example:
        >>> image = {key: "kd" for key in KEYS} | {"group": 0, "psnr_db": 30.0}
        >>> rows = [image | {"user": 0, "mse": 0.001}, image | {"user": 1, "psnr_db": 20.0, "mse": 0.01}]
        >>> per_group(pd.DataFrame(rows))[["psnr_db", "psnr_pooled_db"]].round(2).to_numpy().tolist()
        [[25.0, 22.6]]
    """
    keys = [key for key in KEYS if key in per_image]
    columns = [name for name in per_image if name not in _NO_METRICS and per_image[name].dtype.kind in "iuf"]
    errors = ["mse"] if "mse" in per_image else []
    means = per_image.groupby(keys, sort=False, observed=True)[[*columns, *errors]].mean().reset_index()
    for kind in image_metrics():
        if kind.pooled is not None and {"mse", kind.column} <= set(means):
            place = list(means).index(kind.column) + 1
            means.insert(place, kind.pooled.name, kind.of_pooled(means["mse"].to_numpy(np.float64)))
    return means.drop(columns=errors)


def kept(per_image: pd.DataFrame, before: pd.DataFrame | None = None) -> pd.DataFrame:
    """The rows of `per_group.parquet`: the first `GROUPS` groups, numbers rounded far below their spread over groups.

    Args:
        per_image: see `per_group`.
        before: rows that were kept earlier; those of curves that `per_image` has not stay.
    """
    found = per_group(per_image[per_image["group"] < GROUPS])
    point = found.groupby(["variant", "stage", "channel", "rho", "snr_db"], sort=False)
    for name in found.columns.difference(KEYS):
        found[name] = _short(found[name].to_numpy(np.float64), float(point[name].std().median()))
    found["group"] = found["group"].astype(np.int16)
    return found if before is None else with_others(found, before)


def with_others(groups: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """`groups`, and of `others` the curves that they have not."""
    curve = ["variant", "channel", "rho"]
    there = pd.MultiIndex.from_frame(groups[curve].drop_duplicates())
    return pd.concat([groups, others[~pd.MultiIndex.from_frame(others[curve]).isin(there)]], ignore_index=True)


def _short(values: np.ndarray, spread: float) -> np.ndarray:
    """Numbers as multiples of a power of two, near `_PART` of their spread; whole ones where float32 has no such."""
    if not (0 < spread < math.inf):
        return values
    step = 2.0 ** round(math.log2(spread * _PART))
    rounded = np.where(np.isfinite(values), np.round(values / step) * step, values)
    short = rounded.astype(np.float32)
    return short if np.array_equal(short.astype(np.float64), rounded, equal_nan=True) else values


def check(table: pd.DataFrame, path: Path, way_out: str) -> None:
    """Raises LinksimError for a table that is no `per_group.parquet`.

    Args:
        table: what was read.
        path: from where.
        way_out: what to do about it.
    """
    wrong = [key for key in KEYS if key not in table]
    if not wrong:
        texts, numbers = ["variant", "scheme", "stage", "channel"], ["rho", "snr_db", "group"]
        wrong = [key for key in texts if not all(isinstance(value, str) for value in table[key])]
        wrong += [key for key in numbers if table[key].dtype.kind not in "iuf" or not np.isfinite(table[key]).all()]
        wrong += [key for key in table.columns.difference(KEYS) if table[key].dtype.kind not in "iuf"]
    if wrong:
        raise LinksimError(f"{path} lacks {wrong[0]}, or has what is none: {way_out}")
    if table.duplicated(KEYS).any():
        raise LinksimError(f"{path} has rows twice: {way_out}")
