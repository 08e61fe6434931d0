"""Rate controllers by the names that a scheme's parameters use."""

from __future__ import annotations

import functools
from typing import Literal

from baselines.codecs.bpg import BpgCodec
from baselines.codecs.cache import StreamCache, default_path
from baselines.codecs.codec import ImageCodec
from baselines.codecs.jpeg import JpegCodec
from baselines.codecs.rate_control import RateController, Search


@functools.cache
def _cache() -> StreamCache:
    return StreamCache(default_path())


@functools.cache
def controller(codec: Literal["bpg", "jpeg"], count: Literal["file", "slice"], search: Search) -> RateController:
    """The rate controller of a codec, shared by every scheme of the process, over the disk cache of encodings."""
    chosen: ImageCodec = BpgCodec(count=count) if codec == "bpg" else JpegCodec()
    return RateController(chosen, _cache(), search)
