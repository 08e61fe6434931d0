"""The digital baseline: layout of code blocks, the cliff where theory puts it, cancellation against a genie."""

from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from baselines.bpg_ldpc_qam_sic import BpgLdpcQamSic
from baselines.bpg_ldpc_qam_sic.blocks import BlockCoder, scrambling
from baselines.bpg_ldpc_qam_sic.mcs import Frame, joint_images, lay_out, parse_mcs
from baselines.bpg_ldpc_qam_sic.modem import Modem
from baselines.bpg_ldpc_qam_sic.scheme import DigitalParams
from baselines.bpg_ldpc_qam_sic.sic import cancel_successively, modulate_frames
from linksim.data import load_dataset
from linksim.engine.audit import audit_symbols
from linksim.errors import LinksimError
from linksim.link.config import LinkConfig, Setting, SideInfo
from linksim.link.draws import KeyedDraws
from linksim.link.realisation import realise
from linksim.link.units import noise_variance


@pytest.mark.parametrize(
    ("mcs", "uses", "images", "frame", "image_bytes"),
    [
        ("qpsk-1/2", 512, 1, Frame(1, 1, 512, 1024, 16), 62),
        ("qpsk-1/2", 1024, 1, Frame(1, 1, 1024, 2048, 16), 126),
        ("qpsk-1/2", 4096, 1, Frame(1, 1, 4096, 8192, 24), 509),
        ("qpsk-1/2", 512, 8, Frame(8, 1, 4096, 8192, 24), 63),
        ("qpsk-1/2", 1024, 4, Frame(4, 1, 4096, 8192, 24), 127),
        ("64qam-5/6", 4096, 1, Frame(1, 4, 5120, 6144, 24), 2548),
        # No code has 204 of 1024 bits, nor a rate below 1/3 with more than 3824.
        ("qpsk-1/5", 512, 1, Frame(1, 1, 205, 1024, 16), 23),
        ("qpsk-1/5", 512, 18, Frame(18, 1, 3687, 18432, 16), 25),
        ("qpsk-1/5", 16384, 1, Frame(1, 2, 3277, 16384, 16), 815),
    ],
)
def test_images_are_laid_out_in_code_blocks(mcs: str, uses: int, images: int, frame: Frame, image_bytes: int) -> None:
    laid_out = lay_out(parse_mcs(mcs), uses, images)
    assert laid_out == frame
    assert laid_out.image_bytes == image_bytes


def test_joint_blocks_take_eight_images_at_one_sixth_and_four_at_one_third() -> None:
    assert [joint_images(parse_mcs("qpsk-1/2"), uses) for uses in (512, 1024, 4096, 8192)] == [8, 4, 1, 1]
    assert [joint_images(parse_mcs("qpsk-1/5"), uses) for uses in (512, 1024, 16384)] == [18, 9, 1]


@pytest.mark.parametrize("mcs", ["qpsk", "bpsk-1/2", "qpsk-1/0", "qpsk-x", "qpsk-1", "qpsk-1/6", "256qam-1/2"])
def test_an_unknown_mcs_is_refused(mcs: str) -> None:
    with pytest.raises(LinksimError):
        parse_mcs(mcs)


def test_too_few_channel_uses_are_refused() -> None:
    with pytest.raises(LinksimError, match="larger rho"):
        lay_out(parse_mcs("qpsk-1/2"), 20, 1)


def test_bytes_survive_packing_coding_and_unpacking() -> None:
    rng = np.random.default_rng(0)
    for mcs, uses, images in (
        ("qpsk-1/2", 512, 1),
        ("qpsk-1/2", 512, 8),
        ("64qam-5/6", 4096, 1),
        ("16qam-3/4", 1024, 3),
        ("qpsk-1/5", 512, 1),
        ("qpsk-1/5", 512, 18),
    ):
        frame = lay_out(parse_mcs(mcs), uses, images)
        coder = BlockCoder(frame, 20, "numba", "cpu")
        streams = [
            bytes(rng.integers(1, 256, rng.integers(1, frame.image_bytes + 1), np.uint8)) for _ in range(3 * images)
        ]
        streams[1] = b""
        info = coder.pack(streams)
        users = np.array([0, 3, 1])
        coded = coder.encode(info, users)
        assert coded.shape == (3, frame.blocks * frame.coded_bits)
        found, good = coder.decode(np.where(coded > 0, 8.0, -8.0).astype(np.float32), users)
        assert good.all()
        assert coder.unpack(found) == streams


