"""JPEG by Pillow (libjpeg-turbo): whole files, or the scan alone."""

import functools
import io

import numpy as np
import PIL
from PIL import Image as PilImage
from PIL import UnidentifiedImageError, features

from baselines.codecs.codec import CodecError, Image, ImageCodec, check_decoded_size

_SUBSAMPLING_420 = 2


class JpegCodec(ImageCodec):
    """Baseline JPEG, 4:2:0, optimised Huffman tables, quality 100 (best) to 1; the file is what is counted."""

    name = "jpeg"
    qualities = range(100, 0, -1)
    min_side = 1

    def __init__(self) -> None:
        library = features.version("libjpeg_turbo") or features.version_codec("jpg")
        self.settings = f"jpeg Pillow {PIL.__version__} libjpeg {library} 420 optimize"

    def encode(self, image: Image, quality: int, scale: int = 1) -> bytes:
        self.check_input(image.shape, quality)
        # The end-of-image marker closes the file: it never ends in a zero byte.
        return _file(image, quality, optimize=True)

    def decode(self, stream: bytes, full_size: tuple[int, int]) -> Image:
        try:
            with PilImage.open(io.BytesIO(stream), formats=("JPEG",)) as image:
                check_decoded_size((image.height, image.width), full_size)
                return np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, PilImage.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
            raise CodecError(f"the JPEG decoder refuses the stream: {error}") from error


class JpegScanCodec(JpegCodec):
    """The entropy-coded scan of a baseline JPEG and one byte of quality; all else is known to both ends.

    Size, 4:2:0 and the standard Huffman tables are agreed on, and a quality stands for its quantisation tables, so that
    the header of every file follows from these. The byte stands last: a scan can end in a zero, which would be taken
    for filling.
    """

    name = "jpeg-scan"
    max_scale = 1

    def __init__(self) -> None:
        super().__init__()
        self.settings = self.settings.replace(" optimize", " scan, standard tables")

    def encode(self, image: Image, quality: int, scale: int = 1) -> bytes:
        self.check_input(image.shape, quality)
        return _parts(image, quality)[1] + bytes([quality])

    def decode(self, stream: bytes, full_size: tuple[int, int]) -> Image:
        stream = stream.rstrip(b"\0")
        if not stream or stream[-1] not in self.qualities:
            raise CodecError("the stream names no quality")
        return super().decode(_header(full_size, stream[-1]) + stream[:-1] + _END, full_size)


_START_OF_SCAN, _END = b"\xff\xda", b"\xff\xd9"


def _file(image: Image, quality: int, optimize: bool) -> bytes:
    target = io.BytesIO()
    PilImage.fromarray(np.ascontiguousarray(image)).save(
        target, "JPEG", quality=quality, subsampling=_SUBSAMPLING_420, optimize=optimize
    )
    return target.getvalue()


def _parts(image: Image, quality: int) -> tuple[bytes, bytes]:
    """Header and scan of the file of an image [H, W, 3], with standard tables, without the marker of its end."""
    content = _file(image, quality, optimize=False)
    # Segments before the scan have their length behind their marker; a marker's bytes may stand in their content.
    place = 2
    while content[place : place + 2] != _START_OF_SCAN:
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    begin = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return content[:begin], content[begin:].removesuffix(_END)


@functools.lru_cache(maxsize=1024)
def _header(size: tuple[int, int], quality: int) -> bytes:
    """What stands before the scan of every image of a size (H, W) at a quality."""
    return _parts(np.zeros((*size, 3), np.uint8), quality)[0]
