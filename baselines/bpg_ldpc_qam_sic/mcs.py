"""Modulation and coding schemes, and how an image's bits are laid out in code blocks."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from baselines.bpg_ldpc_qam_sic.ldpc import check_code
from linksim.errors import LinksimError, shown, unknown

BITS_PER_SYMBOL = {"qpsk": 2, "16qam": 4, "64qam": 6}

#: The MCS that `mcs=envelope` picks from.
ENVELOPE = ("qpsk-1/3", "qpsk-1/2", "qpsk-3/4", "16qam-1/2", "16qam-3/4", "64qam-2/3", "64qam-5/6")

#: The same of jpeg-ldpc-qam: at low rates hardly a scan fits.
JPEG_ENVELOPE = ("qpsk-1/2", "qpsk-2/3", "qpsk-3/4", "16qam-1/2", "16qam-2/3", "16qam-3/4")

#: Limits of the 5G LDPC code (TS 38.212, section 5.2.2): information bits of a block, and the code rate.
_MAX_BLOCK_BITS = 8448
_RATES = (Fraction(1, 5), Fraction(11, 12))

#: Information bits of a block at the most where the code rate is below that of base graph 1.
_MAX_LOW_RATE_BITS = 3824
_LOW_RATE = Fraction(1, 3)

#: Information bits above which a block carries a 24-bit checksum (TS 38.212, section 7.2.1), 16 bits below.
_LARGE_BLOCK = 3824

#: Information bits of a joint block, the paper's (4096, 8192) code at rate 1/2.
_JOINT_BITS = 4096


@dataclass(frozen=True)
class Mcs:
    """A constellation and a code rate."""

    modulation: str
    bits_per_symbol: int
    rate: Fraction


def parse_mcs(text: str) -> Mcs:
    """`qpsk-1/2`, `16qam-3/4`, `64qam-5/6`. Raises LinksimError."""
    modulation, _, rate_text = text.partition("-")
    if modulation not in BITS_PER_SYMBOL:
        raise unknown("modulation", modulation, BITS_PER_SYMBOL)
    try:
        rate = Fraction(rate_text)
    except (ValueError, ZeroDivisionError):
        raise LinksimError(f"mcs {shown(text)}: write modulation-rate, like qpsk-1/2 or 16qam-3/4") from None
    if not _RATES[0] <= rate <= _RATES[1]:
        raise LinksimError(f"mcs {shown(text)}: the 5G LDPC code has rates from {_RATES[0]} to {_RATES[1]}: take one")
    return Mcs(modulation, BITS_PER_SYMBOL[modulation], rate)


@dataclass(frozen=True)
class Frame:
    """A run of images of one user and the code blocks that carry them.

    Either one block spans several images (a joint block), or one image fills one block or several.

    Args:
        images: images of the frame.
        blocks: code blocks of the frame.
        info_bits: information bits of a block, its checksum included.
        coded_bits: coded bits of a block.
        crc_bits: length of a block's checksum.
    """

    images: int
    blocks: int
    info_bits: int
    coded_bits: int
    crc_bits: int

    @property
    def image_bytes(self) -> int:
        """Whole bytes that an image may take."""
        return self.blocks * (self.info_bits - self.crc_bits) // (8 * self.images)


def lay_out(mcs: Mcs, uses: int, images: int) -> Frame:
    """The frame of `images` images with `uses` channel uses each. Raises LinksimError where no code fits."""
    symbols = uses * images
    info = symbols * mcs.bits_per_symbol * mcs.rate
    blocks = max(1, -(-info.__ceil__() // _most_bits(mcs)))
    while symbols % blocks:
        blocks += 1
    coded_bits = symbols * mcs.bits_per_symbol // blocks
    # Rounded down, a block of the lowest rate would be below it.
    info_bits = max(int(info / blocks), (coded_bits * _RATES[0]).__ceil__())
    check_code(info_bits, coded_bits)
    crc_bits = 24 if info_bits > _LARGE_BLOCK else 16
    frame = Frame(images, blocks, info_bits, coded_bits, crc_bits)
    if frame.image_bytes < 1:
        raise LinksimError(
            f"{uses} channel uses leave no whole byte for an image beside its checksum: take a larger rho"
        )
    return frame


def joint_images(mcs: Mcs, uses: int) -> int:
    """Images that share a joint block of 4096 information bits, or of the most that a low rate has; at least 1."""
    return max(1, int(min(_JOINT_BITS, _most_bits(mcs)) / (uses * mcs.bits_per_symbol * mcs.rate)))


def _most_bits(mcs: Mcs) -> int:
    return _MAX_BLOCK_BITS if mcs.rate >= _LOW_RATE else _MAX_LOW_RATE_BITS
