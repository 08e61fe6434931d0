"""The few pieces of HEVC syntax that a BPG file leaves out and a decoder needs (ITU-T H.265, 7.3)."""

import re
from dataclasses import dataclass

from baselines.codecs.codec import CodecError

VPS, SPS, PPS = 32, 33, 34
IDR = range(19, 21)

START_CODE = b"\0\0\1"

# Level limits on luma samples a picture, with general_level_idc (H.265, table A.8).
_LEVELS = (
    (36_864, 30),
    (122_880, 60),
    (245_760, 63),
    (552_960, 90),
    (983_040, 93),
    (2_228_224, 120),
    (8_912_896, 150),
    (35_651_584, 180),
)
MAX_LUMA_SAMPLES = _LEVELS[-1][0]


class BitReader:
    """Reads bits from the most significant one on.

    Raises:
        CodecError: from every method, when the bytes end too early.
    """

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = self._bits = 8 * len(data)

    @property
    def position(self) -> int:
        """Bits read so far."""
        return self._bits - self._left

    def u(self, n: int) -> int:
        """An unsigned integer of `n` bits."""
        if n > self._left:
            raise CodecError("a header ends too early")
        self._left -= n
        return (self._value >> self._left) & ((1 << n) - 1)

    def ue(self) -> int:
        """An unsigned exponential Golomb code."""
        zeros = 0
        while not self.u(1):
            zeros += 1
            if zeros > 32:
                raise CodecError("a header holds a number of more than 32 bits")
        return (1 << zeros) - 1 + self.u(zeros)


