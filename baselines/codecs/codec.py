"""The interface of an image codec, as a separation-based scheme sees it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from linksim.errors import LinksimError

Image = npt.NDArray[np.uint8]

MAX_SCALE = 64
"""The largest factor by which an image is shrunk to fit a budget."""


class CodecError(Exception):
    """A received stream cannot be decoded: to the receiver the image is lost."""


def scaled_size(full_size: tuple[int, int], scale: int) -> tuple[int, int]:
    """Height and width of an image of `full_size` (H, W) at 1/`scale` of its sides, rounded up."""
    return -(-full_size[0] // scale), -(-full_size[1] // scale)


class ImageCodec(ABC):
    """Images to byte streams and back; one instance holds one choice of settings.

    Attributes:
        name: what the codec is called on the command line and in tables.
        settings: pins every byte of the output (encoder, versions, parameters, what is counted); keys caches.
        qualities: what `encode` accepts, best quality first.
        min_side: the shortest side in pixels that `encode` accepts.
        max_scale: the largest factor by which an image may be shrunk; 1 where a stream cannot say so.
    """

    name: str
    settings: str
    qualities: Sequence[int]
    min_side: int
    max_scale: int = MAX_SCALE

    @abstractmethod
    def encode(self, image: Image, quality: int, scale: int = 1) -> bytes:
        """The stream of one image [H, W, 3], as it is counted against the channel's budget.

        `scale` says that `image` is a full image at 1/`scale` of its sides. The stream never ends in a zero
        byte, so that zeros which fill up a code block can be told from it.

        Raises:
            LinksimError: a shape or quality that the codec does not take.
        """

    @abstractmethod
    def decode(self, stream: bytes, full_size: tuple[int, int]) -> Image:
        """The image [H / s, W / s, 3] of a stream whose full image is H x W (`full_size`); s is in the stream.

        Zero bytes after the stream are ignored.

        Raises:
            CodecError: no image can be had from these bytes.
        """

    def encode_many(self, images: Image, quality: int, scale: int = 1) -> list[bytes]:
        """The streams of images [B, H, W, 3] at one quality: `encode` of each, faster where the codec can."""
        return [self.encode(image, quality, scale) for image in images]

    def decode_many(self, streams: Sequence[bytes], full_size: tuple[int, int]) -> list[Image]:
        """`decode` of each stream, all of them intact: the sender's way to see what the receiver will show."""
        return [self.decode(stream, full_size) for stream in streams]

    def check_input(self, shape: tuple[int, ...], quality: int) -> None:
        """Refuse what `encode` cannot take: an image's shape (H, W, 3) and a quality."""
        if len(shape) != 3 or shape[2] != 3:
            raise LinksimError(f"{self.name} encodes RGB images [H, W, 3], not {list(shape)}: convert them first")
        if min(shape[:2]) < self.min_side:
            raise LinksimError(
                f"{self.name} encodes sides of {self.min_side} pixels or more, not {shape[1]}x{shape[0]}: "
                "use larger images"
            )
        if quality not in self.qualities:
            ends = f"{self.qualities[0]} (best) to {self.qualities[-1]}"
            raise LinksimError(f"{self.name} has no quality {quality}: choose one from {ends}")


def check_decoded_size(size: tuple[int, int], full_size: tuple[int, int]) -> None:
    """Refuse a stream whose header claims a `size` (H, W) that is `full_size` at none of the scales.

    Raises:
        CodecError: as above; it keeps a damaged header from asking for gigabytes.
    """
    scale = 1
    while scale <= MAX_SCALE:
        if scaled_size(full_size, scale) == size:
            return
        scale *= 2
    raise CodecError(f"the stream claims {size[1]}x{size[0]} pixels, the image has {full_size[1]}x{full_size[0]}")
