"""The 5G CRCs against published check values and schoolbook long division."""

import numpy as np
import pytest

from baselines.bpg_ldpc_qam_sic.crc import LENGTHS, Crc
from linksim.errors import LinksimError

POLYNOMIALS = {"CRC16": 0x11021, "CRC24A": 0x1864CFB}


def remainder(bits: np.ndarray, name: str) -> list[int]:
    """The parity of one block by long division over GF(2)."""
    polynomial, length = POLYNOMIALS[name], LENGTHS[name]
    register = 0
    for bit in [*bits.tolist(), *[0] * length]:
        register = register << 1 | bit
        if register >> length:
            register ^= polynomial
    return [register >> i & 1 for i in reversed(range(length))]


@pytest.mark.parametrize(("name", "value"), [("CRC16", 0x31C3), ("CRC24A", 0xCDE703)])
def test_the_parity_of_123456789_is_the_published_check_value(name: str, value: int) -> None:
    bits = np.unpackbits(np.frombuffer(b"123456789", np.uint8))[None]
    parity = Crc(name).attach(bits)[0, 72:]
    assert int("".join(map(str, parity)), 2) == value


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("k", [1, 37, 496, 4072])
def test_every_block_of_a_batch_carries_the_remainder_of_its_long_division(name: str, k: int) -> None:
    bits = np.random.default_rng(k).integers(0, 2, (3, k), dtype=np.uint8)
    sent = Crc(name).attach(bits)
    assert sent.dtype == np.uint8
    np.testing.assert_array_equal(sent[:, :k], bits)
    np.testing.assert_array_equal(sent[:, k:], [remainder(row, name) for row in bits])


@pytest.mark.parametrize("name", LENGTHS)
def test_untouched_blocks_pass_and_every_single_flipped_bit_is_caught(name: str) -> None:
    crc = Crc(name)
    sent = crc.attach(np.random.default_rng(1).integers(0, 2, (1, 200), dtype=np.uint8))
    flipped = sent ^ np.eye(sent.shape[1], dtype=np.uint8)
    assert crc.check(sent).tolist() == [True]
    assert not crc.check(flipped).any()


def test_bursts_up_to_the_parity_length_are_caught_and_only_the_hit_block_fails() -> None:
    rng = np.random.default_rng(2)
    crc = Crc("CRC16")
    sent = crc.attach(rng.integers(0, 2, (400, 300), dtype=np.uint8))
    hit = rng.random(400) < 0.5
    for row in np.flatnonzero(hit):
        start = rng.integers(0, 300)
        sent[row, start] ^= 1
        sent[row, start + 1 : start + 16] ^= rng.integers(0, 2, 15, dtype=np.uint8)
    np.testing.assert_array_equal(crc.check(sent), ~hit)


def test_random_noise_passes_a_16_bit_crc_about_once_in_65536() -> None:
    noise = np.random.default_rng(3).integers(0, 2, (200_000, 64), dtype=np.uint8)
    assert 0 < Crc("CRC16").check(noise).sum() <= 12


def test_an_unknown_crc_names_the_nearest_one() -> None:
    with pytest.raises(LinksimError, match="did you mean 'CRC16'"):
        Crc("CRC-16")
