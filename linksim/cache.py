"""Files of the cache folder: each carries a checksum, so that a damaged one is computed anew and never believed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: What a killed process left half-written is taken away when it is this old; a younger file may still be written to.
_LEFTOVER_SECONDS = 86_400

#: Bytes of a cache entry before its content.
HEADER_BYTES = 32

_PART = ".part"


def read_entry(path: Path) -> bytes | None:
    """The content of a cache entry; None where there is none, or where it is not what was written under this name.

    Example:
        >>> import tempfile
        >>> entry = Path(tempfile.mkdtemp()) / "answer"
        >>> write_entry(entry, b"42")
        >>> read_entry(entry)
        b'42'
        >>> _ = entry.write_bytes(entry.read_bytes()[:-1] + b"3")
        >>> read_entry(entry) is None
        True
    """
    try:
        data = path.read_bytes()
    except OSError:
        return None
    content = data[HEADER_BYTES:]
    return content if data[:HEADER_BYTES] == _checksum(path.name, content) else None


def is_whole(path: Path) -> bool:
    """Whether a cache entry is what was written under this name, for one that is too large to be read at once."""
    try:
        with path.open("rb") as file:
            wanted, found = file.read(HEADER_BYTES), _sum_of_name(path.name)
            while part := file.read(2**20):
                found.update(part)
    except OSError:
        return False
    return wanted == found.digest()


def write_entry(path: Path, content: bytes) -> None:
    """Writes a cache entry so that nobody ever sees half of it. Raises OSError; its folder has to be there."""
    part = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=_PART, delete=False) as file:
            part = Path(file.name)
            file.write(_checksum(path.name, content))
            file.write(content)
        part.replace(path)
    except BaseException:
        if part is not None:
            part.unlink(missing_ok=True)
        raise


def keep_entry(path: Path, content: bytes) -> None:
    """Writes a cache entry where that is possible: a cache saves time and nothing else."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        write_entry(path, content)


def remove_leftovers(folder: Path) -> None:
    """Takes away what processes that were killed left half-written in `folder`."""
    for part in folder.glob(f".*{_PART}"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _LEFTOVER_SECONDS:
                part.unlink()


def array_to_bytes(array: NDArray[Any]) -> bytes:
    """An array in numpy's own format, for an entry."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def array_from_bytes(content: bytes) -> NDArray[Any]:
    """What `array_to_bytes` wrote."""
    return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))


def _checksum(name: str, content: bytes) -> bytes:
    """Over the name too, so that an entry under another's name does not count."""
    found = _sum_of_name(name)
    found.update(content)
    return found.digest()


def _sum_of_name(name: str) -> hashlib._Hash:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape") + b"\0")
