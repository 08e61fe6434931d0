"""The journal: one append-only file a worker, a line a unit, each with its checksum.

A line counts only when it is whole and its checksum holds. What a `kill -9` or a full disk leaves of a line is dropped
when the file is read, and cut off when it is opened again.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

FOLDER = "journal"


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
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _cut_broken_tail(path)
        self._file: IO[bytes] = path.open("ab", buffering=0)

    def append(self, record: dict[str, Any]) -> None:
        """Writes one record. Raises OSError (a full disk); what was written of the line is then taken back."""
        line, start = _encode(record), os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line) != len(line):
                raise OSError(28, os.strerror(28))
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(start)
            raise

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


def results_by_unit(records: Iterable[dict[str, Any]], sweep: str) -> dict[tuple[str, int, int], dict[str, Any]]:
    """Results of units of one sweep by (point key, start, stop); the first of several counts (they are equal).

    Args:
        sweep: hash of the sweep's identity; records of another sweep do not count.
    """
    found: dict[tuple[str, int, int], dict[str, Any]] = {}
    for record in records:
        point, start, stop = (record.get(key) for key in ("point", "start", "stop"))
        parts = isinstance(record.get("stages"), dict) and isinstance(record.get("refinement"), dict)
        whole = parts and isinstance(start, int) and isinstance(stop, int)
        if record.get("sweep") == sweep and whole and isinstance(point, str):
            found.setdefault((point, start, stop), record)  # type: ignore[arg-type]
    return found
