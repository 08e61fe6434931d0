"""An ordered set of test images, in memory or read from a folder when they are asked for."""

import contextlib
import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps

from linksim.errors import LinksimError
from linksim.paths import cache_dir

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class FolderImages:
    """Images of one folder, decoded each time they are asked for, so that a large set needs no memory.

    Indexing with integers of shape [...] gives uint8 [..., C, H, W], as it does for an array. An image larger than
    `image_size` is centre-cropped to a square and scaled by a Lanczos filter; its EXIF orientation is applied.

    Args:
        paths: the files, in order.
        image_size: side of the square images in pixels; None keeps them as they are.
        image_shape: (C, H, W) that every image must have.
    """

    def __init__(self, paths: Sequence[Path], image_size: int | None, image_shape: tuple[int, int, int]) -> None:
        self.paths = tuple(paths)
        self.image_size = image_size
        self.shape = (len(self.paths), *image_shape)
        self._stamps = {path: _stamp(path) for path in self.paths}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: int | slice | ArrayLike) -> NDArray[np.uint8]:
        chosen = np.arange(len(self))[indices if isinstance(indices, slice) else np.asarray(indices)]
        images = np.empty((chosen.size, *self.shape[1:]), np.uint8)
        for row, index in enumerate(chosen.flat):
            images[row] = self._read(self.paths[index])
        return images.reshape(*chosen.shape, *self.shape[1:])

    def _read(self, path: Path) -> NDArray[np.uint8]:
        if _stamp(path) != self._stamps[path]:
            raise LinksimError(f"{path} has changed since the run began: run the same command again")
        image = read_image(path, self.image_size)
        if image.shape != self.shape[1:]:
            raise LinksimError(
                f"{path} is {_size(image.shape)}, the first image is {_size(self.shape[1:])}: give one size "
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
    """

    name: str
    images: NDArray[np.uint8] | FolderImages
    image_shape: tuple[int, int, int]
    fingerprint: str
    train_mean: tuple[float, float, float]
    citation: str

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


def open_folder(folder: Path, image_size: int | None) -> tuple[FolderImages, str]:
    """The images of `folder`, sorted by name, and their fingerprint.

    Every image is decoded once, so that an unreadable one is found before anything runs. The fingerprint of files
    that have not changed since (names, sizes, times) comes from the cache folder.

    Raises:
        LinksimError: no such folder, no images in it, an unreadable or too small image, or images of several sizes.
    """
    try:
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    except OSError as error:
        raise LinksimError(f"cannot read the image folder {folder} ({error.strerror}): give another one") from error
    if not paths:
        raise LinksimError(f"no images in {folder}: it needs files that end in {', '.join(SUFFIXES)}")
    first = read_image(paths[0], image_size)
    images = FolderImages(paths, image_size, (first.shape[0], first.shape[1], first.shape[2]))
    remembered = cache_dir() / "fingerprints" / _state(images)
    with contextlib.suppress(OSError):
        return images, remembered.read_text()
    digest = fingerprint(images)
    # The cache only saves time: where it cannot be written, the next start decodes the images again.
    with contextlib.suppress(OSError):
        remembered.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=remembered.parent, delete=False) as file:
            file.write(digest)
        Path(file.name).replace(remembered)
    return images, digest


def read_image(path: Path, image_size: int | None) -> NDArray[np.uint8]:
    """One image as uint8 RGB [3, H, W], square of side `image_size` where that is given.

    Raises:
        LinksimError: the file is no readable 8-bit image, or smaller than `image_size`.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            mode = opened.mode
            image = ImageOps.exif_transpose(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise LinksimError(f"cannot read the image {path} ({error}): repair it or take it out of the folder") from error
    if mode.startswith(("I", "F")):
        raise LinksimError(f"{path} has more than 8 bits a channel: convert it to 8 bits or take it out of the folder")
    if image_size is not None and image.size != (image_size, image_size):
        if min(image.size) < image_size:
            raise LinksimError(
                f"{path} is {image.width}x{image.height}, smaller than {image_size}x{image_size}: "
                "give a smaller --image-size or take it out of the folder"
            )
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.convert("RGB").crop((left, top, left + side, top + side))
        image = image.resize((image_size, image_size), Image.Resampling.LANCZOS)
    return np.asarray(image.convert("RGB"), np.uint8).transpose(2, 0, 1)


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file; zeros where it is gone."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _state(images: FolderImages) -> str:
    """A key that changes when the decoded pixels may have: files, size, and the library that decodes them."""
    digest = hashlib.sha256(f"{PIL.__version__} {images.shape} {images.image_size}".encode())
    for path in images.paths:
        size, time = _stamp(path)
        digest.update(f"\0{path.resolve()}\0{size}\0{time}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _size(shape: Sequence[int]) -> str:
    return f"{shape[2]}x{shape[1]}"
