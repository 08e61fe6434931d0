"""Intervals that hold what they promise, and a stopping rule that looks at units in order."""

import numpy as np
import pytest
from scipy.stats import binomtest

from linksim.engine.stats import binomial_interval, group_means, mean_and_half_width, units_needed


def test_the_interval_of_a_mean_covers_it_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        mean, half = mean_and_half_width(rng.normal(3, 2, 12))
        covered += abs(mean - 3) <= half
    assert binomtest(covered, 1000, 0.95).pvalue > 1e-3


def test_users_of_a_group_are_no_independent_samples() -> None:
    rng = np.random.default_rng(1)
    shared = np.repeat(rng.normal(size=(400, 1)), 2, axis=1)
    _, clustered = mean_and_half_width(group_means(shared))
    _, naive = mean_and_half_width(shared.ravel())
    assert clustered == pytest.approx(naive * np.sqrt(2), rel=0.01)


@pytest.mark.parametrize(("errors", "trials"), [(0, 50), (50, 50), (3, 200), (17, 40)])
def test_the_binomial_interval_is_clopper_and_pearsons(errors: int, trials: int) -> None:
    oracle = binomtest(errors, trials).proportion_ci(0.95, "exact")
    assert binomial_interval(errors, trials) == pytest.approx((oracle.low, oracle.high))


def test_no_trials_have_no_interval() -> None:
    assert np.isnan(binomial_interval(0, 0)).all()
    assert np.isnan(mean_and_half_width(np.array([1.0]))[1])


def test_stopping_takes_the_shortest_run_of_units_that_satisfies_it() -> None:
    rng = np.random.default_rng(0)
    units = [{"psnr": rng.normal(20, 3, 64)} for _ in range(40)]
    needed = units_needed(units, {"psnr": 0.5}, 64)
    assert needed is not None
    assert 1 < needed < 40
    widths = [mean_and_half_width(np.concatenate([u["psnr"] for u in units[:n]]))[1] for n in range(1, needed + 1)]
    assert widths[-1] <= 0.5 < min(widths[:-1])
    assert units_needed(units[: needed - 1], {"psnr": 0.5}, 64) is None
    assert units_needed(units, {"psnr": 100.0}, 640) == 10
