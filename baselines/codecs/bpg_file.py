"""The BPG container (BPG specification 0.9.8), for what the baselines send: 8 bits, 4:2:0, one still picture."""

from dataclasses import dataclass

from baselines.codecs.codec import CodecError
from baselines.codecs.hevc import MAX_LUMA_SAMPLES, START_CODE, BitReader, BitWriter, CodingTools, write_sps, write_vps

MAGIC = b"BPG\xfb"

_PIXEL_FORMAT_420_JPEG = 1
_COLOR_SPACE_BT601 = 0
_MIN_CODING_BLOCK = 8


@dataclass(frozen=True)
class BpgFile:
    """The parts of a BPG file.

    Attributes:
        width: of the picture in pixels, as shown.
        height: of the picture in pixels, as shown.
        tools: the sequence parameters that the file's HEVC header carries.
        data: picture parameter set and slice NAL units, start codes between them, none before the first.
    """

    width: int
    height: int
    tools: CodingTools
    data: bytes

    @property
    def coded_size(self) -> tuple[int, int]:
        """Coded width and height in luma samples: the picture's, up to whole coding blocks."""
        block = _MIN_CODING_BLOCK << self.tools.log2_min_luma_coding_block_size_minus3
        return -(-self.width // block) * block, -(-self.height // block) * block

    def to_annexb(self) -> bytes:
        """The picture as an Annex B HEVC stream (VPS, SPS, `data`), of `coded_size`; the shown picture is top left."""
        nal_units = (write_vps(*self.coded_size), write_sps(*self.coded_size, self.tools), self.data)
        return b"".join(b"\0" + START_CODE + nal for nal in nal_units)

    def to_bytes(self) -> bytes:
        """The file. Its picture data length is 0 ("up to the end"), which takes one byte."""
        flags = bytes((_PIXEL_FORMAT_420_JPEG << 5, _COLOR_SPACE_BT601 << 4))
        sizes = _ue7(self.width) + _ue7(self.height) + _ue7(0)
        bits = BitWriter()
        bits.ue(self.tools.log2_min_luma_coding_block_size_minus3)
        bits.ue(self.tools.log2_diff_max_min_luma_coding_block_size)
        bits.ue(self.tools.log2_min_transform_block_size_minus2)
        bits.ue(self.tools.log2_diff_max_min_transform_block_size)
        bits.ue(self.tools.max_transform_hierarchy_depth_intra)
        bits.u(1, self.tools.sample_adaptive_offset_enabled_flag)
        bits.u(1, 0)
        bits.u(1, self.tools.strong_intra_smoothing_enabled_flag)
        bits.u(1, 0)
        header = bits.end()
        return MAGIC + flags + sizes + _ue7(len(header)) + header + self.data


def parse_bpg(stream: bytes) -> BpgFile:
    """The parts of a BPG file.

    Raises:
        CodecError: the bytes are no BPG file, or one of a kind that the baselines never send (other chroma formats,
            bit depths or colour spaces, limited range, alpha, animation, pictures of more than 35 megapixels).
    """
    if stream[:4] != MAGIC or len(stream) < 6:
        raise CodecError("the stream does not begin as a BPG file")
    extension_bit = 0b1000
    if stream[4] != _PIXEL_FORMAT_420_JPEG << 5 or stream[5] & ~extension_bit != _COLOR_SPACE_BT601 << 4:
        raise CodecError("the BPG file is not an 8-bit 4:2:0 full-range BT.601 still picture")
    (width, height, length), at = _read_ue7s(stream, 6, 3)
    if not 0 < width * height <= MAX_LUMA_SAMPLES:
        raise CodecError(f"the BPG file claims {width}x{height} pixels")
    if stream[5] & extension_bit:
        (extension,), at = _read_ue7s(stream, at, 1)
        at += extension
    end = at + length if length else len(stream)
    (header_length,), at = _read_ue7s(stream, at, 1)
    bits = BitReader(stream[at : at + header_length])
    min_block, blocks, min_transform, transforms = (bits.ue() for _ in range(4))
    depth_intra = bits.ue()
    sao, pcm, strong, extension_present = (bits.u(1) for _ in range(4))
    tools = CodingTools(min_block, blocks, min_transform, transforms, depth_intra, sao, strong)
    if pcm or extension_present or max(min_block, blocks, min_transform, transforms, depth_intra) > 4:
        raise CodecError("the BPG file uses PCM blocks, SPS extensions or impossible block sizes")
    picture = BpgFile(width, height, tools, stream[at + header_length : end])
    coded_width, coded_height = picture.coded_size
    if not picture.data or coded_width * coded_height > MAX_LUMA_SAMPLES:
        raise CodecError("the BPG file holds no picture")
    return picture


def _ue7(value: int) -> bytes:
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | 0x80)
    return bytes(reversed(groups))


def _read_ue7s(data: bytes, at: int, count: int) -> tuple[list[int], int]:
    values = []
    for _ in range(count):
        value = 0
        for _ in range(5):
            if at >= len(data):
                raise CodecError("the BPG file's header ends too early")
            byte = data[at]
            at += 1
            value = value << 7 | byte & 0x7F
            if not byte & 0x80:
                break
        else:
            raise CodecError("the BPG file's header holds a number of more than 32 bits")
        values.append(value)
    return values, at
