"""The bounds: rates inside the region and on its face, fairness, and images that fit."""

from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

import linksim
from baselines.bpg_capacity import BpgCapacity, BpgCapacityOma
from baselines.bpg_capacity.region import max_min_rates, orthogonal_rates, subset_bounds
from linksim import LinkConfig, Setting, SideInfo
from linksim.data import load_dataset

RNG = np.random.default_rng(0)


def gains(snr: np.ndarray) -> np.ndarray:
    """One antenna's, as complex amplitudes over the noise, with phases that must not matter."""
    return (np.sqrt(snr) * np.exp(1j * RNG.uniform(0, 6.28, snr.shape)))[:, None, :, None]


def fair(snr: np.ndarray) -> np.ndarray:
    return max_min_rates(subset_bounds(gains(snr)))


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
    rates = fair(snr)
    assert all(within(r, s) for r, s in zip(rates, snr, strict=True))
    np.testing.assert_allclose(rates.sum(axis=1), np.log2(1 + snr.sum(axis=1)), rtol=1e-9)


def test_no_point_of_the_region_serves_the_weakest_user_better() -> None:
    for snr in RNG.exponential(3, (20, 2)):
        best = fair(snr[None])[0].min()
        grid = np.linspace(0, np.log2(1 + snr.sum()), 60)
        smallest = max(min(a, b) for a in grid for b in grid if within(np.array([a, b]), snr))
        assert smallest <= best + 1e-9
        assert best - smallest < grid[1]


def test_two_users_have_the_closed_form() -> None:
    for snr in RNG.exponential(3, (200, 2)):
        single, both = np.log2(1 + snr), np.log2(1 + snr.sum())
        least = min(*single, both / 2)
        weak = int(snr.argmin())
        expected = np.empty(2)
        expected[weak], expected[1 - weak] = least, both - least
        np.testing.assert_allclose(fair(snr[None])[0], expected, rtol=1e-9)


def test_equal_users_over_awgn_gain_nothing_from_superposition_under_sum_power() -> None:
    total = 10.0
    np.testing.assert_allclose(
        fair(np.array([[total / 2, total / 2]])), orthogonal_rates(gains(np.array([[total, total]])))
    )


def test_no_power_no_rate() -> None:
    np.testing.assert_allclose(fair(np.array([[0.0, 3.0], [0.0, 0.0]])), [[0, 2], [0, 0]], atol=1e-12)


def test_bounds_of_several_antennas_are_those_of_their_determinants() -> None:
    h = RNG.standard_normal((5, 3, 2, 4)) + 1j * RNG.standard_normal((5, 3, 2, 4))
    bounds = subset_bounds(h)
    for group in range(5):
        for column, chosen in enumerate(([1], [0], [0, 1])):
            expected = np.mean(
                [
                    np.log2(np.linalg.det(np.eye(3) + h[group][:, chosen, t] @ h[group][:, chosen, t].conj().T).real)
                    for t in range(4)
                ]
            )
            assert bounds[group, column] == pytest.approx(expected)
    # A user alone is heard by maximum ratio combining, whichever way it is written.
    alone = h[:, :, :1]
    np.testing.assert_allclose(subset_bounds(alone), orthogonal_rates(alone))
    # Users at right angles do not disturb each other: each has the rate of a link of its own.
    apart = np.eye(2)[None, :, :, None] * np.sqrt([[[[3.0]], [[3.0]]]])
    np.testing.assert_allclose(max_min_rates(subset_bounds(apart + 0j)), [[2.0, 2.0]])


@pytest.mark.parametrize("bound", [BpgCapacity, BpgCapacityOma])
def test_images_improve_with_the_snr_and_nothing_arrives_far_below_the_noise(bound: type[BpgCapacity]) -> None:
    setting = Setting(LinkConfig("awgn", 2), (3, 32, 32), Fraction(1, 6), (0.5, 0.5, 0.5))
    images = torch.from_numpy(load_dataset("cifar10-mini").images[np.arange(8)]).reshape(4, 2, 3, 32, 32).float() / 255
    errors = []
    for snr_db in (-30.0, 3.0, 8.0, 14.0):
        side = SideInfo(
            torch.full((4,), snr_db),
            torch.full((4,), 10 ** (-snr_db / 10)),
            torch.ones(4, 1, 2, 1, dtype=torch.complex64),
        )
        shown = bound(setting, bound.Params()).evaluate(images, side)
        assert shown.lost is not None
        assert bool(shown.lost.all()) == (snr_db == -30.0)
        errors.append(float((shown.images - images).square().mean()))
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("users", [1, 2, 4])
def test_the_table_says_in_which_channel_uses_a_user_of_a_bound_sends(users: int, tmp_path: Path) -> None:
    table = linksim.sweep(
        tmp_path / "x", scheme="bpg-capacity,bpg-capacity-oma", users=users, snr=0, rho="1/6", groups=1, metrics="psnr",
        progress=False,
    ).set_index("scheme")  # fmt: skip
    assert table["rho_total"].to_dict() == pytest.approx({"bpg-capacity": 1 / 6, "bpg-capacity-oma": 1 / 6})
    assert table["rho_user"].to_dict() == pytest.approx({"bpg-capacity": 1 / 6, "bpg-capacity-oma": 1 / 6 / users})


@pytest.mark.parametrize("channel", ["awgn", "rayleigh"])
def test_a_bound_knows_the_channel_however_ill_it_is_estimated(channel: str, tmp_path: Path) -> None:
    """An estimate h + e has more power than h: as if it were the channel, errors would raise the bound."""
    known, guessed = (
        linksim.sweep(
            tmp_path / str(error), scheme="bpg-capacity,bpg-capacity-oma,klt", channel=channel, snr="0,10", groups=16,
            metrics="psnr", csi_error_var=error, progress=False,
        ).set_index(["scheme", "snr_db"])["psnr_db"]
        for error in (0.0, 1.0)
    )  # fmt: skip
    for bound in ("bpg-capacity", "bpg-capacity-oma"):
        assert known[bound].tolist() == guessed[bound].tolist()
    assert (guessed["klt"] < known["klt"]).all()
