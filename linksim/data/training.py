"""Images to train on: prepared once, read at random, with some of them set apart to choose by."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from linksim.cache import HEADER_BYTES, is_whole, read_entry, remove_leftovers, write_entry
from linksim.data import cifar10
from linksim.data.datasets import DATASETS, Folder, Mini, kind_of
from linksim.data.images import FolderImages, ImageSize, citation_of, parse_size, pixels
from linksim.errors import LinksimError
from linksim.paths import cache_dir

#: Told how many images are prepared, of how many.
Prepared = Callable[[int, int], None]

#: Bytes of a file of prepared images, at the most.
_SHARD = 256 * 2**20

#: Where nothing else is asked for, one image in so many is for validation; of large data sets fewer.
_ONE_IN, _LEAST_APART, _MOST_APART = 10, 4, 1000

#: The data set of a checkpoint and of a card that name none.
CIFAR10 = "cifar10"

_INDEX = "index"

#: In the words of a training set: how many images a validation is on, which the model decides.
VALIDATED = "{validated}"


class StoredImages:
    """Images in files of the cache, mapped into memory while they are read and no longer.

    Args:
        files: path, number of the first image and of images, in order; pixels are uint8 [C, H, W] one after the other.
        image_shape: (C, H, W).
    """

    def __init__(self, files: Sequence[tuple[Path, int, int]], image_shape: tuple[int, int, int]) -> None:
        self._files, self._firsts = tuple(files), np.array([first for _, first, _ in files])
        self.shape = (sum(count for _, _, count in files), *image_shape)

    def crops(self, indices: NDArray[np.int64], corners: NDArray[np.int64], side: tuple[int, int]) -> NDArray[np.uint8]:
        """Parts of images, uint8 [n, C, *side].

        Args:
            indices: of the images, [n].
            corners: top and left of each part, [n, 2].
            side: height and width of the parts.
        """
        found = np.empty((len(indices), self.shape[1], *side), np.uint8)
        places = np.searchsorted(self._firsts, indices, side="right") - 1
        for place in np.unique(places):
            path, first, count = self._files[place]
            # A mapping that were kept would count every page ever read as this process's memory.
            try:
                images = np.memmap(path, np.uint8, "r", HEADER_BYTES, (count, *self.shape[1:]))
            except (OSError, ValueError):
                raise LinksimError(
                    f"{path}, images to train on, has gone or changed in mid-run: --resume goes on with the run"
                ) from None
            for row in np.flatnonzero(places == place):
                top, left = corners[row]
                found[row] = images[indices[row] - first, :, top : top + side[0], left : left + side[1]]
        return found


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Images to train on and images to choose by.

    Attributes:
        name: as a card and a checkpoint tell it; of a folder its own name, not its place.
        images: every image, uint8 [T, C, H, W].
        chosen: indices of those to train on.
        held_out: those for validation, uint8 [V, C, H, W], which no step sees.
        words: what a card says of both, with VALIDATED for how many a validation is on.
        sha256: over the shape and every pixel of both (hex); empty for CIFAR-10, whose files are known.
        validation: the data set that `held_out` is of, where it is another.
        citation: whom to cite for the images, and on what terms; empty where it is not known, and for CIFAR-10.

    Example:
        >>> found = training_set_of(np.zeros((40, 3, 8, 8), np.uint8))
        >>> found.image_shape, len(found), len(found.held_out)
        ((3, 8, 8), 36, 4)
    """

    name: str
    images: NDArray[np.uint8] | StoredImages
    chosen: NDArray[np.int64]
    held_out: NDArray[np.uint8]
    words: str
    sha256: str
    validation: str = ""
    citation: str = ""

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def nbytes(self) -> int:
        """Bytes of the images to train on."""
        return len(self) * int(np.prod(self.image_shape))

    def crops(self, indices: NDArray[np.int64], corners: NDArray[np.int64], side: tuple[int, int]) -> NDArray[np.uint8]:
        """Parts of images to train on, uint8 [n, C, *side]; see `StoredImages.crops`."""
        rows = self.chosen[indices]
        if isinstance(self.images, StoredImages):
            return self.images.crops(rows, corners, side)
        return np.stack(
            [
                self.images[row, :, top : top + side[0], left : left + side[1]]
                for row, (top, left) in zip(rows, corners, strict=True)
            ]
        )

    def all(self) -> NDArray[np.uint8]:
        """The images to train on in memory, uint8 [T', C, H, W]."""
        return _rows(self.images, self.chosen)


