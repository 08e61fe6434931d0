"""The journal: one append-only file a worker, a line a unit, each with its checksum.

A line counts only when it is whole and its checksum holds. What a `kill -9` or a full disk leaves of a line is dropped
when the file is read, and cut off when it is opened again.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from linksim.errors import LinksimError

FOLDER = "journal"


def gone(folder: Path) -> LinksimError:
    """The error for a results folder that is no longer where it was."""
    return LinksimError(
        f"{folder} or its journal was moved or removed meanwhile: put it back and run the same command again"
    )


def _encode(record: dict[str, Any]) -> bytes:
    body = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _decode(line: bytes) -> dict[str, Any] | None:
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
        return None
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


class JournalWriter:
    """Appends records to one file; a record is on the disk when `append` returns. One writer a file at a time."""

    def __init__(self, path: Path) -> None:
        if not path.parent.is_dir():
            raise gone(path.parent.parent)
        if path.exists():
            _cut_broken_tail(path)
        self._path = path
        self._file: IO[bytes] = path.open("ab", buffering=0)

    def append(self, record: dict[str, Any]) -> None:
        """Writes one record.

        Raises:
            OSError: a full disk, a file that may not grow; what was written of the line is then taken back.
            LinksimError: the file was moved or removed.
        """
        line, start = _encode(record), os.fstat(self._file.fileno()).st_size
        try:
            # A write that came short says nothing; the next one says why.
            while line:
                written = self._file.write(line)
                if not written:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
                line = line[written:]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(start)
            error.filename = str(self._path)
            raise
        # An open file goes on taking records where nobody will look for them.
        here = os.fstat(self._file.fileno())
        try:
            there = self._path.stat()
        except OSError:
            raise gone(self._path.parent.parent) from None
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            raise gone(self._path.parent.parent)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _cut_broken_tail(path: Path) -> None:
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)


def read_file(path: Path) -> Iterator[dict[str, Any]]:
    """The whole records of one file, in order."""
    with path.open("rb") as file:
        for line in file:
            record = _decode(line)
            if record is not None:
                yield record


def read_folder(folder: Path) -> Iterator[dict[str, Any]]:
    """The whole records of every journal file in `folder`, files in order of their names."""
    for path in sorted(folder.glob("*.jsonl")):
        yield from read_file(path)


def results_by_unit(
    records: Iterable[dict[str, Any]],
    sweep: str,
    columns: Iterable[str] = (),
    counts: Callable[[dict[str, Any]], bool] = lambda record: True,
) -> dict[tuple[str, int, int], dict[str, Any]]:
    """Results of units of one sweep by (point key, start, stop); the first of several counts (they are equal).

    Args:
        sweep: hash of the sweep's identity; records of another sweep do not count.
        columns: per-image metrics that each stage must have; a record without them does not count either.
        counts: asked of each whole record of the sweep, for what else it must have.
    """
    found: dict[tuple[str, int, int], dict[str, Any]] = {}
    asked = ("mse", *columns)
    for record in records:
        if record.get("sweep") == sweep and _whole(record, asked) and counts(record):
            found.setdefault((record["point"], record["start"], record["stop"]), record)
    return found


_NUMBER = (int, float)
_KINDS: dict[str, tuple[type, ...]] = {
    "point": (str,), "start": (int,), "stop": (int,), "stages": (dict,), "refinement": (dict,), "blocks": (int,),
    "block_errors": (int,), "channel_uses": (int,), "user_uses": (int,), "split": (str,), "power_note": (str,),
    "seconds": (dict,), "lost": (list, type(None)), "tx_power": (*_NUMBER, type(None)),
}  # fmt: skip


def _whole(record: dict[str, Any], columns: Sequence[str]) -> bool:
    """Whether a record has all that the tables are made of."""
    if not all(key in record and isinstance(record[key], kinds) for key, kinds in _KINDS.items()):
        return False
    groups = record["stop"] - record["start"]
    stages = record["stages"].values()
    tables = [stage.get(column) for stage in stages for column in columns if isinstance(stage, dict)]
    return (
        groups > 0
        and len(tables) == len(stages) * len(columns) > 0
        and all(isinstance(table, list) and len(table) == groups for table in tables)
        and all(isinstance(seconds, _NUMBER) for seconds in record["seconds"].values())
        and (len(stages) == 1 or "refine" in record["seconds"])
    )
