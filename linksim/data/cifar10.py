"""CIFAR-10 (Krizhevsky 2009): the official binary files, and the python version that torchvision keeps."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from linksim.data.arrays import load_arrays
from linksim.errors import LinksimError
from linksim.paths import assets_dir

CITATION = (
    "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, "
    "technical report, University of Toronto, 2009"
)
IMAGE_SHAPE = (3, 32, 32)
# Exact sums of the 50,000 training images' bytes over their 51,200,000 pixels.
TRAIN_MEAN = (
    6_415_714_204 / (51_200_000 * 255),
    6_295_060_180 / (51_200_000 * 255),
    5_829_907_619 / (51_200_000 * 255),
)

TRAIN_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST_BATCH = "test_batch"
# SHA-1 sums of the six files of the official binary version.
SHA1 = {
    "data_batch_1": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5": "26e2849e66a845b7f1e4614ae70f4889ae604628",
    "test_batch": "67eb016db431130d61cd03c7ad570b013799c88c",
}
IMAGES_A_BATCH = 10_000

#: The training set's last images are for validation: 45,000 / 5,000 (KDD paper, section VI-A).
VALIDATION = 5000
RECORD = 1 + 3072
_WAY_OUT = "linksim assets get cifar10, or --data-dir DIR"


def check_batch(batch: str, content: bytes, where: str, way_out: str = _WAY_OUT) -> None:
    """Compares a batch in binary form (10,000 records of label, R, G, B plane) with the official one.

    Raises:
        LinksimError: another length, or another SHA-1.
    """
    expected = IMAGES_A_BATCH * RECORD
    if len(content) != expected:
        kind = "truncated" if len(content) < expected else "too long"
        raise LinksimError(f"{where} is {kind}: {len(content)} bytes instead of {expected}: get it anew: {way_out}")
    if hashlib.sha1(content, usedforsecurity=False).hexdigest() != SHA1[batch]:
        raise LinksimError(f"{where} is corrupt: its SHA-1 is not the official {batch}'s: get it anew: {way_out}")


def binary_from_python(content: bytes, where: str, way_out: str = _WAY_OUT) -> bytes:
    """The binary form of a batch of the python version (a pickle with `data` [10000, 3072] and `labels`).

    Raises:
        LinksimError: the content is no such pickle.
    """
    try:
        batch = load_arrays(content)
        data = np.asarray(batch[b"data"], np.uint8)
        labels = np.asarray(batch[b"labels"], np.uint8)
        return np.concatenate([labels[:, None], data], axis=1).tobytes()
    except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        raise LinksimError(f"{where} is corrupt ({error}): get it anew: {way_out}") from error


def read_batch(data_dir: Path, batch: str, way_out: str = _WAY_OUT) -> bytes:
    """One checked batch in binary form, from a folder as the user has it.

    Looks for DIR/NAME.bin, DIR/cifar-10-batches-bin/NAME.bin, DIR/cifar-10-batches-py/NAME (torchvision) and DIR/NAME.

    Raises:
        LinksimError: the folder holds no such file, or the file is truncated or corrupt.
    """
    places = (
        data_dir / f"{batch}.bin",
        data_dir / "cifar-10-batches-bin" / f"{batch}.bin",
        data_dir / "cifar-10-batches-py" / batch,
        data_dir / batch,
    )
    for path in places:
        if not path.is_file():
            continue
        try:
            content = path.read_bytes()
        except OSError as error:
            raise LinksimError(f"cannot read {path} ({error.strerror}): get it anew: {way_out}") from error
        if path.suffix != ".bin":
            content = binary_from_python(content, str(path), way_out)
        check_batch(batch, content, str(path), way_out)
        return content
    raise LinksimError(f"no CIFAR-10 in {data_dir}: it holds neither {batch}.bin nor {batch}: {way_out}")


def read_images(data_dir: Path | None, batch: str) -> NDArray[np.uint8]:
    """Images uint8 [10000, 3, 32, 32] of one batch, read-only; without a folder, those of the `cifar10` asset.

    Raises:
        LinksimError: not found, truncated or corrupt.
    """
    if data_dir is None:
        data_dir = assets_dir() / "cifar10"
        if not (data_dir / f"{batch}.bin").is_file():
            raise LinksimError(f"cifar10 is not installed: {_WAY_OUT}")
    records = np.frombuffer(read_batch(data_dir, batch), np.uint8).reshape(IMAGES_A_BATCH, RECORD)
    images = np.ascontiguousarray(records[:, 1:]).reshape(IMAGES_A_BATCH, *IMAGE_SHAPE)
    images.flags.writeable = False
    return images


def load_cifar10_train(data_dir: Path | None = None) -> NDArray[np.uint8]:
    """The training images, uint8 [50000, 3, 32, 32], in the order of the five files.

    Args:
        data_dir: folder with the official binary files or torchvision's; None takes the `cifar10` asset.

    Raises:
        LinksimError: not found, truncated or corrupt.
    """
    return np.concatenate([read_images(data_dir, batch) for batch in TRAIN_BATCHES])