FRAMES = [
    ("qpsk-1/2", 512, 1),
    ("qpsk-1/2", 512, 8),  # a joint block with a checksum of 24 bits
    ("qpsk-1/3", 512, 1),
    ("16qam-3/4", 512, 1),
    ("64qam-5/6", 4096, 1),  # four blocks
    ("qpsk-1/2", 40, 1),
]


@pytest.mark.parametrize(("mcs", "uses", "images"), FRAMES)
@pytest.mark.parametrize("backend", ["numba", "sionna"])
def test_llrs_that_say_nothing_pass_no_checksum(mcs: str, uses: int, images: int, backend: str) -> None:
    """Zeros and what is rounded to zero; all of one sign, tiny or huge; a quarter of each block alone."""
    coder = BlockCoder(lay_out(parse_mcs(mcs), uses, images), 20, backend, "cpu")
    blocks, coded_bits = coder.frame.blocks, coder.frame.coded_bits
    noise = np.random.default_rng(0).standard_normal(blocks * coded_bits)
    quarter = np.tile(np.arange(coded_bits) < coded_bits // 4, blocks)
    cases = [scale * noise for scale in (0.0, 1e-30, 1e-6, 1e-3, 0.02)]
    cases += [np.full_like(noise, value) for value in (1e-3, -1e-3, np.inf, -np.inf)]
    llr = np.array([*cases, 10 * noise * quarter], np.float32)
    assert not coder.decode(llr, np.arange(len(llr)) % 8)[1].any()


@pytest.mark.parametrize(("mcs", "uses", "images"), FRAMES)
def test_a_word_of_zeros_that_was_sent_arrives(mcs: str, uses: int, images: int) -> None:
    """The rest of a short stream, and an image that fits at no quality."""
    coder = BlockCoder(lay_out(parse_mcs(mcs), uses, images), 20, "numba", "cpu")
    info = coder.pack([None] * images)
    assert not info.any()
    llr = np.where(coder.encode(info, np.array([1])) > 0, 4.0, -4.0).astype(np.float32)
    for scale in (1.0, np.inf):
        found, good = coder.decode(scale * llr, np.array([1]))
        assert good.all()
        np.testing.assert_array_equal(found, info[:1].reshape(found.shape))


def test_the_words_decoded_are_those_of_the_code_alone() -> None:
    """What a decoder is told to guess changes nothing for words that it has LLRs of, decoded or not."""
    coder = BlockCoder(lay_out(parse_mcs("qpsk-1/2"), 512, 1), 20, "numba", "cpu")
    rng = np.random.default_rng(1)
    users = rng.integers(0, 8, 1500)
    info = coder.pack([bytes(rng.integers(0, 256, coder.frame.image_bytes, np.uint8)) for _ in users])
    coded = coder.encode(info, users)
    llr = (5.0 * (coded - 0.5) + np.sqrt(5.0) * rng.standard_normal(coded.shape)).astype(np.float32)
    found, good = coder.decode(llr, users)
    plain = coder._code.decode(llr * (1 - 2.0 * scrambling(1024)[users]).astype(np.float32)).bits
    assert 0.05 < (~good).mean() < 0.95
    right = (plain == info[:, 0]).all(axis=1)
    np.testing.assert_array_equal(good[:, 0], right)
    np.testing.assert_array_equal(found[right, 0], plain[right])


@pytest.mark.parametrize("params", [{}, {"block": "joint"}, {"codec": "jpeg"}, {"mcs": "16qam-1/2"}])
@pytest.mark.parametrize("channel", ["awgn", "rayleigh"])
def test_far_below_every_threshold_all_blocks_fail(channel: str, params: dict[str, str]) -> None:
    scheme = BpgLdpcQamSic(setting(channel), DigitalParams(**params))
    for snr_db in (-200.0, -60.0, -40.0):
        _, received = run(scheme, snr_db, groups=9)
        assert received.block_errors == received.blocks
        assert bool(received.lost.all())


@pytest.mark.parametrize("snr_db", [10.0, 200.0])
def test_a_user_without_power_to_speak_of_fails_and_is_not_cancelled(snr_db: float) -> None:
    scheme = BpgLdpcQamSic(setting(), DigitalParams(split="1/1000000"))
    _, received = run(scheme, snr_db, groups=16)
    failed = np.array([errors for _, errors in received.block_clusters])
    assert not bool(received.lost[:, 1].any())
    # The weak one arrives where the noise is below its own power, and nowhere else.
    assert (failed == (0 if snr_db == 200 else 1)).all()


def test_blocks_are_counted_by_the_groups_that_share_them() -> None:
    for params, clusters in (({}, [(2, None)] * 13), ({"block": "joint"}, [(2, None)] * 2)):
        _, received = run(BpgLdpcQamSic(setting("rayleigh"), DigitalParams(**params)), 12.0, groups=13)
        assert [blocks for blocks, _ in received.block_clusters] == [blocks for blocks, _ in clusters]
        assert sum(errors for _, errors in received.block_clusters) == received.block_errors
    _, received = run(BpgLdpcQamSic(setting("rayleigh"), DigitalParams()), 12.0, groups=64)
    assert 0 < received.block_errors < received.blocks
    assert [errors for _, errors in received.block_clusters] == received.lost.sum(dim=1).tolist()


def setting(
    channel: str = "awgn", users: int = 2, rho: Fraction = Fraction(1, 6), power: Any = "sum", csi: float = 0.0
) -> Setting:
    return Setting(LinkConfig(channel, users, power, csi_error_var=csi), (3, 32, 32), rho, (0.49, 0.48, 0.45))


def run(scheme: BpgLdpcQamSic, snr_db: float, groups: int = 32, estimate_off: float = 0.0) -> Any:
    """One pass over the link; returns (images sent, received)."""
    link = scheme.setting.link
    data = load_dataset("cifar10-mini").images[np.arange(groups * link.users)]
    images = torch.from_numpy(data.reshape(link.users, groups, 3, 32, 32)).transpose(0, 1).float() / 255
    channel = realise(link, KeyedDraws(0, range(groups)), scheme.symbols_per_user)
    noise_var = torch.full((groups,), noise_variance(snr_db))
    side = SideInfo(torch.full((groups,), snr_db), noise_var, channel.h + estimate_off)
    symbols = scheme.transmit(images, side)
    audit_symbols(scheme, symbols, groups)
    return images, scheme.receive(channel.through(symbols, noise_var), side)


@pytest.mark.parametrize("params", [{}, {"block": "joint"}, {"mcs": "qpsk-1/3"}, {"codec": "bpg", "count": "slice"}])
@pytest.mark.parametrize("users", [1, 2, 3])
def test_without_noise_every_image_arrives_as_it_was_coded(users: int, params: dict[str, str]) -> None:
    scheme = BpgLdpcQamSic(setting(users=users), DigitalParams(**params))
    images, received = run(scheme, 40.0, groups=13)
    assert not bool(received.lost.any())
    assert received.block_errors == 0
    assert float((images - received.images).square().mean()) < 0.02


def test_16qam_needs_a_steeper_split_than_qpsk() -> None:
    """Beside a user at a quarter of its power the strong one has 6 dB, too little for 2 bits per use in 512 of them."""
    lost = {
        split: float(
            run(BpgLdpcQamSic(setting(), DigitalParams(mcs="16qam-1/2", split=split)), 40.0)[1].lost.float().mean()
        )
        for split in ("0.8/0.2", "0.95/0.05")
    }
    assert lost["0.8/0.2"] > 0.5
    assert lost["0.95/0.05"] == 0


def test_jpeg_does_not_fit_62_bytes_and_the_mean_colour_is_shown() -> None:
    scheme = BpgLdpcQamSic(setting(), DigitalParams(codec="jpeg"))
    _, received = run(scheme, 40.0, groups=4)
    assert bool(received.lost.all())
    torch.testing.assert_close(received.images[0, 0, :, 5, 7], torch.tensor([0.49, 0.48, 0.45]))


@pytest.mark.parametrize(("power", "strong_starts", "weak_starts"), [("sum", 3.8, 8.1), ("per-ue", 0.8, 5.1)])
def test_users_start_where_the_threshold_of_the_code_puts_them(
    power: Any, strong_starts: float, weak_starts: float
) -> None:
    """Spec, section 2: with shares 0.8/0.2 and a threshold near 1.1 dB, at rho 1/48 the code is (4096, 8192)."""
    scheme = BpgLdpcQamSic(setting(rho=Fraction(1, 6), power=power), DigitalParams(block="joint"))
    for user, starts in ((0, strong_starts), (1, weak_starts)):
        assert bool(run(scheme, starts - 0.7)[1].lost[:, user].float().mean() > 0.9)
        assert bool(run(scheme, starts + 0.7)[1].lost[:, user].float().mean() < 0.1)


def test_what_users_streams_have_in_common_is_scrambled_apart() -> None:
    coder = BlockCoder(lay_out(parse_mcs("qpsk-1/2"), 4096, 1), 20, "numba", "cpu")
    same = coder.pack([b"BPG\xfb"] * 8)
    words = coder.encode(same, np.arange(8)).astype(int)
    for one, other in combinations(range(8), 2):
        assert abs((words[one] != words[other]).mean() - 0.5) < 4 * 0.5 / np.sqrt(words.shape[1])


def test_equal_power_fails_on_awgn_at_any_snr() -> None:
    scheme = BpgLdpcQamSic(setting(), DigitalParams(split="equal"))
    for snr_db in (10.0, 30.0):
        assert bool(run(scheme, snr_db)[1].lost.float().mean() > 0.9)


def test_the_strongest_received_user_is_decoded_first_whoever_has_more_power() -> None:
    coder = BlockCoder(lay_out(parse_mcs("qpsk-1/2"), 512, 1), 20, "numba", "cpu")
    gains = torch.tensor([[0.2, 1.0], [1.0, 0.2]], dtype=torch.complex64)[:, None, None, :, None]
    received = torch.zeros(2, 1, 1, 512, dtype=torch.complex64)
    found = cancel_successively(received, gains, torch.ones(2, 1), coder, Modem(2, "cpu"))
    assert found.order.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(("mcs", "snr_db"), [("qpsk-1/2", 14.0), ("16qam-1/2", 26.0)])
def test_cancellation_equals_a_genies_at_high_snr_and_never_beats_it(mcs: str, snr_db: float) -> None:
    coder = BlockCoder(lay_out(parse_mcs(mcs), 512, 1), 20, "numba", "cpu")
    modem = Modem(parse_mcs(mcs).bits_per_symbol, "cpu")
    rng = np.random.default_rng(3)
    streams = [bytes(rng.integers(1, 256, coder.frame.image_bytes, np.uint8)) for _ in range(2 * 150)]
    info = coder.pack(streams).reshape(150, 2, 1, -1)
    users = np.tile([0, 1], 150)
    sent = modulate_frames(coder, modem, info.reshape(300, 1, -1), users, "cpu").reshape(150, 2, 1, 512)
    channel = realise(LinkConfig("rayleigh", 2), KeyedDraws(7, range(150)), 512)
    gains = (channel.h * torch.tensor([0.8, 0.2]).sqrt()[:, None])[:, None]
    for snr, equal in ((snr_db, False), (60.0, True)):
        noise_var = torch.full((150, 1), noise_variance(snr))
        noise = channel.noise(512)[:, None]
        received = (gains * sent.transpose(1, 2)[:, :, None]).sum(3) + noise_var.sqrt()[..., None, None] * noise
        mine = cancel_successively(received, gains, noise_var, coder, modem)
        genie = cancel_successively(received, gains, noise_var, coder, modem, genie=sent)
        assert (mine.good <= genie.good).all()
        assert genie.good.sum() > 0
        first = mine.order[:, 0]
        solved = mine.good[np.arange(150), first].all(axis=1)
        second = mine.order[:, 1]
        np.testing.assert_array_equal(
            mine.good[np.arange(150), second][solved], genie.good[np.arange(150), second][solved]
        )
        if equal:
            assert genie.good[np.arange(150), second].all()
            np.testing.assert_array_equal(mine.info[mine.good], info[mine.good])


def lost(channel: str, antennas: int, snr_db: float = 8.0, users: int = 2, **params: str) -> float:
    base = setting(channel, users)
    link = replace(base.link, antennas=antennas, detector="zf" if antennas >= users else "lmmse")
    scheme = BpgLdpcQamSic(replace(base, link=link), DigitalParams(**params))
    return float(run(scheme, snr_db, groups=64)[1].lost.float().mean())


def test_antennas_help_and_cancellation_is_at_least_as_good_as_none() -> None:
    by_count = [lost("rayleigh", antennas) for antennas in (1, 2, 4)]
    assert by_count[0] > by_count[1] + 0.1 > by_count[2] + 0.1
    linear, joint = (lost("rayleigh", 2, receiver=receiver, split="equal") for receiver in ("linear", "ml"))
    cancelled = lost("rayleigh", 2, split="equal")
    assert joint <= linear
    assert cancelled <= linear


def test_joint_detection_tells_users_of_equal_power_apart_where_cancellation_cannot() -> None:
    # Rotated constellations of one antenna overlap; over fading they are told apart from some SNR on.
    assert lost("rayleigh", 1, 25.0, split="equal") > lost("rayleigh", 1, 25.0, split="equal", receiver="ml") + 0.05


def test_without_noise_every_image_arrives_over_any_channel_and_number_of_antennas() -> None:
    for channel in ("rayleigh", "rayleigh-fast", "tdl-c"):
        for receiver in ("sic", "linear", "ml"):
            for snr_db in (60.0, 200.0):
                assert lost(channel, 3, snr_db, receiver=receiver) == 0, (channel, receiver)


def test_fast_fading_is_averaged_over_a_code_word() -> None:
    # One user at 8 dB: block fading loses what falls below the threshold near 1 dB, fast fading next to nothing.
    assert lost("rayleigh", 1, 8.0, users=1, split="equal") > 0.1
    assert lost("rayleigh-fast", 1, 8.0, users=1, split="equal") == 0


def test_delivered_bits_stay_below_the_sum_capacity() -> None:
    scheme = BpgLdpcQamSic(setting("awgn"), DigitalParams())
    for snr_db in (0.0, 4.0, 9.0):
        _, received = run(scheme, snr_db, groups=64)
        rate = 2 * (1 - received.block_errors / received.blocks)
        assert rate <= np.log2(1 + 1 / noise_variance(snr_db))


def test_a_wrong_channel_estimate_costs_images_and_a_declared_one_costs_less() -> None:
    wrong = BpgLdpcQamSic(setting("rayleigh"), DigitalParams())
    declared = BpgLdpcQamSic(setting("rayleigh", csi=0.04), DigitalParams())
    perfect = run(wrong, 16.0, 64)[1].block_errors
    assert run(wrong, 16.0, 64, estimate_off=0.2)[1].block_errors > perfect
    assert (
        run(declared, 16.0, 64, estimate_off=0.2)[1].block_errors
        <= run(wrong, 16.0, 64, estimate_off=0.2)[1].block_errors
    )


def test_both_ldpc_decoders_bring_the_same_images_at_high_snr() -> None:
    one, other = (BpgLdpcQamSic(setting(), DigitalParams(decoder=name)) for name in ("numba", "sionna"))
    torch.testing.assert_close(run(one, 20.0, 8)[1].images, run(other, 20.0, 8)[1].images)


def test_the_audit_passes_for_every_modulation_and_split() -> None:
    for mcs in ("qpsk-1/2", "16qam-3/4", "64qam-2/3"):
        for split in ("equal", "0.9/0.1"):
            for power in ("sum", "per-ue"):
                run(BpgLdpcQamSic(setting(power=power), DigitalParams(mcs=mcs, split=split)), 10.0, 4)