def _rows(images: NDArray[np.uint8] | StoredImages, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    if isinstance(images, StoredImages):
        return images.crops(rows, np.zeros((len(rows), 2), np.int64), images.shape[2:])
    return np.ascontiguousarray(images[rows])


def training_set_of(images: NDArray[np.uint8], apart: int | None = None, name: str = "array") -> TrainingSet:
    """A training set of images in memory, uint8 [T, C, H, W].

    Args:
        apart: how many of the last are for validation; where it is left out, one in ten.
        name: of the data set.
    """
    count = len(images)
    apart = _held(count) if apart is None else apart
    words = f"{name}, {count - apart:,} images; validation on {VALIDATED} of the other {apart:,}"
    return TrainingSet(name, images, np.arange(count - apart), images[count - apart :], words, _sum(images).hexdigest())


@dataclass(frozen=True)
class TrainingData:
    """Images to train on as `linksim train` is asked for them.

    CIFAR-10 is split 45,000 / 5,000 (KDD paper, section VI-A). Of any other data set one image in ten, chosen by its
    content, is for validation, or all of `validation`. Images of a folder are decoded once and kept in the cache
    folder, from where they are mapped into memory.

    Args:
        dataset: `cifar10`, `folder:DIR`, or a plug-in's.
        data_dir: of CIFAR-10 alone: its folder; None takes the asset.
        image_size: in pixels, 256 or 768x512, to which images are cropped and scaled; folders must have one.
        validation: another data set to choose by.

    Raises:
        LinksimError: options that do not go together, or a data set that is for tests alone.
    """

    dataset: str = CIFAR10
    data_dir: Path | None = None
    image_size: ImageSize | None = None
    validation: str | None = None

    def __post_init__(self) -> None:
        if DATASETS.find(kind_of(self.dataset)).for_tests:
            raise LinksimError(f"--dataset {self.dataset}: its images are for tests: take cifar10 or folder:DIR")
        if self.validation is not None and self.validation in (CIFAR10, Mini.name):
            raise LinksimError(
                f"--validation {self.validation}: results are measured on these: take folder:DIR or cifar10-val"
            )
        if self.image_size is not None:
            size = parse_size(self.image_size)
            if self.dataset == CIFAR10 and size != cifar10.IMAGE_SHAPE[1:]:
                raise LinksimError("cifar10 has images of 32x32: leave --image-size out, or take --dataset folder:DIR")
        elif self.dataset != CIFAR10 and kind_of(self.dataset) == Folder.name:
            raise LinksimError(f"--dataset {self.dataset}: give the size of the images to train on: --image-size 256")
        if self.dataset == CIFAR10 and self.validation is not None:
            raise LinksimError("cifar10 has its own validation images: leave --validation out")
        if self.dataset != CIFAR10 and self.data_dir is not None:
            raise LinksimError(f"{self.dataset} takes no --data-dir: leave it out")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W), without reading more than tells it."""
        if self.dataset == CIFAR10:
            return cifar10.IMAGE_SHAPE
        _, channels, height, width = self._open(self.dataset).shape
        return channels, height, width

    @property
    def words(self) -> list[str]:
        """What asks `linksim train` for the same; nothing where it is CIFAR-10 of the assets."""
        asked = {
            "--dataset": None if self.dataset == CIFAR10 else self.dataset,
            "--data-dir": self.data_dir,
            "--image-size": None if self.dataset == CIFAR10 else self.image_size,
            "--validation": self.validation,
        }
        return [word for option, value in asked.items() if value is not None for word in (option, str(value))]

    def _open(self, spec: str) -> NDArray[np.uint8] | FolderImages:
        return DATASETS.find(kind_of(spec)).training_images(spec, self.data_dir, self.image_size)

    def load(self, prepared: Prepared | None = None) -> TrainingSet:
        """The images, with those to choose by set apart.

        Args:
            prepared: told how far the preparation is.

        Raises:
            LinksimError: not found, damaged, too few, or no room in the cache.
        """
        if self.dataset == CIFAR10:
            every, apart = cifar10.load_cifar10_train(self.data_dir), cifar10.VALIDATION
            words = (
                f"CIFAR-10 training split, {len(every) - apart:,} images; validation on {VALIDATED} of the other "
                f"{apart:,}"
            )
            return TrainingSet(CIFAR10, every, np.arange(len(every) - apart), every[-apart:], words, "")
        found, spec = self._open(self.dataset), self.dataset
        if len(found) < 2 * _LEAST_APART:
            raise LinksimError(f"{spec} has {len(found)} images: {2 * _LEAST_APART} at least are needed to train on")
        others = self._open(self.validation) if self.validation is not None else None
        if others is not None and others.shape[1:] != found.shape[1:]:
            raise LinksimError(f"--validation {self.validation} has images of another size: give one --image-size")
        if others is not None and len(others) < _LEAST_APART:
            raise LinksimError(f"--validation {self.validation}: {_LEAST_APART} images at least are needed")
        cited = citation_of(found.paths[0].parent) if isinstance(found, FolderImages) else ""
        images, sums, digest = _kept(found, prepared)
        rows, name = np.arange(len(found)), name_of(spec)
        size, tail = pixels(found.shape[1:]), f"validation on {VALIDATED} of"
        if others is not None:
            apart_images = others[: min(len(others), _MOST_APART)]
            if twice := len({_key(image) for image in apart_images} & set(sums)):
                raise LinksimError(
                    f"--validation {self.validation}: {twice} of its images are among those to train on: take them out"
                )
            both = hashlib.sha256(f"{digest} {_sum(apart_images).hexdigest()}".encode()).hexdigest()
            other = name_of(str(self.validation))
            words = f"{name}, {len(rows):,} images of {size}; {tail} {other}"
            return TrainingSet(name, images, rows, apart_images, words, both, other, cited)
        held = np.sort(sorted(rows, key=lambda index: sums[index])[: _held(len(rows))])
        chosen = np.setdiff1d(rows, held)
        words = f"{name}, {len(chosen):,} images of {size}; {tail} the other {len(held):,}"
        return TrainingSet(name, images, chosen, _rows(images, held), words, digest, citation=cited)


def name_of(spec: str) -> str:
    """A data set as a card names it: without the place of a folder, which is nobody else's.

    Example:
        >>> name_of("folder:/home/me/ffhq256")
        'folder:ffhq256'
    """
    kind, colon, place = spec.partition(":")
    return f"{kind}:{Path(place).expanduser().resolve().name}" if kind == "folder" else f"{kind}{colon}{place}"


def _held(count: int) -> int:
    """Images for validation of so many."""
    return min(max(count // _ONE_IN, _LEAST_APART), _MOST_APART)


def _sum(images: NDArray[np.uint8]) -> hashlib._Hash:
    """As `linksim.data.images.fingerprint` begins and ends it."""
    found = hashlib.sha256("x".join(map(str, images.shape)).encode())
    found.update(np.ascontiguousarray(images).tobytes())
    return found


def _kept(
    images: NDArray[np.uint8] | FolderImages, prepared: Prepared | None
) -> tuple[NDArray[np.uint8] | StoredImages, list[str], str]:
    """Images as they can be read at random, a key of each by its pixels, and the fingerprint of all."""
    if not isinstance(images, FolderImages):
        return images, [_key(image) for image in images], _sum(images).hexdigest()
    folder = cache_dir() / "training" / images.state
    found = _stored(folder, images)
    if found is None:
        _store(folder, images, prepared)
        found = _stored(folder, images)
        if found is None:
            raise LinksimError(f"{folder} does not keep what is written to it: set LINKSIM_CACHE to another folder")
    return found


def _key(image: NDArray[np.uint8]) -> str:
    """Tells an image's pixels from all others'."""
    return hashlib.sha256(image.tobytes()).hexdigest()[:32]


def _stored(folder: Path, images: FolderImages) -> tuple[StoredImages, list[str], str] | None:
    """What `_store` has written; None where a part of it is not there, or not as this version writes it."""
    content = read_entry(folder / _INDEX)
    channels, height, width = images.shape[1:]
    try:
        index = json.loads(content or b"")
        counts, sums, digest = index["counts"], index["sums"], str(index["fingerprint"])
        files = [(folder / f"{number:05d}", sum(counts[:number]), count) for number, count in enumerate(counts)]
        sizes = [path.stat().st_size == HEADER_BYTES + count * channels * height * width for path, _, count in files]
        if sum(counts) != len(images) or len(sums) != len(images) or not all(sizes):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not all(is_whole(path) for path, _, _ in files):
        return None
    return StoredImages(files, (channels, height, width)), sums, digest


def _store(folder: Path, images: FolderImages, prepared: Prepared | None) -> None:
    """Decodes images into files of the cache. Raises LinksimError."""
    size = int(np.prod(images.shape[1:]))
    each, counts, sums = max(1, _SHARD // size), [], []
    digest = hashlib.sha256("x".join(map(str, images.shape)).encode())
    tell = prepared or (lambda done, total: None)
    tell(0, len(images))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        # Pillow decodes outside Python's lock.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for number, first in enumerate(range(0, len(images), each)):
                rows = range(first, min(first + each, len(images)))
                content = bytearray()
                for image in pool.map(images.__getitem__, rows):
                    content += image.tobytes()
                    sums.append(_key(image))
                    if (done := first + len(content) // size) % 64 == 0:
                        tell(done, len(images))
                digest.update(content)
                write_entry(folder / f"{number:05d}", bytes(content))
                counts.append(len(rows))
        index = {"counts": counts, "sums": sums, "fingerprint": digest.hexdigest()}
        write_entry(folder / _INDEX, json.dumps(index).encode())
    except OSError as error:
        raise LinksimError(
            f"{folder} cannot hold the images to train on, {size * len(images) / 2**20:,.0f} MiB ({error.strerror}): "
            "set LINKSIM_CACHE to another folder"
        ) from None
    tell(len(images), len(images))
