"""The test sets that a sweep can name."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from linksim.data import cifar10
from linksim.data.images import (
    FolderImages,
    ImageSet,
    ImageSize,
    citation_of,
    fingerprint,
    known_fingerprint,
    open_folder,
    parse_size,
    passed_over,
)
from linksim.errors import LinksimError, unknown
from linksim.registry import Registry

# There is no training set to take a mean colour from, so a lost image of a folder is shown mid-grey.
MID_GREY = (0.5, 0.5, 0.5)
MINI_ROWS, MINI_COLUMNS = 16, 32


class DataSource(ABC):
    """Where the images of a test set come from; a plug-in derives from it (entry-point group `linksim.datasets`).

    Class attributes:
        name: what `--dataset` takes; what stands behind a colon, `name:ARGUMENT`, is the source's own to read.
        summary: one line for `linksim list datasets`.
        form: how it is written, where that is more than the name.
        for_tests: whether nothing may be trained on its images, since results are measured on them.

    Example:
        >>> import numpy as np
        >>> class Grey(DataSource):
        ...     name, summary = "grey", "grey images, as many as the argument says"
        ...     @classmethod
        ...     def load(cls, spec, data_dir, image_size):
        ...         side = image_size or 32
        ...         images = np.full((int(spec.partition(":")[2]), 3, side, side), 128, np.uint8)
        ...         return ImageSet(spec, images, images.shape[1:], fingerprint(images), MID_GREY, "")
        >>> len(Grey.load("grey:4", None, None))
        4
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    form: ClassVar[str] = ""
    for_tests: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def load(cls, spec: str, data_dir: Path | None, image_size: ImageSize | None) -> ImageSet:
        """See `load_dataset`."""

    @classmethod
    def training_images(
        cls, spec: str, data_dir: Path | None, image_size: ImageSize | None
    ) -> NDArray[np.uint8] | FolderImages:
        """Images to train on, uint8 [T, C, H, W] (`linksim.data.training`): those of `load`, unless told otherwise."""
        return cls.load(spec, data_dir, image_size).images


class _Cifar(DataSource):
    @classmethod
    def load(cls, spec: str, data_dir: Path | None, image_size: ImageSize | None) -> ImageSet:
        if image_size is not None and parse_size(image_size) != cifar10.IMAGE_SHAPE[1:]:
            raise LinksimError(f"{spec} is 32x32, not {image_size}: leave --image-size out, or use folder:DIR")
        array = cls.images(spec, None if data_dir is None else _home(data_dir))
        return ImageSet(spec, array, cifar10.IMAGE_SHAPE, fingerprint(array), cifar10.TRAIN_MEAN, cifar10.CITATION)

    @classmethod
    @abstractmethod
    def images(cls, spec: str, data_dir: Path | None) -> NDArray[np.uint8]:
        """uint8 [T, 3, 32, 32]."""


class Mini(_Cifar):
    """Embedded images."""

    name = "cifar10-mini"
    for_tests = True
    summary = "the first 512 CIFAR-10 test images, 32x32, inside the package"

    @classmethod
    def images(cls, spec: str, data_dir: Path | None) -> NDArray[np.uint8]:
        """See `_Cifar`."""
        _no_data_dir(spec, data_dir)
        return _mini()


class TestSet(_Cifar):
    """The official test set."""

    name = "cifar10"
    summary = "the 10,000 CIFAR-10 test images, 32x32 (linksim assets get cifar10, or --data-dir DIR)"

    @classmethod
    def images(cls, spec: str, data_dir: Path | None) -> NDArray[np.uint8]:
        """See `_Cifar`."""
        return cifar10.read_images(data_dir, cifar10.TEST_BATCH)


class Validation(_Cifar):
    """Images for choosing."""

    name = "cifar10-val"
    for_tests = True
    summary = "the last 5,000 CIFAR-10 training images, seen by no training here: for choosing, not for results"

    @classmethod
    def images(cls, spec: str, data_dir: Path | None) -> NDArray[np.uint8]:
        """See `_Cifar`."""
        return cifar10.read_images(data_dir, cifar10.TRAIN_BATCHES[-1])[-cifar10.VALIDATION :]


class Folder(DataSource):
    """Any folder of images; its `CITATION.txt`, where there is one, says whom to cite."""

    name = "folder"
    form = "folder:DIR"
    summary = "every png, jpg, webp or bmp image of a folder, by name (--image-size crops and scales them)"

    @classmethod
    def load(cls, spec: str, data_dir: Path | None, image_size: ImageSize | None) -> ImageSet:
        """See `DataSource`."""
        images = cls.training_images(spec, data_dir, image_size)
        folder = images.paths[0].parent
        _, channels, height, width = images.shape
        return ImageSet(
            spec,
            images,
            (channels, height, width),
            known_fingerprint(images),
            MID_GREY,
            citation_of(folder),
            passed_over(folder),
        )

    @classmethod
    def training_images(cls, spec: str, data_dir: Path | None, image_size: ImageSize | None) -> FolderImages:
        """See `DataSource`; none of them is decoded, but for the first."""
        folder = spec.partition(":")[2]
        if not folder:
            raise LinksimError("folder: names no folder: write folder:DIR")
        if image_size is not None:
            parse_size(image_size)
        _no_data_dir(spec, data_dir)
        return open_folder(_home(Path(folder)), image_size)


