"""Means, intervals and stopping, on values clustered by image group."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95


@functools.lru_cache(maxsize=4096)
def _t_quantile(degrees: float) -> float:
    # What scipy.stats answers with, without the seconds that it takes to import.
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + CONFIDENCE / 2))


def group_means(values: ArrayLike) -> NDArray[np.float64]:
    """Per-image values [groups, users] to the mean of each group [groups]: users of a group share noise and fading."""
    found: NDArray[np.float64] = np.asarray(values, np.float64).mean(axis=1)
    return found


def mean_and_half_width(cluster_means: NDArray[np.float64]) -> tuple[float, float]:
    """Mean over clusters and half the width of its 95% interval (Student's t); NaN width for a single cluster."""
    n = len(cluster_means)
    mean = float(cluster_means.mean()) if n else math.nan
    if n < 2:
        return mean, math.nan
    return mean, _t_quantile(n - 1) * float(cluster_means.std(ddof=1)) / math.sqrt(n)


def difference_of_trainings(ones: NDArray[np.float64], others: NDArray[np.float64]) -> tuple[float, float]:
    """Mean difference of two models that were each trained several times, and half the width of its 95% interval.

    Chance is in the trainings and in the image groups that they are measured on: the variance is the sum of those of
    both models' means over trainings and of the mean difference over groups, the degrees of freedom are Satterthwaite's
    (*Biometrics Bulletin* 2, 1946). Of a model that was trained once, nothing is known of the chance in training, and
    none is in the interval.

    Args:
        ones, others: metric of every training in every group, [trainings, groups], on the same groups.

    Returns:
        Mean of `ones` less that of `others`, and the half-width; NaN width where nothing repeats.

    >>> mean, half = difference_of_trainings(np.array([[1.0, 1.0], [3.0, 3.0]]), np.array([[0.0, 0.0]]))
    >>> round(mean, 3), round(half, 3)
    (2.0, 12.706)
    """
    gaps = ones.mean(axis=0) - others.mean(axis=0)
    samples = [gaps, ones.mean(axis=1), others.mean(axis=1)]
    parts = [(float(sample.var(ddof=1)) / len(sample), len(sample) - 1) for sample in samples if len(sample) > 1]
    variance = sum(part for part, _ in parts)
    if not parts:
        return float(gaps.mean()), math.nan
    if not variance:
        return float(gaps.mean()), 0.0
    degrees = variance**2 / sum(part**2 / free for part, free in parts)
    return float(gaps.mean()), _t_quantile(degrees) * math.sqrt(variance)


def binomial_interval(errors: float, trials: float) -> tuple[float, float]:
    """Clopper-Pearson 95% interval of a probability; (NaN, NaN) without trials.

    Args:
        errors, trials: counts of independent trials, or effective ones, which need not be whole.

    >>> low, high = binomial_interval(3, 200)
    >>> round(low, 4), round(high, 4)
    (0.0031, 0.0432)
    """
    if trials == 0:
        return math.nan, math.nan
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if errors == 0 else float(betaincinv(errors, trials - errors + 1, tail))
    high = 1.0 if errors == trials else float(betaincinv(errors + 1, trials - errors, 1 - tail))
    return low, high


def clustered_binomial_interval(errors: ArrayLike, trials: ArrayLike) -> tuple[float, float]:
    """95% interval of a probability whose trials come in clusters that may share what decides them.

    Clopper-Pearson's with the trials divided by the design effect: the variance of the rate as it is between clusters
    over that of independent trials (Korn and Graubard, *Survey Methodology* 24, 1998). It is Clopper-Pearson's itself
    where the clusters vary no more than independent trials do, and where each holds one trial. The degrees of freedom
    are those of the clusters, and no interval is narrower than that of independent trials (Parker et al., *NCHS Data
    Presentation Standards for Proportions*, 2017).

    Where no trial or every one is an error, or there is one cluster, nothing is known of the variance between clusters:
    the trials of a cluster then count as one, which is the largest design effect (Kish, *Survey Sampling*, 1965).

    Args:
        errors, trials: int [clusters], counts in each; clusters without trials do not count.

    Returns:
        Low and high end; (NaN, NaN) without trials.

    >>> low, high = clustered_binomial_interval([2, 0, 0, 2, 0, 0, 0, 0], [2] * 8)  # both of a pair, or neither
    >>> round(low, 3), round(high, 3)
    (0.019, 0.711)
    """
    n = np.asarray(trials, np.float64)
    x = np.asarray(errors, np.float64)[n > 0]
    n = n[n > 0]
    count, total = len(n), float(n.sum())
    if total == 0:
        return math.nan, math.nan
    rate = float(x.sum()) / total
    largest = float((n**2).sum()) / total
    if count == 1 or rate in (0.0, 1.0):
        effective = total / largest
    else:
        between = count / (count - 1) * float(((x - rate * n) ** 2).sum()) / total**2
        independent = rate * (1 - rate) / (total - 1)
        freedom = (_t_quantile(int(total) - 1) / _t_quantile(count - 1)) ** 2
        # Rounding leaves the variance of clusters of one trial some 1e-16 beside that of independent ones.
        plain = between <= independent * (1 + 1e-9)
        effective = total if plain else min(total, total * independent / between * freedom)
    return binomial_interval(rate * effective, effective)


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
