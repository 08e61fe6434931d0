"""The bounds: rates inside the region and on its face, fairness, and images that fit."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch

from baselines.bpg_capacity import BpgCapacity, BpgCapacityOma
from baselines.bpg_capacity.region import max_min_rates, orthogonal_rates
from linksim import LinkConfig, Setting, SideInfo
from linksim.data import load_dataset

RNG = np.random.default_rng(0)


def within(rates: np.ndarray, snr: np.ndarray) -> bool:
    users = len(rates)
    return all(
        sum(rates[list(s)]) <= np.log2(1 + sum(snr[list(s)])) + 1e-9
        for size in range(1, users + 1)
        for s in combinations(range(users), size)
    )


@pytest.mark.parametrize("users", range(1, 9))
def test_rates_lie_in_the_region_and_exhaust_its_sum_rate(users: int) -> None:
    snr = RNG.exponential(3, (50, users))
    rates = max_min_rates(snr)
    assert all(within(r, s) for r, s in zip(rates, snr, strict=True))
    np.testing.assert_allclose(rates.sum(axis=1), np.log2(1 + snr.sum(axis=1)), rtol=1e-9)


def test_no_point_of_the_region_serves_the_weakest_user_better() -> None:
    for snr in RNG.exponential(3, (20, 2)):
        best = max_min_rates(snr[None])[0].min()
        grid = np.linspace(0, np.log2(1 + snr.sum()), 60)
        smallest = max(min(a, b) for a in grid for b in grid if within(np.array([a, b]), snr))
        assert smallest <= best + 1e-9
        assert best - smallest < grid[1]


def test_two_users_have_the_closed_form() -> None:
    for snr in RNG.exponential(3, (200, 2)):
        single, both = np.log2(1 + snr), np.log2(1 + snr.sum())
        fair = min(*single, both / 2)
        weak = int(snr.argmin())
        expected = np.empty(2)
        expected[weak], expected[1 - weak] = fair, both - fair
        np.testing.assert_allclose(max_min_rates(snr[None])[0], expected, rtol=1e-9)


def test_equal_users_over_awgn_gain_nothing_from_superposition_under_sum_power() -> None:
    total = 10.0
    np.testing.assert_allclose(
        max_min_rates(np.array([[total / 2, total / 2]])), orthogonal_rates(np.array([[total, total]]))
    )


def test_no_power_no_rate() -> None:
    np.testing.assert_allclose(max_min_rates(np.array([[0.0, 3.0], [0.0, 0.0]])), [[0, 2], [0, 0]], atol=1e-12)


@pytest.mark.parametrize("bound", [BpgCapacity, BpgCapacityOma])
def test_images_improve_with_the_snr_and_nothing_arrives_far_below_the_noise(bound: type[BpgCapacity]) -> None:
    setting = Setting(LinkConfig("awgn", 2), (3, 32, 32), Fraction(1, 6), (0.5, 0.5, 0.5))
    images = torch.from_numpy(load_dataset("cifar10-mini").images[np.arange(8)]).reshape(4, 2, 3, 32, 32).float() / 255
    errors = []
    for snr_db in (-30.0, 3.0, 8.0, 14.0):
        side = SideInfo(
            torch.full((4,), snr_db), torch.full((4,), 10 ** (-snr_db / 10)), torch.ones(4, 2, dtype=torch.complex64)
        )
        shown = bound(setting, bound.Params()).evaluate(images, side)
        assert shown.lost is not None
        assert bool(shown.lost.all()) == (snr_db == -30.0)
        errors.append(float((shown.images - images).square().mean()))
    assert errors == sorted(errors, reverse=True)
