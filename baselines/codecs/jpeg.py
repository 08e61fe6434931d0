"""JPEG by Pillow (libjpeg-turbo)."""

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
        target = io.BytesIO()
        # The end-of-image marker closes the file: it never ends in a zero byte.
        PilImage.fromarray(np.ascontiguousarray(image)).save(
            target, "JPEG", quality=quality, subsampling=_SUBSAMPLING_420, optimize=True
        )
        return target.getvalue()

    def decode(self, stream: bytes, full_size: tuple[int, int]) -> Image:
        try:
            with PilImage.open(io.BytesIO(stream), formats=("JPEG",)) as image:
                check_decoded_size((image.height, image.width), full_size)
                return np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, PilImage.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
            raise CodecError(f"the JPEG decoder refuses the stream: {error}") from error
