"""Paired differences between schemes."""

from __future__ import annotations

import pandas as pd

from linksim.engine.stats import mean_and_half_width
from linksim.errors import LinksimError, chosen, unknown

_POINT = ["channel", "rho", "snr_db"]
_NOT_METRICS = {*_POINT, "stage", "variant", "scheme", "group", "user", "image", "lost", "envelope_of"}


def paired_differences(
    per_image: pd.DataFrame, baseline: str, metric: str = "psnr_db", stage: str | None = None
) -> pd.DataFrame:
    """Mean difference of each variant's stages from the baseline at each point, over the groups that both evaluated.

    Args:
        per_image: one row an image, user, point and stage.
        baseline: the variant that the others are compared with.
        metric: per-image column.
        stage: of the baseline; None takes its last.

    Returns:
        One row a variant, stage and point: `difference` (variant - baseline), `difference_ci95` (half-width of the 95%
        interval, Student's t over groups), `groups`, and `clear` where the interval leaves zero out.

    Raises:
        LinksimError: unknown variant or metric, or nothing to compare with.
    """
    columns = [column for column in per_image.columns if column not in _NOT_METRICS]
    if metric not in columns:
        raise unknown("metric column", metric, columns)
    labels = list(dict.fromkeys(per_image["variant"]))
    name = chosen(labels, baseline)
    stages = {label: list(dict.fromkeys(rows["stage"])) for label, rows in per_image.groupby("variant", sort=False)}
    stage = stages[name][-1] if stage is None else stage
    if stage not in stages[name]:
        raise unknown(f"stage of {name}", stage, stages[name])
    others = [(label, own) for label in labels for own in stages[label] if (label, own) != (name, stage)]
    if not others:
        raise LinksimError(f"only {name} is in these results: sweep two schemes at once to compare them")
    groups = per_image.groupby(["variant", "stage", *_POINT, "group"], sort=False)[metric].mean()
    groups = groups.sort_index()
    base = groups.loc[name, stage]
    rows = []
    for label, own in others:
        paired = (groups.loc[label, own] - base).dropna()
        for point, values in paired.groupby(level=_POINT, sort=False):
            mean, half = mean_and_half_width(values.to_numpy())
            facts = dict(zip(_POINT, point, strict=True))
            rows.append(
                {
                    "variant": label,
                    "stage": own,
                    "baseline": name,
                    "baseline_stage": stage,
                    **facts,
                    "metric": metric,
                    "difference": mean,
                }
                | {"difference_ci95": half, "groups": len(values), "clear": bool(abs(mean) > half)}
            )
    return pd.DataFrame(rows)
