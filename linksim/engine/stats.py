"""Means, intervals and stopping, on values clustered by image group."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95


@functools.lru_cache(maxsize=4096)
def _t_quantile(degrees: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + CONFIDENCE / 2, degrees))


def group_means(values: ArrayLike) -> NDArray[np.float64]:
    """Per-image values [groups, users] to the mean of each group [groups]: users of a group share noise and fading."""
    return np.asarray(values, np.float64).mean(axis=1)


def mean_and_half_width(cluster_means: NDArray[np.float64]) -> tuple[float, float]:
    """Mean over clusters and half the width of its 95% interval (Student's t); NaN width for a single cluster."""
    n = len(cluster_means)
    mean = float(cluster_means.mean()) if n else math.nan
    if n < 2:
        return mean, math.nan
    return mean, _t_quantile(n - 1) * float(cluster_means.std(ddof=1)) / math.sqrt(n)


def binomial_interval(errors: int, trials: int) -> tuple[float, float]:
    """Clopper-Pearson 95% interval of a probability; (NaN, NaN) without trials."""
    if trials == 0:
        return math.nan, math.nan
    from scipy.stats import beta

    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if errors == 0 else float(beta.ppf(tail, errors, trials - errors + 1))
    high = 1.0 if errors == trials else float(beta.ppf(1 - tail, errors + 1, trials - errors))
    return low, high


def units_needed(
    unit_values: Sequence[Mapping[str, NDArray[np.float64]]],
    until: Mapping[str, float],
    min_groups: int,
) -> int | None:
    """How many of a point's units, taken in order, satisfy the stopping rule; None when not even all of them.

    The rule looks at prefixes of the units alone, so that it comes to the same end however the units were computed.

    Args:
        unit_values: for each unit in order, metric -> the groups' means [groups of the unit].
        until: metric -> half-width wanted.
        min_groups: groups that are taken in any case.
    """
    for count in range(1, len(unit_values) + 1):
        widths = {}
        for metric in until:
            clusters = np.concatenate([values[metric] for values in unit_values[:count]])
            widths[metric] = mean_and_half_width(clusters)[1] if len(clusters) >= min_groups else math.inf
        if all(widths[metric] <= wanted for metric, wanted in until.items()):
            return count
    return None
