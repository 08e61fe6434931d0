"""Several antennas against theory: zero forcing, maximum ratio combining, what is left of the other users."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import gamma, kstest

from linksim.errors import LinksimError
from linksim.link.config import Access, Detector, LinkConfig, SideInfo
from linksim.link.detection import Equalised, equalise, gains, joint_llrs
from linksim.link.draws import KeyedDraws
from linksim.link.realisation import Realisation, realise

GROUPS = 4000
#: A false alarm in a thousand runs, were the draws not the same in each.
P = 1e-3


def link(channel: str, users: int, antennas: int, symbols: int = 1, access: Access = "noma") -> Realisation:
    return realise(LinkConfig(channel, users, antennas=antennas), KeyedDraws(11, range(GROUPS)), symbols, access)


def gain(found: Realisation, detector: Detector, snr_db: float = 10.0) -> np.ndarray:
    """a_i of every group and user at powers of 1."""
    noise_var = torch.full((GROUPS,), 10 ** (-snr_db / 10))
    users = found.h.shape[2]
    return gains(found.h, noise_var, noise_var, (1.0,) * users, found.access, detector).numpy()


@pytest.mark.parametrize("users", [2, 3])
def test_zero_forcing_with_as_many_antennas_gives_every_user_rayleigh_fading_of_its_own(users: int) -> None:
    power = gain(link("rayleigh", users, users), "zf") ** 2
    for user in range(users):
        assert kstest(power[:, user], "expon").pvalue > P


@pytest.mark.parametrize(("users", "antennas"), [(1, 4), (2, 5)])
def test_antennas_beyond_the_users_add_diversity_and_gain(users: int, antennas: int) -> None:
    """Zero forcing leaves M - N + 1 branches; of one user that is maximum ratio combining with M times the power."""
    branches = antennas - users + 1
    power = gain(link("rayleigh", users, antennas), "zf") ** 2
    assert kstest(power[:, 0], gamma(branches).cdf).pvalue > P
    assert power.mean() == pytest.approx(branches, rel=0.03)


@pytest.mark.parametrize("detector", ["lmmse", "zf", "mf"])
def test_orthogonal_users_are_combined_by_maximum_ratio_whatever_the_detector(detector: Detector) -> None:
    found = link("rayleigh", 2, 3, access="oma")
    np.testing.assert_allclose(gain(found, detector) ** 2, found.h.abs().square().sum((1, 3)), rtol=1e-3)


@pytest.mark.parametrize("detector", ["lmmse", "zf", "mf"])
@pytest.mark.parametrize("channel", ["rayleigh", "rayleigh-fast"])
def test_what_is_left_beside_a_users_symbols_has_the_variance_that_is_said(channel: str, detector: Detector) -> None:
    users, antennas, uses, powers = 2, 3, 64, (0.7, 0.3)
    found = link(channel, users, antennas, uses)
    noise_var = torch.full((GROUPS,), 0.2)
    generator = torch.manual_seed(1)
    sent = torch.randn(GROUPS, users, uses, dtype=torch.complex64, generator=generator)
    sent = sent * torch.tensor(powers).sqrt()[:, None]
    heard = equalise(found.through(sent, noise_var), found.h, noise_var, powers, "noma", detector)
    error = (heard.symbols - sent).abs().square()
    assert heard.noise_var.shape == (GROUPS, users, uses if channel == "rayleigh-fast" else 1)
    # Weighted by what is expected, so that a few deep fades do not make up the mean.
    ratio = (error / heard.noise_var).mean((0, 2))
    np.testing.assert_allclose(ratio, 1, atol=0.02)


def test_linear_least_squares_is_never_worse_than_the_other_two() -> None:
    found = link("rayleigh", 3, 3)
    best, zf, mf = (gain(found, detector) for detector in ("lmmse", "zf", "mf"))
    assert (best >= zf - 1e-3).all()
    assert (best >= mf - 1e-3).all()
    # At high SNR the first two meet, at low SNR the first and the last.
    assert np.median(gain(found, "zf", 40) / gain(found, "lmmse", 40)) == pytest.approx(1, abs=0.01)
    assert np.median(gain(found, "mf", -20) / gain(found, "lmmse", -20)) == pytest.approx(1, abs=0.01)


def test_detected_users_are_heard_as_orthogonal_ones_with_noise_of_the_links_variance() -> None:
    users, antennas, uses, powers = 2, 2, 64, (0.5, 0.5)
    found = link("rayleigh", users, antennas, uses)
    noise_var = torch.full((GROUPS,), 0.3)
    sent = torch.randn(GROUPS, users, uses, dtype=torch.complex64, generator=torch.manual_seed(2)) * 0.5**0.5
    heard = equalise(found.through(sent, noise_var), found.h, noise_var, powers, "noma", "lmmse")
    signal, a = heard.as_orthogonal(noise_var)
    assert float((signal - a[..., None] * sent).abs().square().mean()) == pytest.approx(0.3, rel=0.02)
    known = gains(found.h, noise_var, noise_var, powers, "noma", "lmmse")
    torch.testing.assert_close(known, a)


def test_over_symbols_of_different_quality_the_effective_sinr_is_that_of_the_mean_square_error() -> None:
    found = link("rayleigh-fast", 1, 1, 256)
    noise_var = torch.full((GROUPS,), 0.1)
    sent = torch.randn(GROUPS, 1, 256, dtype=torch.complex64, generator=torch.manual_seed(3))
    heard = equalise(found.through(sent, noise_var), found.h, noise_var, (1.0,), "noma", "lmmse")
    signal, a = heard.as_orthogonal(noise_var)
    # Estimating from the signal with the one gain a does as well as estimating each symbol with its own.
    shrink = a / (a.square() + noise_var[:, None])
    error = float((sent - shrink[..., None] * signal).abs().square().mean())
    assert error == pytest.approx(float((1 / (1 + heard.sinr)).mean()), rel=0.02)
    assert float((signal * sent.conj()).real.mean((1, 2)).mean() / a.mean()) == pytest.approx(1, abs=0.01)


def test_awgn_gives_every_user_its_antenna_and_one_antenna_hears_all() -> None:
    assert torch.equal(link("awgn", 2, 1).h[0, :, :, 0], torch.ones(1, 2) + 0j)
    assert torch.equal(link("awgn", 2, 2).h[0, :, :, 0], torch.eye(2) + 0j)
    assert torch.equal(link("awgn", 2, 3).h[0, :, :, 0], torch.eye(3)[:, :2] + 0j)
    np.testing.assert_allclose(gain(link("awgn", 2, 2), "lmmse"), 1, rtol=1e-5)


def test_what_one_antenna_hears_does_not_depend_on_how_many_there_are() -> None:
    one, three = (link("rayleigh", 2, antennas, 16) for antennas in (1, 3))
    assert torch.equal(one.h, three.h[:, :1])
    assert torch.equal(one.noise(16), three.noise(16)[:, :1])
    assert not torch.equal(three.h[:, 1], three.h[:, 2])
    assert not torch.equal(three.noise(16)[:, 1], three.noise(16)[:, 2])


def test_fast_fading_is_new_at_every_symbol_and_users_that_take_turns_have_their_own_part_of_it() -> None:
    together = link("rayleigh-fast", 2, 1, 32).h
    assert together.shape == (GROUPS, 1, 2, 32)
    assert abs(complex((together[..., 1:] * together[..., :-1].conj()).mean())) < 0.01
    turns = link("rayleigh-fast", 2, 1, 16, "oma").h
    assert torch.equal(turns[:, :, 0], together[:, :, 0, :16])
    assert torch.equal(turns[:, :, 1], together[:, :, 1, 16:])


def test_zero_forcing_needs_as_many_antennas_as_users() -> None:
    found = link("rayleigh", 3, 2)
    with pytest.raises(LinksimError, match="zero forcing tells 3 users apart with as many antennas, not 2"):
        gain(found, "zf")


def test_joint_detection_gives_the_posterior_of_every_bit() -> None:
    """Against the sum over all hypotheses, written out."""
    from baselines.bpg_ldpc_qam_sic.modem import Modem

    modem, users, antennas, powers = Modem(2, "cpu"), 2, 1, (0.8, 0.2)
    words = torch.tensor([[int(b) for b in f"{word:04b}"] for word in range(16)])
    points = modem.modulate(words.reshape(16, users, 2))[..., 0] * torch.tensor(powers).sqrt()
    h = torch.randn(3, antennas, users, 1, dtype=torch.complex64, generator=torch.manual_seed(0))
    received = torch.randn(3, antennas, 5, dtype=torch.complex64, generator=torch.manual_seed(1))
    noise_var = torch.tensor([0.1, 0.4, 1.0])
    found = joint_llrs(received, h, noise_var, powers, 2)
    mean = torch.einsum("bmn,wn->bmw", h[..., 0], points)
    logits = -(received[:, 0, :, None] - mean[:, 0, None]).abs().square() / noise_var[:, None, None]
    for bit in range(4):
        one = words[:, bit] == 1
        expected = logits[..., one].logsumexp(-1) - logits[..., ~one].logsumexp(-1)
        torch.testing.assert_close(found.unflatten(2, (5, 2))[:, bit // 2, :, bit % 2], expected, rtol=1e-3, atol=1e-3)


def test_joint_detection_of_too_many_hypotheses_is_refused() -> None:
    with pytest.raises(LinksimError, match="joint detection of 3 users with 6 bits a symbol tries 262144 hypotheses"):
        joint_llrs(torch.zeros(1, 1, 1) + 0j, torch.ones(1, 1, 3, 1) + 0j, torch.ones(1), (1.0,) * 3, 6)


def test_side_information_of_several_antennas_is_no_single_coefficient() -> None:
    side = SideInfo(torch.zeros(1), torch.ones(1), torch.ones(1, 2, 2, 1) + 0j)
    assert not side.flat
    with pytest.raises(LinksimError, match="2 antennas with 1 coefficients each are there"):
        _ = side.h_flat


@pytest.mark.parametrize("detector", ["lmmse", "zf", "mf"])
@pytest.mark.parametrize("antennas", [2, 3])
def test_far_above_and_below_the_noise_everything_stays_finite(detector: Detector, antennas: int) -> None:
    found = link("rayleigh", 2, antennas, 8)
    sent = torch.ones(GROUPS, 2, 8) + 0j
    for snr_db in (-200.0, -60.0, 90.0, 200.0):
        noise_var = torch.full((GROUPS,), 10 ** (-snr_db / 10))
        heard = equalise(found.through(sent, noise_var), found.h, noise_var, (1.0, 1e-6), "noma", detector)
        signal, a = heard.as_orthogonal(noise_var)
        assert torch.isfinite(torch.view_as_real(signal)).all()
        assert (heard.noise_var > 0).all()
        assert torch.isfinite(a).all()
    if detector == "zf":
        heard = equalise(found.through(sent, noise_var), found.h, noise_var, (1.0, 1.0), "noma", detector)
        assert float((heard.symbols - sent).abs().max()) < 1e-3


def test_a_user_without_power_is_heard_as_silence() -> None:
    found = Equalised(torch.zeros(1, 2, 4) + 0j, torch.tensor([[[0.5], [0.5]]]), (1.0, 0.0))
    signal, a = found.as_orthogonal(torch.ones(1))
    assert torch.isfinite(torch.view_as_real(signal)).all()
    assert a[0, 1] == 0


def test_sionna_comes_without_the_compiler() -> None:
    code = "import sys; from linksim.link.phy import sionna; sionna('mimo'); sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
