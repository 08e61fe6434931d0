"""Image codecs of the separation-based baselines, with a disk cache of encodings and rate control."""

from baselines.codecs.bpg import BpgCodec
from baselines.codecs.bpg_file import BpgFile, parse_bpg
from baselines.codecs.cache import StreamCache, default_path
from baselines.codecs.codec import CodecError, ImageCodec
from baselines.codecs.jpeg import JpegCodec
from baselines.codecs.rate_control import Encoding, RateController

__all__ = [
    "BpgCodec",
    "BpgFile",
    "CodecError",
    "Encoding",
    "ImageCodec",
    "JpegCodec",
    "RateController",
    "StreamCache",
    "default_path",
    "parse_bpg",
]
