"""Tapped delay lines against their tables: power, delay profile, Doppler, and draws that are keyed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import j0

from linksim.link.channels import channel_class, channel_label
from linksim.link.config import LinkConfig
from linksim.link.draws import FreshDraws, KeyedDraws
from linksim.link.realisation import realise

GROUPS, WIDTH = 1500, 288
SPACING = 30e3


def drawn(text: str, uses: int, antennas: int = 1, groups: range = range(GROUPS)) -> np.ndarray:
    """Of one user, [B, M, uses]."""
    link = LinkConfig(text, 1, antennas=antennas)
    return realise(link, KeyedDraws(3, groups), uses).h[:, :, 0].numpy()


def profile(letter: str) -> tuple[np.ndarray, np.ndarray]:
    """Powers, summing to 1, and delays of unit RMS spread, from the table of TR 38.901 that Sionna carries."""
    import sionna.phy.channel.tr38901 as tr38901

    newest = sorted((Path(tr38901.__file__).parent / "models").rglob(f"TDL-{letter}.json"))[-1]
    table = json.loads(newest.read_text())
    power = 10 ** (np.array(table["powers"]) / 10)
    return power / power.sum(), np.array(table["delays"])


@pytest.mark.parametrize(("letter", "spread"), [("a", 100e-9), ("c", 300e-9)])
def test_power_is_one_and_the_correlation_over_subcarriers_is_the_transform_of_the_delay_profile(
    letter: str, spread: float
) -> None:
    h = drawn(f"tdl-{letter}:delay_spread={spread}", WIDTH)[:, 0]
    assert (np.abs(h) ** 2).mean() == pytest.approx(1, abs=0.06)
    power, delays = profile(letter.upper())
    for lag in (1, 12, 48, 120):
        found = (h[:, lag:] * h[:, :-lag].conj()).mean()
        expected = (power * np.exp(-2j * np.pi * lag * SPACING * delays * spread)).sum()
        assert abs(found - expected) < 0.06


def test_a_line_of_sight_has_its_k_factor() -> None:
    # TDL-D: the first tap holds a specular part 13.3 dB above what scatters with it; in all 9 dB above the rest.
    h = drawn("tdl-d:delay_spread=0", 12)[:, 0, 0]
    power = np.abs(h) ** 2
    specular = np.sqrt(max(2 * power.mean() ** 2 - (power**2).mean(), 0))
    scattered = power.mean() - specular
    powers, _ = profile("D")
    assert specular / scattered == pytest.approx(powers[0] / powers[1:].sum(), rel=0.15)


def test_movement_decorrelates_ofdm_symbols_as_clarkes_spectrum_does() -> None:
    speed = 100.0
    h = drawn(f"tdl-a:speed={speed},resource_blocks=1,delay_spread=0", 12 * 14)[:, 0].reshape(GROUPS, 14, 12)[..., 0]
    doppler, period = speed * 3.5e9 / 299792458, 1 / 28000
    for lag in (1, 5, 13):
        found = (h[:, lag:] * h[:, :-lag].conj()).mean()
        assert abs(found - j0(2 * np.pi * doppler * lag * period)) < 0.06


def test_without_delay_and_movement_it_is_block_rayleigh_fading() -> None:
    h = drawn("tdl-b:delay_spread=0,speed=0", 500)[:, 0]
    np.testing.assert_allclose(h, h[:, :1].repeat(500, 1), atol=1e-4)


def test_draws_belong_to_the_group_and_leave_sionnas_generator_as_it_was() -> None:
    from sionna.phy import config

    before = config.torch_rng("cpu").get_state()
    all_of_them = drawn("tdl-c", 40, groups=range(6))
    assert torch.equal(config.torch_rng("cpu").get_state(), before)
    np.testing.assert_array_equal(drawn("tdl-c", 40, groups=range(4, 6)), all_of_them[4:])
    fresh = [realise(LinkConfig("tdl-c", 2), FreshDraws(2), 40).h for _ in range(2)]
    assert not torch.equal(*fresh)


def test_antennas_and_users_fade_independently() -> None:
    h = realise(LinkConfig("tdl-a", 2, antennas=2), KeyedDraws(3, range(800)), 12).h[..., 0].flatten(1).numpy()
    correlation = np.abs(np.corrcoef(h.T)) - np.eye(4)
    assert correlation.max() < 4 / np.sqrt(800)


def test_parameters_are_written_behind_a_colon() -> None:
    assert channel_label("tdl-c:delay_spread=1e-7,speed=3") == "tdl-c:delay_spread=1e-07,speed=3.0"
    assert channel_class("tdl-e").trained_as == "rayleigh"