class BitWriter:
    """Writes bits from the most significant one on."""

    def __init__(self) -> None:
        self._value = 0
        self._bits = 0

    def u(self, n: int, value: int) -> None:
        """An unsigned integer of `n` bits."""
        self._value = (self._value << n) | value
        self._bits += n

    def ue(self, value: int) -> None:
        """An unsigned exponential Golomb code."""
        self.u(2 * (value + 1).bit_length() - 1, value + 1)

    def end(self) -> bytes:
        """What was written, closed by a one bit and zeros up to the next byte."""
        self.u(1, 1)
        self.u(-self._bits % 8, 0)
        return self._value.to_bytes(self._bits // 8, "big")


def escape(rbsp: bytes) -> bytes:
    """A raw payload with emulation prevention bytes put in."""
    return re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\0\0\3", rbsp)


def unescape(payload: bytes) -> bytes:
    """A payload with emulation prevention bytes taken out."""
    return payload.replace(b"\0\0\3", b"\0\0")


def nal_unit(nal_type: int, rbsp: bytes) -> bytes:
    """A NAL unit without start code."""
    return bytes((nal_type << 1, 1)) + escape(rbsp)


def nal_type(nal: bytes) -> int:
    """The type of a NAL unit without start code."""
    return (nal[0] >> 1) & 0x3F if nal else -1


def split_annexb(data: bytes) -> list[bytes]:
    """The NAL units, without start codes, of a byte stream."""
    return [nal for nal in re.split(rb"\x00*\x00\x00\x01", data) if nal]


@dataclass(frozen=True)
class CodingTools:
    """What an intra slice cannot be parsed without, besides the picture's size and the PPS.

    The fields are those of the sequence parameter set, named and coded as there.
    """

    log2_min_luma_coding_block_size_minus3: int
    log2_diff_max_min_luma_coding_block_size: int
    log2_min_transform_block_size_minus2: int
    log2_diff_max_min_transform_block_size: int
    max_transform_hierarchy_depth_intra: int
    sample_adaptive_offset_enabled_flag: int
    strong_intra_smoothing_enabled_flag: int


def read_sps(nal: bytes) -> CodingTools:
    """The coding tools of an 8-bit 4:2:0 intra SPS whose whole coded picture is shown.

    Raises:
        CodecError: the SPS is damaged or of another kind.
    """
    bits = BitReader(unescape(nal[2:]))
    bits.u(4)
    sub_layers_minus1 = bits.u(3)
    bits.u(1 + 88 + 8)
    bits.ue()
    chroma_format = bits.ue()
    bits.ue()
    bits.ue()
    window = bits.u(1)
    bit_depths = [bits.ue(), bits.ue()]
    if sub_layers_minus1 or chroma_format != 1 or window or any(bit_depths):
        raise CodecError("the SPS is not of 8-bit 4:2:0 pictures without a conformance window")
    bits.ue()
    bits.u(1)
    for _ in range(3):
        bits.ue()
    min_block, blocks, min_transform, transforms = (bits.ue() for _ in range(4))
    bits.ue()
    depth_intra = bits.ue()
    scaling_list = bits.u(1)
    bits.u(1)
    sao = bits.u(1)
    pcm = bits.u(1)
    reference_sets = bits.ue()
    long_term = bits.u(1)
    bits.u(1)
    strong = bits.u(1)
    if scaling_list or pcm or reference_sets or long_term:
        raise CodecError("the SPS uses scaling lists, PCM blocks or reference pictures")
    return CodingTools(min_block, blocks, min_transform, transforms, depth_intra, sao, strong)


def _profile_tier_level(bits: BitWriter, luma_samples: int) -> None:
    main_still_picture = 3
    bits.u(2 + 1, 0)
    bits.u(5, main_still_picture)
    # compatible with Main (1), Main 10 (2) and Main Still Picture (3)
    bits.u(32, 0b0111 << 28)
    # progressive source, not interlaced, not packed, frames only; then 44 reserved bits
    bits.u(4, 0b1001)
    bits.u(44, 0)
    bits.u(8, next(idc for limit, idc in _LEVELS if luma_samples <= limit))


def write_vps(width: int, height: int) -> bytes:
    """A VPS for one intra picture of `width` x `height` luma samples."""
    bits = BitWriter()
    bits.u(4, 0)
    bits.u(2, 0b11)
    bits.u(6 + 3, 0)
    bits.u(1, 1)
    bits.u(16, 0xFFFF)
    _profile_tier_level(bits, width * height)
    bits.u(1, 1)
    for _ in range(3):
        bits.ue(0)
    bits.u(6, 0)
    bits.ue(0)
    bits.u(2, 0)
    return nal_unit(VPS, bits.end())


def write_sps(width: int, height: int, tools: CodingTools) -> bytes:
    """An SPS for one 8-bit 4:2:0 intra picture, full-range BT.601, chroma in the middle of its four pixels.

    What BPG lets a decoder assume (picture order count of 8 bits, AMP and temporal motion vector prediction on, no
    scaling lists) is written that way.
    """
    bits = BitWriter()
    bits.u(4 + 3, 0)
    bits.u(1, 1)
    _profile_tier_level(bits, width * height)
    bits.ue(0)
    bits.ue(1)
    bits.ue(width)
    bits.ue(height)
    bits.u(1, 0)
    bits.ue(0)
    bits.ue(0)
    bits.ue(4)
    bits.u(1, 1)
    for _ in range(3):
        bits.ue(0)
    bits.ue(tools.log2_min_luma_coding_block_size_minus3)
    bits.ue(tools.log2_diff_max_min_luma_coding_block_size)
    bits.ue(tools.log2_min_transform_block_size_minus2)
    bits.ue(tools.log2_diff_max_min_transform_block_size)
    bits.ue(tools.max_transform_hierarchy_depth_intra)
    bits.ue(tools.max_transform_hierarchy_depth_intra)
    bits.u(1, 0)
    bits.u(1, 1)
    bits.u(1, tools.sample_adaptive_offset_enabled_flag)
    bits.u(1, 0)
    bits.ue(0)
    bits.u(1, 0)
    bits.u(1, 1)
    bits.u(1, tools.strong_intra_smoothing_enabled_flag)
    _write_vui(bits)
    bits.u(1, 0)
    return nal_unit(SPS, bits.end())


def _write_vui(bits: BitWriter) -> None:
    bits.u(1, 1)
    bits.u(2, 0)
    # video signal: present, format unspecified, full range, primaries of BT.709, transfer of sRGB, matrix of BT.601
    bits.u(1, 1)
    bits.u(3, 5)
    bits.u(1, 1)
    bits.u(1, 1)
    for code in (1, 13, 5):
        bits.u(8, code)
    # chroma sample location type 1: the middle of the four pixels
    bits.u(1, 1)
    bits.ue(1)
    bits.ue(1)
    # no neutral chroma, fields, frame fields, display window, timing or bitstream restriction
    bits.u(6, 0)


def set_loop_filter_flag(nal: bytes) -> bytes:
    """An IDR slice with slice_loop_filter_across_slices_enabled_flag set.

    x265 writes there a bit of a pattern over the picture count. In a picture of one slice it changes no sample,
    but the bytes of an image would depend on its place in a batch.
    """
    rbsp = bytearray(unescape(nal[2:]))
    bits = BitReader(bytes(rbsp[:8]))
    # first slice segment, prior pictures kept, PPS 0, type I (H.265, 7.3.6.1)
    if bits.u(6) != 0b101011:
        raise CodecError("the slice header is not that of the first slice of an IDR picture")
    # SAO for luma and for chroma, then the QP
    bits.u(2)
    bits.ue()
    rbsp[bits.position // 8] |= 0x80 >> bits.position % 8
    return nal[:2] + escape(bytes(rbsp))
