"""BPG: HEVC intra pictures by libx265, in a true BPG file or as the bare slice."""

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
from PIL import Image as PilImage

from baselines.codecs import hevc
from baselines.codecs.bpg_file import BpgFile, parse_bpg
from baselines.codecs.codec import (
    MAX_SCALE,
    CodecError,
    Image,
    ImageCodec,
    check_decoded_size,
    scaled_size,
)
from baselines.codecs.colour import rgb_to_yuv420, yuv420_to_rgb
from linksim.errors import LinksimError, unknown

Count = Literal["file", "slice"]
Backend = Literal["auto", "pyav", "bpgenc"]

_BLOCK = 8
"""Pictures are coded in whole blocks of this many pixels (x265's smallest coding block)."""

# bpgenc's own choice of preset and tuning at its default level 8. What else stands here takes away what one still
# picture does not need: lookahead, references, messages and threads; `ipratio` makes the QP of an intra picture
# the one that is asked for, `opt-qp-pps` keeps the PPS the same at all QPs.
_PRESET = "veryslow"
_TUNE = "ssim"
_X265_PARAMS = (
    "ipratio=1:keyint=1:no-open-gop=1:bframes=0:rc-lookahead=0:lookahead-slices=0:"
    "pools=none:frame-threads=1:wpp=0:repeat-headers=1:aud=0:hrd=0:hash=0:opt-qp-pps=0:log-level=none"
)

_DECODER_READS_AHEAD = 64
"""Bytes after a packet that FFmpeg may look at (AV_INPUT_BUFFER_PADDING_SIZE); PyAV adds none, and without zeros
there a damaged stream shows what memory happens to hold."""

_FORMAT_VERSION = 1
"""Raised by hand when the bytes of this module's streams change with all versions and parameters the same."""


class BpgCodec(ImageCodec):
    """HEVC intra, 8 bits, 4:2:0, QP 0 (best) to 51.

    Args:
        count: what a stream is. "file": a true BPG file, the picture's size in its header, some 24 bytes longer at
            32x32. "slice": the slice's payload alone after one byte that names the scale (1, 2, 4, ...): the
            receiver knows the size and the parameter sets, which are the same for all pictures of a size.
        backend: "pyav" encodes and decodes in this process; "bpgenc" calls the programs bpgenc and bpgdec (files
            only); "auto" takes the programs for files when both are on PATH.

    Raises:
        LinksimError: the programs are asked for and missing, or asked for slices.
    """

    name = "bpg"
    qualities = range(52)
    # libx265 takes pictures from 16x16 on, which nine pixels are coded as
    min_side = 9

    def __init__(self, count: Count = "file", backend: Backend = "auto") -> None:
        if count not in ("file", "slice"):
            raise unknown("BPG byte count", count, ("file", "slice"))
        if backend not in ("auto", "pyav", "bpgenc"):
            raise unknown("BPG backend", backend, ("auto", "pyav", "bpgenc"))
        missing = [program for program in ("bpgenc", "bpgdec") if shutil.which(program) is None]
        if backend == "bpgenc" and missing:
            raise LinksimError(
                f"no program {' or '.join(missing)} on PATH: install libbpg, or take the BPG backend 'pyav'"
            )
        if backend == "bpgenc" and count == "slice":
            raise LinksimError("the BPG backend 'bpgenc' writes whole files: count 'file', or take the backend 'pyav'")
        self.count = count
        self.backend = (
            "bpgenc" if backend == "bpgenc" or (backend == "auto" and count == "file" and not missing) else "pyav"
        )
        version = _bpgenc_version() if self.backend == "bpgenc" else _pyav_version()
        self.settings = f"bpg {version} 420 count={count}"

    def encode(self, image: Image, quality: int, scale: int = 1) -> bytes:
        return self.encode_many(image[None], quality, scale)[0]

    def encode_many(self, images: Image, quality: int, scale: int = 1) -> list[bytes]:
        self.check_input(images.shape[1:], quality)
        if self.backend == "bpgenc":
            return [_run_bpgenc(image, quality) for image in images]
        height, width = images.shape[1:3]
        parameters = _parameters(*_coded_size(height, width))
        slices = _encode_slices(images, quality, parameters)
        if self.count == "slice":
            return [bytes((scale,)) + nal[2:] for nal in slices]
        return [
            BpgFile(width, height, parameters.tools, parameters.pps + hevc.START_CODE + nal).to_bytes()
            for nal in slices
        ]

    def decode(self, stream: bytes, full_size: tuple[int, int]) -> Image:
        picture = self._parse(stream, full_size)
        if self.backend == "bpgenc":
            return _run_bpgdec(stream, (picture.height, picture.width))
        frame = _decode_frame(picture, _hevc_decoder())
        return yuv420_to_rgb(frame[None])[0, : picture.height, : picture.width]

    def decode_many(self, streams: Sequence[bytes], full_size: tuple[int, int]) -> list[Image]:
        if self.backend == "bpgenc":
            return super().decode_many(streams, full_size)
        # One decoder for all saves time; `decode` has its own, for what a damaged stream leaves in one could show in
        # the next picture.
        decoder = _hevc_decoder()
        by_size: dict[tuple[int, int], list[int]] = {}
        frames = []
        for i, stream in enumerate(streams):
            picture = self._parse(stream, full_size)
            frames.append(_decode_frame(picture, decoder))
            by_size.setdefault((picture.height, picture.width), []).append(i)
        images: dict[int, Image] = {}
        for (height, width), indices in by_size.items():
            rgb = yuv420_to_rgb(np.stack([frames[i] for i in indices]))[:, :height, :width]
            images.update(zip(indices, rgb, strict=True))
        return [images[i] for i in range(len(streams))]

    def _parse(self, stream: bytes, full_size: tuple[int, int]) -> BpgFile:
        stream = stream.rstrip(b"\0")
        if self.count == "slice":
            return _picture_of_slice(stream, full_size)
        picture = parse_bpg(stream)
        check_decoded_size((picture.height, picture.width), full_size)
        return picture


