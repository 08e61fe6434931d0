"""A small stand-in for CIFAR-10: ten random images a batch, with check sums of its own."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest

from linksim.data import cifar10

IMAGES = 10


def install_fake(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Makes linksim take the fake batches for the official ones; returns them in binary form."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr(cifar10, "IMAGES_A_BATCH", IMAGES)
    batches = {}
    for batch in cifar10.SHA1:
        records = rng.integers(0, 256, (IMAGES, cifar10.RECORD), dtype=np.uint8)
        records[:, 0] %= 10
        batches[batch] = records.tobytes()
    for batch, content in batches.items():
        monkeypatch.setitem(cifar10.SHA1, batch, hashlib.sha1(content).hexdigest())
    return batches


def write_binary(folder: Path, batches: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for batch, content in batches.items():
        (folder / f"{batch}.bin").write_bytes(content)


def python_pickle(content: bytes) -> bytes:
    """A batch as the official python version has it, written by hand as Python 2 wrote it: strings are bytes."""
    records = np.frombuffer(content, np.uint8).reshape(-1, cifar10.RECORD)
    labels = b"".join(b"K" + bytes([label]) for label in records[:, 0])
    pixels = records[:, 1:].tobytes()
    rows = b"K" + bytes([len(records)])
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01" + rows + b"M\x00\x0c\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + len(pixels).to_bytes(4, "little") + pixels + b"tb"
    )
    return b"\x80\x02}(U\x04data" + array + b"U\x06labels](" + labels + b"eu."


def hostile_pickle(marker: Path) -> bytes:
    """A pickle that writes a file where its reader is careless."""

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (marker,)

    return pickle.dumps({b"data": Hostile()})
