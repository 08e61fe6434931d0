"""Rate controllers by the names that a scheme's parameters use."""

from __future__ import annotations

import functools
from typing import Literal

from baselines.codecs.bpg import BpgCodec
from baselines.codecs.cache import StreamCache, default_path
from baselines.codecs.codec import ImageCodec
from baselines.codecs.jpeg import JpegCodec, JpegScanCodec
from baselines.codecs.rate_control import RateController, Search
from linksim.errors import LinksimError

Codec = Literal["bpg", "jpeg"]
Count = Literal["file", "slice", "scan"]


@functools.cache
def _cache() -> StreamCache:
    return StreamCache(default_path())


@functools.cache
def controller(codec: Codec, count: Count, search: Search) -> RateController:
    """The rate controller of a codec, shared by every scheme of the process, over the disk cache of encodings.

    Raises:
        LinksimError: bytes that this codec does not have.
    """
    check_count(codec, count)
    chosen: ImageCodec
    if codec == "bpg":
        chosen = BpgCodec(count="slice" if count == "slice" else "file")
    else:
        chosen = JpegScanCodec() if count == "scan" else JpegCodec()
    return RateController(chosen, _cache(), search)


def check_count(codec: Codec, count: Count) -> None:
    """Raises LinksimError where a codec has no such bytes to count."""
    own = {"bpg": ("file", "slice"), "jpeg": ("file", "scan")}[codec]
    if count not in own:
        raise LinksimError(f"codec={codec} has no {count}: count={' or '.join(own)}")