@dataclass(frozen=True)
class _Parameters:
    """What sender and receiver know of all pictures of one coded size."""

    tools: hevc.CodingTools
    pps: bytes
    nal_header: bytes


@dataclass(frozen=True)
class _Picture:
    """What the encoder returned for one picture: its slice, as a NAL unit, and the parameter sets."""

    nal: bytes
    parameters: _Parameters

    @classmethod
    def of(cls, nals: list[bytes]) -> "_Picture":
        if [hevc.nal_type(nal) for nal in nals[:-1]] != [hevc.VPS, hevc.SPS, hevc.PPS] or (
            hevc.nal_type(nals[-1]) not in hevc.IDR
        ):
            raise _unknown_x265("a picture is not VPS, SPS, PPS and one slice")
        _, sps, pps, nal = nals
        return cls(nal, _Parameters(hevc.read_sps(sps), pps, nal[:2]))


def _coded_size(height: int, width: int) -> tuple[int, int]:
    return -(-height // _BLOCK) * _BLOCK, -(-width // _BLOCK) * _BLOCK


def _encode_nals(frames: npt.NDArray[np.uint8], quality: int, info: bool = False) -> list[list[bytes]]:
    """The NAL units of each planar frame [B, H * 3 / 2, W]: VPS, SPS, PPS, (SEI,) slice."""
    encoder = av.CodecContext.create("libx265", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height = frames.shape[2], frames.shape[1] * 2 // 3
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {
        "preset": _PRESET,
        "tune": _TUNE,
        "x265-params": f"qp={quality}:info={int(info)}:{_X265_PARAMS}",
    }
    packets = []
    for i, planes in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts = i
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return [hevc.split_annexb(bytes(packet)) for packet in packets]


def _encode_slices(images: Image, quality: int, parameters: _Parameters) -> list[bytes]:
    height, width = images.shape[1:3]
    coded_height, coded_width = _coded_size(height, width)
    padding = ((0, 0), (0, coded_height - height), (0, coded_width - width), (0, 0))
    frames = rgb_to_yuv420(np.pad(images, padding, mode="edge"))
    pictures = [_Picture.of(nals) for nals in _encode_nals(frames, quality)]
    if len(pictures) != len(images) or any(picture.parameters != parameters for picture in pictures):
        raise _unknown_x265("its parameter sets change from picture to picture")
    return [hevc.set_loop_filter_flag(picture.nal) for picture in pictures]


@functools.lru_cache(maxsize=64)
def _parameters(coded_height: int, coded_width: int) -> _Parameters:
    """The parameter sets for a coded size, from blank pictures; they depend on neither the QP nor the pixels."""
    if coded_height * coded_width > hevc.MAX_LUMA_SAMPLES:
        raise LinksimError(
            f"BPG pictures have 35 megapixels or fewer, not {coded_width}x{coded_height}: use smaller ones"
        )
    blank = np.full((4, coded_height * 3 // 2, coded_width), 128, np.uint8)
    first, *others = (_Picture.of(nals) for nals in _encode_nals(blank, 51))
    # x265's pattern sets the flag in the first picture of a batch and not in all of the next three.
    if any(hevc.set_loop_filter_flag(picture.nal) != first.nal for picture in (first, *others)):
        raise _unknown_x265("a picture's bytes depend on its place in a batch")
    return first.parameters


def _unknown_x265(what: str) -> LinksimError:
    return LinksimError(
        f"PyAV {av.__version__} has an x265 that linksim does not know ({what}): pip install av==18.1.0"
    )


def _picture_of_slice(stream: bytes, full_size: tuple[int, int]) -> BpgFile:
    scale = stream[0] if stream else 0
    if scale == 0 or scale & (scale - 1) or scale > MAX_SCALE:
        raise CodecError(f"the stream claims the scale 1/{scale}")
    height, width = scaled_size(full_size, scale)
    if min(height, width) < BpgCodec.min_side:
        raise CodecError(f"the stream claims {width}x{height} pixels")
    parameters = _parameters(*_coded_size(height, width))
    data = parameters.pps + hevc.START_CODE + parameters.nal_header + stream[1:]
    return BpgFile(width, height, parameters.tools, data)


def _hevc_decoder() -> av.VideoCodecContext:
    decoder = av.CodecContext.create("hevc", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    # A picture of which a part does not decode is an error, not a picture with old memory in that part.
    decoder.options = {"err_detect": "explode"}
    return decoder


def _decode_frame(picture: BpgFile, decoder: av.VideoCodecContext) -> npt.NDArray[np.uint8]:
    """The planar frame [H * 3 / 2, W] of one picture; the decoder is left as new."""
    try:
        packet = av.Packet(picture.to_annexb() + bytes(_DECODER_READS_AHEAD))
        frames = decoder.decode(packet) + decoder.decode(None)
    except FFmpegError as error:
        raise CodecError(f"the HEVC decoder refuses the stream: {error}") from error
    if len(frames) != 1:
        raise CodecError(f"the stream holds {len(frames)} pictures")
    frame = frames[0]
    if frame.is_corrupt or (frame.width, frame.height) != picture.coded_size or "420p" not in frame.format.name:
        raise CodecError("the HEVC decoder found the picture damaged")
    decoder.flush_buffers()
    return np.asarray(frame.to_ndarray(), np.uint8)


@functools.cache
def _pyav_version() -> str:
    blank = np.full((1, 24, 16), 128, np.uint8)
    message = b"".join(_encode_nals(blank, 51, info=True)[0])
    found = re.search(rb"x265 \(build \d+\) - ([^:\0]+)", message)
    x265 = found.group(1).decode("ascii", "replace") if found else "unknown"
    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"x265 {x265} libavcodec {codec} {_PRESET} {_TUNE} v{_FORMAT_VERSION}"


@functools.cache
def _bpgenc_version() -> str:
    usage = subprocess.run(["bpgenc", "-h"], capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"version ([\w.\-]+)", usage.stdout + usage.stderr)
    return f"bpgenc {found.group(1) if found else 'unknown'}"


def _run_bpgenc(image: Image, quality: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.png"), Path(folder, "out.bpg")
        PilImage.fromarray(image).save(source)
        command = ["bpgenc", "-q", str(quality), "-f", "420", "-b", "8", "-o", str(target), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode or not target.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise LinksimError(f"bpgenc failed ({last}): mend the installed libbpg, or take the BPG backend 'pyav'")
        return target.read_bytes().rstrip(b"\0")


def _run_bpgdec(stream: bytes, size: tuple[int, int]) -> Image:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.bpg"), Path(folder, "out.png")
        source.write_bytes(stream)
        command = ["bpgdec", "-o", str(target), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode or not target.exists():
            raise CodecError("bpgdec refuses the stream")
        with PilImage.open(target) as image:
            pixels = np.asarray(image.convert("RGB"))
    if pixels.shape[:2] != size:
        raise CodecError("bpgdec returned a picture of another size")
    return pixels
