"""An ordered set of test images, in memory or read from a folder when they are asked for."""

import hashlib
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from linksim.cache import keep_entry, read_entry
from linksim.errors import LinksimError, shown
from linksim.paths import cache_dir

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

#: Formats of images that are not read. A folder that has some is not the set that its owner thinks it is.
OTHER_SUFFIXES = (
    ".avif", ".dib", ".dng", ".exr", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".pbm", ".pgm", ".pnm",
    ".ppm", ".raw", ".tga", ".tif", ".tiff",
)  # fmt: skip


#: Size of the images of a folder in pixels: a side, of squares, or text, `768x512`, width first.
ImageSize = int | str


def parse_size(size: ImageSize) -> tuple[int, int]:
    """Height and width of an image size. Raises LinksimError.

    Example:
        >>> parse_size(256), parse_size("768x512")
        ((256, 256), (512, 768))
    """
    match = re.fullmatch(r"\s*([0-9]{1,6})(?:\s*x\s*([0-9]{1,6}))?\s*", str(size))
    if match is None or not int(match[1]) or not int(match[2] or 1):
        raise LinksimError(f"image size {shown(size)}: give the side of the images in pixels, like 256, or 768x512")
    return int(match[2] or match[1]), int(match[1])


def size_of(height: int, width: int) -> ImageSize:
    """The inverse of `parse_size`.

    Example:
        >>> size_of(256, 256), size_of(512, 768)
        (256, '768x512')
    """
    return height if height == width else f"{width}x{height}"


#: A folder's file that says whom to cite for its images, and on what terms.
CITATION = "CITATION.txt"

_CITATION_LENGTH = 1000