#: Every data set by name; plug-ins by the entry-point group `linksim.datasets` or `register`.
DATASETS: Registry[DataSource] = Registry(
    "data set",
    "linksim.datasets",
    lambda: DataSource,
    "DataSource",
    builtin={source.name: source for source in (Mini, TestSet, Validation, Folder)},
)


def register(source: type[DataSource]) -> type[DataSource]:
    """Adds a data set for this process; installed plug-ins use the entry-point group `linksim.datasets`.

    Worker processes cannot see it: run it with one worker. Raises LinksimError when linksim or an installed plug-in has
    the name.

    Example:
        >>> class Own(DATASETS.find("cifar10-mini")):
        ...     name, summary = "own", "images of one's own"
        >>> register(Own).name in DATASETS
        True
        >>> DATASETS.unregister("own")
    """
    return DATASETS.register(source)


def kind_of(spec: str) -> str:
    """The name in `name` or `name:ARGUMENT`. Raises LinksimError for one that is unknown, or lacks its argument."""
    name, colon, _ = spec.partition(":")
    if name not in DATASETS or (bool(colon) and name in DATASETS.builtin and name != Folder.name):
        raise unknown(
            "data set",
            spec,
            [DATASETS[known].form or known for known in DATASETS.builtin]
            + [known for known in DATASETS if known not in DATASETS.builtin],
        )
    if name == Folder.name and not colon:
        raise unknown("data set", spec, [Folder.form])
    return name


def load_dataset(spec: str, data_dir: Path | None = None, image_size: ImageSize | None = None) -> ImageSet:
    """The test set that `spec` names, complete and in a fixed order.

    Args:
        spec: `cifar10-mini`, `cifar10`, `cifar10-val`, `folder:DIR`, or that of a plug-in.
        data_dir: for `cifar10` and `cifar10-val` alone: the folder that holds it; None takes the asset.
        image_size: in pixels, 256 or 768x512: folders are cropped and scaled to it; CIFAR-10 has 32.

    Raises:
        LinksimError: unknown name, data not found, truncated or corrupt, an empty or unreadable folder, an image
            smaller than `image_size`, an option that the data set does not take, or a plug-in whose images are none.
    """
    found = DATASETS.find(kind_of(spec)).load(spec, data_dir, image_size)
    if not isinstance(found, ImageSet) or found.images.shape != (len(found), *found.image_shape):
        raise LinksimError(f"data set {spec} is no ImageSet of images [T, C, H, W]: mend its plug-in")
    return found


def embedded_images(count: int, image_shape: tuple[int, int, int], multiple: int = 1) -> NDArray[np.uint8]:
    """Images of any size out of those inside the package, side by side where one is too small; no pictures of anything.

    Args:
        count: how many of 32x32; of larger ones as many as have no more pixels.
        image_shape: (C, H, W).
        multiple: what their number is a multiple of, users say; as many there are at least.

    Returns:
        uint8 [T, C, H, W].

    Example:
        >>> embedded_images(64, (3, 64, 64)).shape, embedded_images(64, (3, 256, 512), multiple=2).shape
        ((16, 3, 64, 64), (2, 3, 256, 512))
    """
    images = _mini()
    channels, height, width = image_shape
    count = max(1, count * 32 * 32 // (height * width) // multiple) * multiple
    down, across = -(-height // 32), -(-width // 32)
    chosen = images[np.arange(count * down * across) % len(images)].reshape(count, down, across, *cifar10.IMAGE_SHAPE)
    mosaic = chosen.transpose(0, 3, 1, 4, 2, 5).reshape(count, channels, down * 32, across * 32)
    return np.ascontiguousarray(mosaic[..., :height, :width])


def _home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise LinksimError(f"{path}: there is no such user: give a folder") from None


def _no_data_dir(spec: str, data_dir: Path | None) -> None:
    if data_dir is not None:
        raise LinksimError(f"{spec} takes no --data-dir: leave it out, or name the data set cifar10")


def _mini() -> NDArray[np.uint8]:
    with Image.open(Path(__file__).parent / "cifar10_mini.webp") as image:
        mosaic = np.asarray(image.convert("RGB"))
    tiles = mosaic.reshape(MINI_ROWS, 32, MINI_COLUMNS, 32, 3).transpose(0, 2, 4, 1, 3)
    images = np.ascontiguousarray(tiles).reshape(MINI_ROWS * MINI_COLUMNS, *cifar10.IMAGE_SHAPE)
    images.flags.writeable = False
    return images
