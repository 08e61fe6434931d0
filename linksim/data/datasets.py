"""The test sets that a sweep can name."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from linksim.data import cifar10
from linksim.data.images import ImageSet, fingerprint, open_folder
from linksim.errors import LinksimError, unknown

# There is no training set to take a mean colour from, so a lost image of a folder is shown mid-grey.
MID_GREY = (0.5, 0.5, 0.5)
MINI_ROWS, MINI_COLUMNS = 16, 32

DATASETS = {
    "cifar10-mini": "the first 512 CIFAR-10 test images, 32x32, inside the package",
    "cifar10": "the 10,000 CIFAR-10 test images, 32x32 (linksim assets get cifar10, or --data-dir DIR)",
    "cifar10-val": "the last 5,000 CIFAR-10 training images, seen by no training here: for choosing, not for results",
    "folder:DIR": "every png, jpg, webp or bmp image of a folder, by name (--image-size crops and scales them)",
}


def load_dataset(spec: str, data_dir: Path | None = None, image_size: int | None = None) -> ImageSet:
    """The test set that `spec` names, complete and in a fixed order.

    Args:
        spec: `cifar10-mini`, `cifar10`, `cifar10-val` or `folder:DIR`.
        data_dir: for `cifar10` and `cifar10-val` alone: the folder that holds it; None takes the asset.
        image_size: side of the square images in pixels: folders are cropped and scaled to it; CIFAR-10 has 32.

    Raises:
        LinksimError: unknown name, data not found, truncated or corrupt, an empty or unreadable folder, an image
            smaller than `image_size`, or an option that the data set does not take.
    """
    name, colon, folder = spec.partition(":")
    if name == "folder" and colon:
        if not folder:
            raise LinksimError("folder: names no folder: write folder:DIR")
        if image_size is not None and image_size < 1:
            raise LinksimError(f"image size {image_size}: give the side of the images in pixels, 1 or more")
        _no_data_dir(spec, data_dir)
        images, digest = open_folder(_home(Path(folder)), image_size)
        _, channels, height, width = images.shape
        return ImageSet(spec, images, (channels, height, width), digest, MID_GREY, "")
    if spec not in ("cifar10-mini", "cifar10", "cifar10-val"):
        raise unknown("data set", spec, DATASETS)
    if image_size not in (None, 32):
        raise LinksimError(f"{spec} is 32x32, not {image_size}: leave --image-size out, or use folder:DIR")
    if spec == "cifar10-mini":
        _no_data_dir(spec, data_dir)
        array = _mini()
    else:
        batch = cifar10.TEST_BATCH if spec == "cifar10" else cifar10.TRAIN_BATCHES[-1]
        array = cifar10.read_images(None if data_dir is None else _home(data_dir), batch)
        array = array if spec == "cifar10" else array[-cifar10.VALIDATION :]
    return ImageSet(spec, array, cifar10.IMAGE_SHAPE, fingerprint(array), cifar10.TRAIN_MEAN, cifar10.CITATION)


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
