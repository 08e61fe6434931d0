"""The link against closed formulas: fading, noise, superposition, power, SNR and bandwidth."""

import json
import warnings
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import erfc
from scipy.stats import beta

import linksim
from baselines.bpg_ldpc_qam_sic.modem import Modem
from linksim.errors import LinksimError
from linksim.link.channels import CHANNELS
from linksim.link.config import LinkConfig, Setting
from linksim.link.draws import Draws, KeyedDraws, Stream
from linksim.link.fading import Channel
from linksim.link.power import equal_split, exceeds_eq2, normalise, parse_split, symbol_power, user_powers
from linksim.link.realisation import Realisation, realise
from linksim.link.units import channel_uses, db_to_linear, noise_variance, parse_rho, ratio_of
from linksim.models.batch import Transmission
from linksim.models.spec import ModelSpec
from linksim.schemes.semnoma.recipe import RECIPES
from tests.models.build import random_pool

#: Draws of seed 7 for image groups 3 and 5, as committed results have them.
GOLDEN = {
    "rayleigh": (0.08204130083322525 + 0.006565194111317396j),
    "rician": (0.5678985118865967 + 0.08230431377887726j),
    "estimate": (-1.315170168876648 + 0.11510562151670456j),
    "noma": (-1.016205906867981 - 0.06295424699783325j),
    "oma": (0.21746943891048431 + 0.006983638275414705j),
}

SNRS_DB = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)


def interval(errors: int, trials: int, confidence: float = 0.999) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, errors, trials - errors + 1) if errors else 0.0
    return float(low), float(beta.ppf(1 - tail, errors + 1, trials - errors))


def q_function(x: float) -> float:
    return 0.5 * float(erfc(x / np.sqrt(2)))


@pytest.mark.parametrize("snr_db", SNRS_DB)
def test_uncoded_qpsk_over_awgn_has_the_bit_error_rate_of_theory(snr_db: float) -> None:
    errors, trials = _qpsk_errors("awgn", snr_db, groups=40, uses=4096)
    low, high = interval(errors, trials)
    assert low <= q_function(np.sqrt(db_to_linear(snr_db))) <= high


@pytest.mark.parametrize("snr_db", SNRS_DB)
def test_uncoded_qpsk_over_rayleigh_has_the_bit_error_rate_of_theory(snr_db: float) -> None:
    # One bit a block keeps the trials independent under block fading.
    errors, trials = _qpsk_errors("rayleigh", snr_db, groups=60000, uses=1, bits_used=1)
    gamma = db_to_linear(snr_db) / 2
    low, high = interval(errors, trials)
    assert low <= 0.5 * (1 - np.sqrt(gamma / (1 + gamma))) <= high


def drawn(link: LinkConfig) -> np.ndarray:
    """Coefficients of 20,000 image groups."""
    return realise(link, KeyedDraws(0, range(20000)), symbols=1).h[:, 0, :, 0].numpy()


def _qpsk_errors(channel: str, snr_db: float, groups: int, uses: int, bits_used: int = 2) -> tuple[int, int]:
    modem = Modem(2, "cpu")
    bits = torch.randint(0, 2, (groups, 1, 2 * uses), generator=torch.Generator().manual_seed(1))
    symbols = modem.modulate(bits)
    link = realise(LinkConfig(channel, 1), KeyedDraws(5, range(groups)), uses)
    noise_var = torch.full((groups,), noise_variance(snr_db))
    received, h = link.through(symbols, noise_var)[:, 0], link.h[:, 0, 0]
    llr = modem.demodulate(received / h, (noise_var[:, None] / h.abs().square()).expand(received.shape))
    wrong = ((llr > 0) != (bits[:, 0] > 0)).reshape(groups, uses, 2)[..., :bits_used]
    return int(wrong.sum()), wrong.numel()


