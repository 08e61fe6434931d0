"""Paired differences between schemes."""

from __future__ import annotations

import pandas as pd

from linksim.engine.plan import chosen
from linksim.engine.stats import mean_and_half_width
from linksim.errors import LinksimError, unknown

_POINT = ["stage", "channel", "rho", "snr_db"]
_NOT_METRICS = {*_POINT, "variant", "scheme", "group", "user", "image", "lost", "envelope_of"}


def paired_differences(per_image: pd.DataFrame, baseline: str, metric: str = "psnr_db") -> pd.DataFrame:
    """Mean difference of each variant from the baseline at each point, over the image groups that both evaluated.

    Args:
        per_image: one row an image, user, point and stage.
        baseline: the variant that the others are compared with.
        metric: per-image column.

    Returns:
        One row a variant and point: `difference` (variant - baseline), `difference_ci95` (half-width of the 95%
        interval, Student's t over groups), `groups`, and `clear` where the interval leaves zero out.

    Raises:
        LinksimError: unknown variant or metric, or nothing to compare with.
    """
    columns = [column for column in per_image.columns if column not in _NOT_METRICS]
    if metric not in columns:
        raise unknown("metric column", metric, columns)
    labels = list(dict.fromkeys(per_image["variant"]))
    name = chosen(labels, baseline)
    if len(labels) < 2:
        raise LinksimError(f"only {name} is in these results: sweep two schemes at once to compare them")
    groups = per_image.groupby(["variant", *_POINT, "group"], sort=False)[metric].mean()
    base = groups.loc[name]
    rows = []
    for label in labels:
        if label == name:
            continue
        paired = (groups.loc[label] - base).dropna()
        for point, values in paired.groupby(level=_POINT, sort=False):
            mean, half = mean_and_half_width(values.to_numpy())
            facts = dict(zip(_POINT, point, strict=True))
            rows.append(
                {"variant": label, "baseline": name, **facts, "metric": metric, "difference": mean}
                | {"difference_ci95": half, "groups": len(values), "clear": bool(abs(mean) > half)}
            )
    return pd.DataFrame(rows)
