"""Intervals that hold what they promise, and a stopping rule that looks at units in order."""

import numpy as np
import pytest
from scipy.stats import binomtest

from linksim.engine.stats import (
    binomial_interval,
    clustered_binomial_interval,
    group_means,
    mean_and_half_width,
    units_needed,
)


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
    assert np.isnan(clustered_binomial_interval([], [])).all()
    assert np.isnan(clustered_binomial_interval([0, 0], [0, 0])).all()
    assert np.isnan(mean_and_half_width(np.array([1.0]))[1])


def faded_block_errors(rng: np.random.Generator, runs: int, groups: int, snr_db: float) -> np.ndarray:
    """Block errors [runs, groups] of two users with 0.8 and 0.2 of the power behind block Rayleigh fading, 0 to 2.

    The stronger one is decoded beside the other, which sees it cancelled or not; a block errs below 1.1 dB.
    """
    power = np.sort(rng.exponential(size=(runs, groups, 2)) * (0.8, 0.2), axis=2)
    noise, threshold = 10 ** (-snr_db / 10), 10**0.11
    first = power[..., 1] < threshold * (power[..., 0] + noise)
    second = power[..., 0] < threshold * (first * power[..., 1] + noise)
    return first.astype(int) + second


@pytest.mark.parametrize("snr_db", [15.0, 20.0, 30.0])
def test_the_interval_of_a_block_error_rate_covers_it_where_users_share_the_fading_of_a_group(snr_db: float) -> None:
    rng = np.random.default_rng(int(snr_db))
    runs, groups = 1500, 256
    truth = faded_block_errors(rng, 20, 100_000, snr_db).mean() / 2
    clustered = plain = 0
    for errors in faded_block_errors(rng, runs, groups, snr_db):
        low, high = clustered_binomial_interval(errors, np.full(groups, 2))
        clustered += low <= truth <= high
        low, high = binomial_interval(int(errors.sum()), 2 * groups)
        plain += low <= truth <= high
    # Three deviations of 1,500 draws are 0.017.
    assert 0.95 - 0.017 < clustered / runs < 0.985
    assert plain / runs < 0.93


@pytest.mark.parametrize(("groups", "rate"), [(256, 0.01), (64, 0.03), (16, 0.1)])
def test_few_errors_of_blocks_that_fail_together_do_not_narrow_the_interval(groups: int, rate: float) -> None:
    rng = np.random.default_rng(3)
    covered = plain = 0
    for failed in rng.random((1000, groups)) < rate:
        low, high = clustered_binomial_interval(4 * failed, np.full(groups, 4))
        covered += low <= rate <= high
        low, high = binomial_interval(4 * int(failed.sum()), 4 * groups)
        plain += low <= rate <= high
    assert covered / 1000 > 0.95 - 0.021
    assert plain / 1000 < 0.93


def test_independent_blocks_have_the_interval_of_clopper_and_pearson() -> None:
    rng = np.random.default_rng(4)
    alone = rng.random(300) < 0.1
    assert clustered_binomial_interval(alone, np.ones(300)) == pytest.approx(
        binomial_interval(int(alone.sum()), 300), rel=1e-12
    )
    # Over AWGN between the users' thresholds one of two is lost in every group.
    assert clustered_binomial_interval([1] * 256, [2] * 256) == binomial_interval(256, 512)
    assert binomial_interval(256, 512) == pytest.approx((0.45582, 0.54418), abs=1e-5)
    widths, covered = [], 0
    for errors in rng.binomial(2, 0.1, (1000, 256)):
        low, high = clustered_binomial_interval(errors, np.full(256, 2))
        covered += low <= 0.1 <= high
        plain_low, plain_high = binomial_interval(int(errors.sum()), 512)
        assert low <= plain_low * (1 + 1e-12)
        assert high >= plain_high * (1 - 1e-12)
        widths.append((high - low) / (plain_high - plain_low))
    assert np.mean(widths) < 1.03
    assert covered / 1000 > 0.95 - 0.021


def test_without_an_error_or_a_success_every_group_counts_once() -> None:
    assert clustered_binomial_interval([0] * 100, [2] * 100) == binomial_interval(0, 100)
    assert clustered_binomial_interval([2] * 100, [2] * 100) == binomial_interval(100, 100)
    # Unequal groups: the trials squared over the sum of squares, Kish's count.
    assert clustered_binomial_interval([0, 0, 0], [8, 8, 2]) == pytest.approx(binomial_interval(0, 18**2 / 132))
    assert clustered_binomial_interval([0, 1, 0], [0, 1, 0]) == binomial_interval(1, 1)


def test_errors_and_successes_mirror_each_other_and_few_clusters_give_wide_intervals() -> None:
    errors, trials = np.array([2, 0, 1, 4]), np.array([2, 2, 2, 6])
    low, high = clustered_binomial_interval(errors, trials)
    assert (1 - high, 1 - low) == pytest.approx(clustered_binomial_interval(trials - errors, trials))
    low, high = clustered_binomial_interval([30, 0], [60, 60])
    assert low < 0.01
    assert high > 0.95
    assert clustered_binomial_interval([30], [60]) == pytest.approx(binomial_interval(0.5, 1))


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