@pytest.mark.parametrize("bits_per_symbol", [2, 4, 6])
def test_llrs_equal_those_of_a_demapper_over_all_constellation_points(bits_per_symbol: int) -> None:
    from sionna.phy.mapping import Demapper

    modem = Modem(bits_per_symbol, "cpu")
    symbols = torch.randn(4, 50, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    noise_var = torch.rand(4, 50, generator=torch.Generator().manual_seed(1)) + 0.05
    oracle = Demapper("app", "qam", bits_per_symbol, device="cpu")(symbols, noise_var)
    torch.testing.assert_close(modem.demodulate(symbols, noise_var), oracle, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channel", "second_moment", "fourth_moment"), [("awgn", 1, 1), ("rayleigh", 1, 2)])
def test_coefficients_have_unit_power_and_the_right_spread(
    channel: str, second_moment: float, fourth_moment: float
) -> None:
    power = np.abs(drawn(LinkConfig(channel, 2))) ** 2
    assert power.mean() == pytest.approx(second_moment, abs=0.03)
    assert (power**2).mean() == pytest.approx(fourth_moment, abs=0.12)


def test_rician_fading_has_its_k_factor_and_unit_power() -> None:
    h = drawn(LinkConfig(f"rician:k_db={10 * np.log10(4)}", 2))
    assert (np.abs(h) ** 2).mean() == pytest.approx(1, abs=0.02)
    assert np.abs(h.mean()) ** 2 / h.var() == pytest.approx(4, rel=0.05)


def test_users_fade_independently() -> None:
    h = drawn(LinkConfig("rayleigh", 2))
    assert abs(np.mean(h[:, 0] * h[:, 1].conj())) < 4 / np.sqrt(20000)


def test_noise_has_its_variance_per_complex_symbol_and_is_added_once() -> None:
    users, uses = 4, 2048
    silent = torch.zeros(32, users, uses, dtype=torch.complex64)
    link = realise(LinkConfig("awgn", users), KeyedDraws(0, range(32)), uses)
    received = link.through(silent, torch.full((32,), 0.5))
    assert received.shape == (32, 1, uses)
    assert float(received.abs().square().mean()) == pytest.approx(0.5, rel=0.02)
    assert float(received.real.square().mean()) == pytest.approx(0.25, rel=0.02)


def test_users_add_up_in_the_multiple_access_channel_and_stay_apart_when_orthogonal() -> None:
    symbols = torch.randn(3, 2, 8, dtype=torch.complex64)
    link = realise(LinkConfig("rayleigh", 2), KeyedDraws(0, range(3)), 8)
    h, zero = link.h[:, 0, :, 0], torch.zeros(3)
    summed = link.through(symbols, zero)
    torch.testing.assert_close(summed[:, 0], h[:, :1] * symbols[:, 0] + h[:, 1:] * symbols[:, 1])
    apart = replace(link, access="oma").through(symbols, zero)
    torch.testing.assert_close(apart[:, 0], h[..., None] * symbols)


def test_orthogonal_users_have_noise_of_their_own() -> None:
    noise = realise(LinkConfig("awgn", 2), KeyedDraws(0, range(1)), 4000, "oma").noise(4000)[0, 0]
    assert abs(complex((noise[0] * noise[1].conj()).mean())) < 4 / np.sqrt(4000)


@pytest.mark.parametrize("real", ["symbols", "h", "noise"])
def test_the_channel_refuses_real_tensors(real: str) -> None:
    parts = {
        "symbols": torch.zeros(1, 1, 4, dtype=torch.complex64),
        "h": torch.ones(1, 1, 1, 1, dtype=torch.complex64),
        "noise": torch.zeros(1, 1, 4, dtype=torch.complex64),
    }
    parts[real] = parts[real].real
    link = Realisation(parts["h"], "noma", KeyedDraws(0, range(1)))
    with pytest.raises(TypeError, match=real):
        link.through(parts["symbols"], torch.ones(1), parts["noise"])


def test_estimates_are_perfect_at_variance_zero_and_off_by_their_variance_else() -> None:
    link = realise(LinkConfig("rayleigh", 2), KeyedDraws(0, range(20000)), 1)
    assert link.estimate(0.0) is link.h
    h = link.h.numpy()
    estimate = link.estimate(0.1).numpy()
    error = estimate - h
    assert (np.abs(error) ** 2).mean() == pytest.approx(0.1, rel=0.03)
    assert abs(np.mean(error * h.conj())) < 0.01


@pytest.mark.parametrize("users", range(1, 9))
def test_power_conventions_give_their_totals(users: int) -> None:
    split = equal_split(users)
    assert sum(user_powers("sum", users, "noma", split)) == pytest.approx(1)
    assert user_powers("per-ue", users, "noma", split) == pytest.approx((1.0,) * users)
    for power in ("sum", "per-ue"):
        assert user_powers(power, users, "oma", split) == (1.0,) * users


def test_an_unequal_split_breaks_equation_2_under_per_ue_alone() -> None:
    assert exceeds_eq2("per-ue", "noma", (0.8, 0.2))
    assert not exceeds_eq2("per-ue", "noma", (0.5, 0.5))
    assert not exceeds_eq2("sum", "noma", (0.8, 0.2))


def test_splits_are_read_scaled_and_checked() -> None:
    assert parse_split("0.8/0.2", 2) == pytest.approx((0.8, 0.2))
    assert parse_split("4/1", 2) == pytest.approx((0.8, 0.2))
    assert parse_split("sic", 2) == pytest.approx((0.8, 0.2))
    assert parse_split("sic", 3) == pytest.approx((16 / 21, 4 / 21, 1 / 21))
    assert parse_split("equal", 4) == (0.25,) * 4
    assert parse_split("0.33/0.33/0.33", 3) == pytest.approx((1 / 3,) * 3)
    for bad in ("0.8", "0.8/0.1/0.1", "a/b", "1/0", "1/-1", "inf/1", "nan/1", "0.9/0.9", "0.9/0.2", "0.4/0.4"):
        with pytest.raises(LinksimError, match="split"):
            parse_split(bad, 2)


def test_normalising_gives_every_codeword_its_power_and_leaves_silence_silent() -> None:
    symbols = torch.randn(5, 2, 64, dtype=torch.complex64)
    symbols[0, 0] = 0
    power = symbol_power(normalise(symbols, (0.8, 0.2)))
    torch.testing.assert_close(power[1:], torch.tensor([[0.8, 0.2]]).expand(4, 2))
    assert float(power[0, 0]) == 0


def test_bandwidth_ratios_of_the_paper_give_its_channel_uses() -> None:
    assert channel_uses(Fraction(1, 6), (3, 32, 32)) == 512
    assert channel_uses(Fraction(1, 3), (3, 32, 32)) == 1024
    assert channel_uses(Fraction(1, 48), (3, 256, 256)) == 4096
    assert Setting(LinkConfig("awgn", 2), (3, 32, 32), Fraction(1, 12)).channel_uses == 256


def test_a_ratio_without_whole_channel_uses_names_its_neighbours() -> None:
    with pytest.raises(LinksimError, match=r"438\.857.*take 73/512 or 439/3072"):
        channel_uses(Fraction(1, 7), (3, 32, 32))
    for bad in ("", "x", "1/0", "0", "-1/6"):
        with pytest.raises(LinksimError, match="rho"):
            parse_rho(bad)


@pytest.mark.parametrize(
    ("text", "ratio"),
    [(1 / 6, "1/6"), (1 / 3, "1/3"), (np.float64(1) / 48, "1/48"), (0.25, "1/4"), ("0.125", "1/8"), (2 / 3, "2/3")],
)
def test_a_float_is_the_ratio_that_it_was_divided_from(text: str | float, ratio: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_rho(text) == Fraction(ratio)


@pytest.mark.parametrize(
    ("text", "ratio"),
    [("0.1667", "1/6"), (0.167, "1/6"), ("0.0833", "1/12"), ("0.021", "1/48"), ("1.33", "4/3"), (0.33, "1/3")],
)
def test_a_rounded_number_is_the_simplest_ratio_that_rounds_to_it_and_says_so(text: str | float, ratio: str) -> None:
    with pytest.warns(UserWarning, match=f"rho {text} is taken as {ratio}"):
        assert parse_rho(text) == Fraction(ratio)


def test_what_rounds_to_no_ratio_of_images_is_left_as_it_is() -> None:
    assert parse_rho("0.3") == Fraction(3, 10)
    assert [parse_rho(text) for text in ("0.05", "0.16", 0.12)] == [Fraction(1, 20), Fraction(4, 25), Fraction(3, 25)]
    for ratio in (Fraction(4, 25), Fraction(1, 48), Fraction(4, 3)):
        assert ratio_of(float(ratio)) == ratio
    assert parse_rho("0.14286") == Fraction(14286, 100000)


def test_snr_is_p_avg_over_the_noise_variance_per_complex_symbol() -> None:
    assert noise_variance(0) == 1
    assert noise_variance(10) == pytest.approx(0.1)
    assert noise_variance(-3) == pytest.approx(1.9953, rel=1e-4)


def test_powers_that_an_evaluation_asked_for_first_can_be_trained_with() -> None:
    from linksim.link.power import normalise

    powers = (0.123, 0.877)
    with torch.inference_mode():
        normalise(torch.ones(1, 2, 4, dtype=torch.complex64), powers)
    symbols = torch.ones(1, 2, 4, dtype=torch.complex64, requires_grad=True)
    normalise(symbols, powers).abs().sum().backward()
    assert symbols.grad is not None


def test_draws_are_the_numbers_of_published_results() -> None:
    """A seed's fading, noise and estimates never change: committed results could not be made again."""
    draws = KeyedDraws(7, [3, 5])
    rayleigh = realise(LinkConfig("rayleigh", 2), draws, 1)
    rician = realise(LinkConfig("rician:k_db=3", 2), draws, 1)
    found = {
        "rayleigh": rayleigh.h[1, 0, 1, 0],
        "rician": rician.h[0, 0, 1, 0],
        "estimate": rayleigh.estimate(0.2)[1, 0, 0, 0],
        "noma": rayleigh.noise(4)[1, 0, 3],
        "oma": replace(rayleigh, access="oma").noise(4)[0, 0, 1, 2],
    }
    assert {name: complex(value) for name, value in found.items()} == GOLDEN


class Shadowed(Channel):
    """Log-normal shadowing, as a plug-in brings it."""

    name = "shadowed"
    summary = "for tests"

    def coefficients(self, draws: Draws, uses: int) -> torch.Tensor:
        z = draws.normals(Stream.FADING, range(self.link.users), 1, self.link.antennas)
        return (0.5 * z.real).exp().to(torch.complex64)


class Real(Shadowed):
    name = "real"

    def coefficients(self, draws: Draws, uses: int) -> torch.Tensor:
        return super().coefficients(draws, uses).real


def test_a_channel_of_a_plug_in_is_drawn_by_sweeps_and_by_training_alike(tmp_path: Path) -> None:
    for kind in (Shadowed, Real):
        linksim.register_channel(kind)
    try:
        settings = {"scheme": "bpg-capacity", "snr": "10", "groups": 8, "metrics": "psnr", "progress": False}
        tables = [linksim.sweep(tmp_path / name, channel=name, **settings) for name in ("shadowed", "awgn")]
        assert tables[0]["psnr_db"].item() != tables[1]["psnr_db"].item()
        assert "channel shadowed plug-in" in json.loads((tmp_path / "shadowed" / "run.json").read_text())["identity"]
        spec = ModelSpec("semnoma", "compact", "shadowed", Fraction(1, 12))
        assert spec.side_dim == 3
        pool = random_pool()
        h = Transmission(spec, "noma").draw(replace(RECIPES["scratch"], batch=500), pool).h
        # Training draws what the channel says: real and positive, and no Rayleigh under its name.
        assert not h.imag.any()
        assert float(h.real.log().std()) == pytest.approx(0.5 * 0.5**0.5, rel=0.1)
        with pytest.raises(LinksimError, match=r"drew \[8, 1, 2, 1\] of torch.float32: complex64 \[8, 1"):
            linksim.sweep(tmp_path / "real", channel="real", **settings)
        with pytest.raises(LinksimError, match="a channel named 'rayleigh' exists"):
            linksim.register_channel(type("Other", (Shadowed,), {"name": "rayleigh"}))
    finally:
        for kind in (Shadowed, Real):
            CHANNELS.unregister(kind.name)
    with pytest.raises(LinksimError, match="unknown channel 'raileigh': did you mean 'rayleigh'"):
        linksim.sweep(tmp_path / "no", channel="raileigh", **settings)
