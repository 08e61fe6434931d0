"""KLT: water-filling against its definition, and figures that a learned scheme has to beat."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import linksim
from baselines.klt.scheme import MOMENTS, moments_of, water_filled
from linksim import LinkConfig, Setting
from linksim.data.cifar10 import load_cifar10_train
from linksim.engine.variants import parse
from linksim.errors import LinksimError


def test_no_other_powers_have_less_error() -> None:
    draws = np.random.default_rng(0)
    variances = torch.tensor(np.sort(draws.exponential(size=12))[::-1].copy())
    for noise in (0.01, 0.3, 3.0):
        amplitudes = water_filled(variances, torch.tensor([noise], dtype=torch.float64))[0]
        power = amplitudes.square() * variances
        assert power.sum() == pytest.approx(12)

        def error(power: torch.Tensor, noise: float = noise) -> float:
            return float((variances / (1 + power / noise)).sum())

        least = error(power)
        for _ in range(200):
            moved = (power + 0.05 * torch.tensor(draws.normal(size=12))).clamp_min(0)
            assert error(moved * 12 / moved.sum()) >= least - 1e-9


def test_mean_psnr_is_that_of_linear_transmission(tmp_path: Path) -> None:
    """Measured elsewhere, with a receiver that knows each image's power: 20.36, 23.51, 27.26, 30.88 dB."""
    table = linksim.sweep(
        tmp_path / "x", scheme="klt", users=1, rho="1/6", snr="0:15:5", metrics="psnr", progress=False
    )  # fmt: skip
    np.testing.assert_allclose(table["psnr_db"], [20.36, 23.51, 27.26, 30.88], atol=0.4)
    assert table["tx_power"].to_numpy() == pytest.approx(1, abs=1e-4)
    assert set(table["channel_uses"]) == {512}


def test_fading_antennas_and_sizes(tmp_path: Path) -> None:
    asked = {"scheme": "klt", "rho": "1/6", "snr": "10", "groups": 32, "metrics": "psnr", "progress": False}
    one = linksim.sweep(tmp_path / "a", channel="rayleigh", **asked)
    four = linksim.sweep(tmp_path / "b", channel="rayleigh", antennas=4, **asked)
    assert four["psnr_db"].item() > one["psnr_db"].item() + 2
    odd = Setting(LinkConfig("awgn", 1), (3, 36, 36), Fraction(1, 6))
    with pytest.raises(LinksimError, match="take an --image-size of multiples of 8"):
        parse("klt").build(odd)


@pytest.mark.skipif("LINKSIM_TEST_CIFAR10" not in os.environ, reason="LINKSIM_TEST_CIFAR10 is not set")
def test_the_moments_that_come_along_are_those_of_the_training_images() -> None:
    found = moments_of(load_cifar10_train(Path(os.environ["LINKSIM_TEST_CIFAR10"]))[:10_000])
    with np.load(MOMENTS) as kept:
        np.testing.assert_allclose(kept["mean"], found["mean"], atol=0.01)
        np.testing.assert_allclose(kept["variances"][:20], found["variances"][:20], rtol=0.05)
        basis = kept["basis"]
    np.testing.assert_allclose(basis.T @ basis, np.eye(192), atol=1e-4)