class FolderImages:
    """Images of one folder, decoded each time they are asked for, so that a large set needs no memory.

    Indexing with integers of shape [...] gives uint8 [..., C, H, W], as it does for an array. An image larger than
    `image_size` is centre-cropped to its proportions and scaled by a Lanczos filter; its EXIF orientation is applied.
    An upright image is turned by 90 degrees where `image_size` lies, and a lying one where it stands. The
    files' bytes are hashed here and compared at each reading: sizes and times can stay when the content changes.

    Args:
        paths: the files, in order.
        image_size: of all images, see `parse_size`; None keeps them as they are.
        image_shape: (C, H, W) that every image must have.
    """

    def __init__(self, paths: Sequence[Path], image_size: ImageSize | None, image_shape: tuple[int, int, int]) -> None:
        self.paths = tuple(paths)
        # One size has one way to be written here, and so one place in the cache.
        self.image_size = None if image_size is None else size_of(*parse_size(image_size))
        self.shape = (len(self.paths), *image_shape)
        self._sums = {path: hashlib.sha256(_read_file(path)).digest() for path in self.paths}

    @property
    def state(self) -> str:
        """A key (hex) that changes whenever the decoded pixels may: the files' bytes, the size, the decoder."""
        digest = hashlib.sha256(f"{PIL.__version__} {self.shape} {self.image_size}".encode())
        for path in self.paths:
            digest.update(self._sums[path])
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: int | slice | ArrayLike) -> NDArray[np.uint8]:
        chosen = np.arange(len(self))[indices if isinstance(indices, slice) else np.asarray(indices)]
        images = np.empty((chosen.size, *self.shape[1:]), np.uint8)
        for row, index in enumerate(chosen.flat):
            images[row] = self._read(self.paths[index])
        return images.reshape(*chosen.shape, *self.shape[1:])

    def _read(self, path: Path) -> NDArray[np.uint8]:
        content = _read_file(path)
        if hashlib.sha256(content).digest() != self._sums[path]:
            raise LinksimError(f"{path} has changed since the run began: run the same command again")
        image = decoded(content, f"the image {path}", self.image_size)
        if image.shape != self.shape[1:]:
            raise LinksimError(
                f"{path} is {pixels(image.shape)}, the first image is {pixels(self.shape[1:])}: give one size "
                "for all (--image-size)"
            )
        return image


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The images of one test set, complete and in a fixed order.

    Attributes:
        name: the data set as the user named it.
        images: uint8 [T, C, H, W]: an array, or a folder that is read when indexed.
        image_shape: (C, H, W).
        fingerprint: SHA-256 (hex) over the shape and every pixel in order; equal pixels, equal fingerprint.
        train_mean: mean colour (r, g, b) in [0, 1] of the training set: what a receiver shows for a lost image.
        citation: whom to cite for the images; empty where it is not known.
        passed_over: names of images in the folder whose format is not read.
    """

    name: str
    images: NDArray[np.uint8] | FolderImages
    image_shape: tuple[int, int, int]
    fingerprint: str
    train_mean: tuple[float, float, float]
    citation: str
    passed_over: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)


def fingerprint(images: NDArray[np.uint8] | FolderImages) -> str:
    """SHA-256 (hex) over the shape [T, C, H, W] and the pixels in order."""
    digest = hashlib.sha256("x".join(map(str, images.shape)).encode())
    if isinstance(images, FolderImages):
        for index in range(len(images)):
            digest.update(images[index].tobytes())
    else:
        digest.update(np.ascontiguousarray(images).tobytes())
    return digest.hexdigest()


def open_folder(folder: Path, image_size: ImageSize | None) -> FolderImages:
    """The images of `folder`, sorted by name; none but the first is decoded yet.

    Raises:
        LinksimError: no such folder, no images in it, or a first image that is unreadable or too small.
    """
    try:
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file() and p.name[0] != ".")
    except OSError as error:
        raise LinksimError(f"cannot read the image folder {folder} ({error.strerror}): give another one") from error
    if not paths:
        raise LinksimError(
            f"no images in {folder}: it needs files that end in {', '.join(SUFFIXES)}; "
            "those of its sub-folders do not count"
        )
    first = read_image(paths[0], image_size)
    return FolderImages(paths, image_size, (first.shape[0], first.shape[1], first.shape[2]))


def known_fingerprint(images: FolderImages) -> str:
    """The fingerprint of a folder's images, from the cache folder where these bytes were decoded before.

    Every image is decoded once, so that an unreadable one is found before anything runs.

    Raises:
        LinksimError: an unreadable or too small image, or images of several sizes.
    """
    remembered = cache_dir() / "fingerprints" / images.state
    if (known := read_entry(remembered)) is not None:
        return known.decode()
    digest = fingerprint(images)
    keep_entry(remembered, digest.encode())
    return digest


def citation_of(folder: Path) -> str:
    """Whom to cite for a folder's images, and on what terms: its file `CITATION.txt` in one line; empty without one.

    Raises LinksimError for a text that is none, or longer than 1,000 characters.
    """
    path = folder / CITATION
    if not os.path.lexists(path):
        return ""
    try:
        # A pipe would be waited for.
        text = " ".join(path.read_text(encoding="utf-8").split()) if path.is_file() else None
    except (OSError, ValueError):
        text = None
    if text is None:
        raise LinksimError(f"{path} cannot be read as text: mend it or take it away")
    if len(text) > _CITATION_LENGTH:
        raise LinksimError(f"{path} has {len(text)} characters: {_CITATION_LENGTH} are enough")
    return text


def passed_over(folder: Path) -> tuple[str, ...]:
    """Names of the images in `folder` whose format is not read, sorted. Raises OSError."""
    return tuple(sorted(p.name for p in folder.iterdir() if p.suffix.lower() in OTHER_SUFFIXES and p.is_file()))


def read_image(path: Path, image_size: ImageSize | None) -> NDArray[np.uint8]:
    """One image as uint8 RGB [3, H, W], of `image_size` where that is given.

    Raises:
        LinksimError: the file is no readable 8-bit image, has transparent pixels, or is smaller than `image_size`.
    """
    return decoded(_read_file(path), f"the image {path}", image_size)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LinksimError(
            f"cannot read the image {path} ({error.strerror}): repair it or take it out of the folder"
        ) from error


#: What helps with an image of a folder that is none.
_LEAVE_OUT = "take it out of the folder"


def decoded(
    content: bytes,
    name: str,
    image_size: ImageSize | None = None,
    *,
    formats: tuple[str, ...] | None = None,
    most_pixels: int | None = None,
    otherwise: str = _LEAVE_OUT,
) -> NDArray[np.uint8]:
    """An image from the content of a file, as uint8 RGB [3, H, W], of `image_size` where that is given.

    Args:
        content: of the file.
        name: what messages call it.
        image_size: see `parse_size`.
        formats: Pillow's names of those that are read; None for all.
        most_pixels: of the whole image.
        otherwise: what else helps, for messages.

    Raises:
        LinksimError: no readable 8-bit image, transparent pixels, smaller than `image_size`, or too large.
    """
    try:
        with Image.open(io.BytesIO(content), formats=formats) as opened:
            if most_pixels is not None and opened.width * opened.height > most_pixels:
                raise LinksimError(
                    f"{name} is {opened.width}x{opened.height}, more than {most_pixels} pixels: scale it down"
                )
            # Pillow cuts 16-bit colours down to 8 without a word; how they are stored is known before they are decoded.
            deep = opened.mode.startswith(("I", "F")) or bool(re.search(r";16[BLNS]", str(opened.tile)))
            opened.load()
            image = ImageOps.exif_transpose(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        why = "it is no image" if isinstance(error, UnidentifiedImageError) else error
        raise LinksimError(f"cannot read {name} ({why}): repair it or {otherwise}") from error
    if deep:
        raise LinksimError(f"{name} has more than 8 bits a channel: convert it to 8 bits or {otherwise}")
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        raise LinksimError(f"{name} has transparent pixels, whose colour is nobody's: flatten it or {otherwise}")
    if image_size is not None:
        image = _sized(name, image, *parse_size(image_size), otherwise)
    return np.asarray(image.convert("RGB"), np.uint8).transpose(2, 0, 1)


def _sized(name: str, image: Image.Image, height: int, width: int, otherwise: str) -> Image.Image:
    """An image cut and scaled; one that stands where a lying one is wanted is turned, and the other way round."""
    if (image.width - image.height) * (width - height) < 0:
        image = image.transpose(Image.Transpose.ROTATE_90)
    if image.size == (width, height):
        return image
    if image.width < width or image.height < height:
        raise LinksimError(
            f"{name} is {image.width}x{image.height}, smaller than {width}x{height}: "
            f"give a smaller --image-size or {otherwise}"
        )
    across = min(image.width, image.height * width // height)
    down = min(image.height, image.width * height // width)
    left, top = (image.width - across) // 2, (image.height - down) // 2
    image = image.convert("RGB").crop((left, top, left + across, top + down))
    return image.resize((width, height), Image.Resampling.LANCZOS)


def pixels(image_shape: Sequence[int]) -> str:
    """Width and height of images (C, H, W), for messages.

    Example:
        >>> pixels((3, 512, 768))
        '768x512'
    """
    return f"{image_shape[2]}x{image_shape[1]}"
