"""Rate control: the best encoding of an image among those that fit the bytes a channel gives."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache
from PIL import Image as PilImage

from baselines.codecs.cache import Row, StreamCache, image_key
from baselines.codecs.codec import CodecError, Image, ImageCodec, scaled_size
from linksim.errors import LinksimError, unknown

Search = Literal["bisect", "ladder"]

MIN_SIDE = 8
"""Images are not shrunk to sides of fewer pixels than this."""

_PIXELS_AT_ONCE = 1 << 17
_CHOSEN_BYTES = 64 << 20
_DECODED_BYTES = 256 << 20
_OVERHEAD_BYTES = 200

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Encoding:
    """An image as it is sent.

    Attributes:
        stream: the bytes, as the codec counts them.
        quality: the codec's quality.
        scale: the image was shrunk to 1/scale of its sides first.
        mse: mean squared error, in 8-bit steps, of the decoded image at full size against the original.
    """

    stream: bytes
    quality: int
    scale: int
    mse: float

    @property
    def n_bytes(self) -> int:
        """Length of the stream."""
        return len(self.stream)


def _chosen_size(encoding: Encoding | None) -> int:
    return _OVERHEAD_BYTES + (0 if encoding is None else encoding.n_bytes)


def _decoded_size(image: Image | None) -> int:
    return _OVERHEAD_BYTES + (0 if image is None else image.nbytes)


class RateController:
    """Fits images into byte budgets with one codec, and decodes what arrives.

    An image is sent at the quality of least mean squared error among those that fit. One that fits at no quality is
    shrunk to half its sides (then a quarter, ...; Lanczos down, bicubic up), to no less than 8 pixels; a smaller size
    is taken when the worst quality fits there.

    Args:
        codec: encodes and decodes.
        cache: keeps the encodings.
        search: "ladder" encodes an image at every quality once, so that every later budget is a look-up and the
            choice is the best. "bisect" supposes that the size falls with the quality: some 6 encodings for a
            budget, 0.02 dB worse. The choice depends on the image, the codec and the budget alone.
    """

    def __init__(self, codec: ImageCodec, cache: StreamCache, search: Search = "bisect") -> None:
        if search not in ("bisect", "ladder"):
            raise unknown("rate control search", search, ("bisect", "ladder"))
        self.codec = codec
        self.cache = cache
        self.search = search
        self._chosen: LRUCache[tuple[bytes, int], Encoding | None] = LRUCache(_CHOSEN_BYTES, _chosen_size)
        self._decoded: LRUCache[tuple[bytes, tuple[int, int]], Image | None] = LRUCache(_DECODED_BYTES, _decoded_size)

    def fit(self, images: Image, max_bytes: npt.NDArray[np.integer] | int) -> list[Encoding | None]:
        """The encodings of images [B, H, W, 3] that fit their budgets.

        `max_bytes` is one budget for all, or one an image [B]. An entry is None when the image fits at no quality and
        scale.

        Raises:
            LinksimError: the codec does not take such images.
        """
        images = _checked(images)
        budgets = [int(n) for n in np.broadcast_to(np.asarray(max_bytes), len(images))]
        wanted = [(image_key(image), budget) for image, budget in zip(images, budgets, strict=True)]
        # Held here too: with many large streams the memo may drop some of this batch before its end.
        found = {want: self._chosen[want] for want in set(wanted) if want in self._chosen}
        missing = {want: image for want, image in zip(wanted, images, strict=True) if want not in found}
        for part in _parts(list(missing.items()), images.shape):
            for want, encoding in self._search([(*want, image) for want, image in part]).items():
                found[want] = encoding
                self._chosen[want] = encoding
        return [found[want] for want in wanted]

    def decode(self, streams: Sequence[bytes | None], size: tuple[int, int]) -> list[Image | None]:
        """The images uint8 [H, W, 3] of `size` (H, W) that a receiver has of the streams; treat them as read-only.

        None where there is no image: the stream is None (its block was lost) or undecodable (a damaged one that the
        block check let pass). Zero bytes after a stream are ignored.
        """
        return [None if stream is None else self._decode_one(stream, size) for stream in streams]

    def _decode_one(self, stream: bytes, size: tuple[int, int]) -> Image | None:
        stream = stream.rstrip(b"\0")
        key = (stream, size)
        if key not in self._decoded:
            try:
                image = _resized(self.codec.decode(stream, size), size, PilImage.Resampling.BICUBIC)
            except CodecError:
                image = None
            self._decoded[key] = image
        return self._decoded[key]

    def _search(self, wanted: list[tuple[bytes, int, Image]]) -> dict[tuple[bytes, int], Encoding | None]:
        """The choice for each (image key, budget, image)."""
        found: dict[tuple[bytes, int], Encoding | None] = {}
        scale = 1
        while wanted:
            works = self._start([image for _, _, image in wanted], scale)
            if not works:
                return found | {(key, budget): None for key, budget, _ in wanted}
            pairs = [(works[key], budget) for key, budget, _ in wanted]
            choices = self._by_ladder(pairs) if self.search == "ladder" else self._by_bisection(pairs)
            left = []
            for (key, budget, image), choice in zip(wanted, choices, strict=True):
                if choice is None:
                    left.append((key, budget, image))
                else:
                    row = works[key].rows[choice]
                    found[key, budget] = Encoding(row.stream, choice, scale, row.mse)
            wanted = left
            scale *= 2
        return found

    def _by_ladder(self, pairs: "list[tuple[_Work, int]]") -> list[int | None]:
        if pairs[0][0].scale == 1:
            hopeful = [True] * len(pairs)
        else:
            # Budgets of a deep fade hold no image at any scale: one encoding tells that, not a ladder.
            worst = self.codec.qualities[-1]
            self._encode([(work, worst) for work, _ in pairs])
            hopeful = [len(work.rows[worst].stream) <= budget for work, budget in pairs]
        self._encode_all([work for (work, _), hope in zip(pairs, hopeful, strict=True) if hope])
        choices: list[int | None] = []
        for (work, budget), hope in zip(pairs, hopeful, strict=True):
            fitting = [q for q in self.codec.qualities if hope and len(work.rows[q].stream) <= budget]
            # the first of equal errors is that of the better quality
            errors = [work.rows[q].mse for q in fitting]
            choices.append(fitting[int(np.argmin(errors))] if fitting else None)
        return choices

    def _by_bisection(self, pairs: "list[tuple[_Work, int]]") -> list[int | None]:
        qualities = self.codec.qualities
        low, high = [0] * len(pairs), [len(qualities)] * len(pairs)
        while active := [i for i in range(len(pairs)) if low[i] < high[i]]:
            middle = {i: (low[i] + high[i]) // 2 for i in active}
            self._encode([(pairs[i][0], qualities[middle[i]]) for i in active])
            for i in active:
                work, budget = pairs[i]
                if len(work.rows[qualities[middle[i]]].stream) <= budget:
                    high[i] = middle[i]
                else:
                    low[i] = middle[i] + 1
        return [qualities[at] if at < len(qualities) else None for at in high]

    def _start(self, images: "Sequence[Image] | Image", scale: int) -> "dict[bytes, _Work]":
        """The work on each different image at a scale, with what the cache knows; none where it cannot be so small."""
        full_size = images[0].shape[:2]
        size = scaled_size(full_size, scale)
        if scale > 1 and (scale > self.codec.max_scale or min(size) < max(MIN_SIDE, self.codec.min_side)):
            return {}
        works: dict[bytes, _Work] = {}
        for image in images:
            key = image_key(image)
            if key not in works:
                rows = dict(self.cache.get(self._settings(scale), key, scale))
                small = _resized(image, size, PilImage.Resampling.LANCZOS)
                works[key] = _Work(key, image, small, scale, rows)
        return works

    def _settings(self, scale: int) -> str:
        return self.codec.settings if scale == 1 else f"{self.codec.settings} lanczos-bicubic"

    def _encode_all(self, works: "list[_Work]") -> None:
        self._encode((work, quality) for work in works for quality in self.codec.qualities)

    def _encode(self, wanted: "Iterable[tuple[_Work, int]]") -> None:
        """Fill in the rows of each work (all of one scale) and quality that are not there."""
        by_quality: dict[int, list[_Work]] = {}
        for work, quality in wanted:
            if quality not in work.rows and work not in by_quality.setdefault(quality, []):
                by_quality[quality].append(work)
        new = []
        for quality, works in by_quality.items():
            if not works:
                continue
            scale = works[0].scale
            size = works[0].image.shape[:2]
            streams = self.codec.encode_many(np.stack([work.small for work in works]), quality, scale)
            for work, stream, image in zip(works, streams, self.codec.decode_many(streams, size), strict=True):
                shown = _resized(image, size, PilImage.Resampling.BICUBIC)
                error = shown.astype(np.int32) - work.image
                row = Row(stream, float(np.mean(error * error)))
                work.rows[quality] = row
                new.append((work.key, scale, quality, row))
        if new:
            self.cache.put(self._settings(new[0][1]), new)


@dataclass(eq=False)
class _Work:
    """One image at one scale during a search, and the rows known of it."""

    key: bytes
    image: Image
    small: Image
    scale: int
    rows: dict[int, Row]


def _checked(images: Image) -> Image:
    if images.ndim != 4 or images.dtype != np.uint8:
        raise LinksimError(
            f"codecs take uint8 images [B, H, W, 3], not {images.dtype} {list(images.shape)}: convert them"
        )
    return images


def _parts(items: list[V], shape: tuple[int, ...]) -> Iterable[list[V]]:
    """The items in runs whose images (of the batch's `shape`) are encoded together."""
    step = max(1, _PIXELS_AT_ONCE // (shape[1] * shape[2]))
    return (items[i : i + step] for i in range(0, len(items), step))


def _resized(image: Image, size: tuple[int, int], how: PilImage.Resampling) -> Image:
    if image.shape[:2] == size:
        return image
    return np.asarray(PilImage.fromarray(np.ascontiguousarray(image)).resize((size[1], size[0]), how))
