"""Files that nobody ever sees half of, and folders that one process works in at a time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from linksim.errors import LinksimError

_PART = re.compile(r"\..+\.([0-9]+)\.part")

#: Seconds in which nobody wrote to a part that is taken away: a process of another machine may still be at it.
_STALE_SECONDS = 60.0


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file so that nobody ever sees half of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Raises LinksimError where no file can be written in a folder, there or not: before hours are spent."""
    near = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=near):
            pass
    except OSError as error:
        raise LinksimError(f"{folder} cannot be written ({error.strerror}): give another folder") from None


def is_part(path: Path) -> bool:
    """Whether a file is what `write_atomic` leaves when it is killed."""
    return _PART.fullmatch(path.name) is not None


def remove_parts(*folders: Path) -> None:
    """Takes away what killed processes left half-written. Only for a process that alone writes there."""
    for folder in folders:
        for path in filter(is_part, folder.glob(".*.part")):
            path.unlink(missing_ok=True)


def remove_stale_parts(*folders: Path) -> None:
    """Takes away what killed processes left half-written where others may be writing; what is not to be had stays."""
    for folder in folders:
        for path in folder.glob(".*.part"):
            with contextlib.suppress(OSError):
                made = _PART.fullmatch(path.name)
                if made and not _lives(int(made[1])) and time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        # Another user's.
        return True
    return True


@contextlib.contextmanager
def exclusive(path: Path, folder: Path) -> Iterator[None]:
    """Holds the lock file `path`. Raises LinksimError where another process works in `folder`."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LinksimError(f"{folder}: another process works there: wait for it or stop it") from None
    try:
        yield
    finally:
        lock.release()
