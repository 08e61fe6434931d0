"""Encodings kept on disk, so that an image is encoded once for all budgets, points and runs."""

import contextlib
import hashlib
import os
import sqlite3
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cachetools import LRUCache

from baselines.codecs.codec import Image
from linksim.paths import cache_dir

_SCHEMA_VERSION = 2
_BUSY_SECONDS = 60.0
_ROW_OVERHEAD_BYTES = 200

_SCHEMA = """
CREATE TABLE IF NOT EXISTS codecs (id INTEGER PRIMARY KEY, settings TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS streams (
    codec INTEGER NOT NULL,
    image BLOB NOT NULL,
    scale INTEGER NOT NULL,
    quality INTEGER NOT NULL,
    mse REAL NOT NULL,
    stream BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (codec, image, scale, quality)
);
"""

T = TypeVar("T")


def default_path() -> Path:
    """Where the streams are kept unless a path is given: in the cache folder."""
    return cache_dir() / "streams.sqlite"


def image_key(image: Image) -> bytes:
    """16 bytes that name an image: a hash of its shape and pixels."""
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()


@dataclass(frozen=True, slots=True)
class Row:
    """One encoding.

    Attributes:
        stream: as the codec counts it.
        mse: mean squared error, in 8-bit steps, of the decoded image at full size against the original.
    """

    stream: bytes
    mse: float


Rows = Mapping[int, Row]
"""The encodings of one image at one scale, by quality."""


_warned: set[Path] = set()

_inherited: list[sqlite3.Connection] = []
"""Connections of another process or thread: after a fork, sqlite forbids a child to use or to close them."""


class StreamCache:
    """Encodings by (codec settings, image, scale, quality): in memory, and in one sqlite file.

    Any number of processes share a file. A file that cannot be opened, read or written never stops a run: one
    warning says so, and the cache goes on in memory.

    Args:
        path: the file; None keeps everything in memory.
        memory_bytes: bound on what is held in memory; the least recently used images go first.
    """

    def __init__(self, path: Path | None, memory_bytes: int = 256 << 20) -> None:
        self.path = path
        self._memory: LRUCache[tuple[str, bytes, int], dict[int, Row]] = LRUCache(memory_bytes, _size)
        self._connection: sqlite3.Connection | None = None
        self._owner = (0, 0)
        self._readable = self._writable = path is not None

    def __reduce__(self) -> tuple[type["StreamCache"], tuple[Path | None, int]]:
        return StreamCache, (self.path, int(self._memory.maxsize))

    def get(self, settings: str, image: bytes, scale: int) -> Rows:
        """What is known of an image (its `image_key`) at a scale; later `put` calls do not change the answer."""
        key = (settings, image, scale)
        rows = self._memory.get(key)
        if rows is None:
            rows = self._read(settings, image, scale)
            self._remember(key, rows)
        return dict(rows)

    def put(self, settings: str, rows: Iterable[tuple[bytes, int, int, Row]]) -> None:
        """Add rows (image key, scale, quality, row), in one transaction on disk; known ones stay as they are."""
        rows = list(rows)
        by_image: dict[tuple[bytes, int], dict[int, Row]] = {}
        for image, scale, quality, row in rows:
            by_image.setdefault((image, scale), {})[quality] = row
        for (image, scale), new in by_image.items():
            self._remember((settings, image, scale), {**new, **self.get(settings, image, scale)})
        if rows and self._writable:
            self._write(settings, rows)

    def close(self) -> None:
        """Close the file; the cache opens it again when it is used again."""
        if self._connection is not None and self._owner == _this_thread():
            self._connection.close()
            self._connection = None

    def _remember(self, key: tuple[str, bytes, int], rows: dict[int, Row]) -> None:
        # What is larger than all of the room is not kept.
        with contextlib.suppress(ValueError):
            self._memory[key] = rows

    def _read(self, settings: str, image: bytes, scale: int) -> dict[int, Row]:
        if not self._readable:
            return {}
        try:
            connection = self._open()
            found = connection.execute(
                "SELECT quality, stream, mse, checksum FROM streams JOIN codecs ON codec = id"
                " WHERE settings = ? AND image = ? AND scale = ?",
                (settings, image, scale),
            )
            rows = [(quality, Row(bytes(stream), mse), checksum) for quality, stream, mse, checksum in found]
            # What was altered on the disk is encoded again.
            return {quality: row for quality, row, checksum in rows if _checksum(row) == checksum}
        except (sqlite3.Error, OSError) as error:
            self._readable = False
            self._give_up(error)
            return {}

    def _write(self, settings: str, rows: list[tuple[bytes, int, int, Row]]) -> None:
        try:
            connection = self._open()
            _when_unlocked(lambda: connection.execute("BEGIN IMMEDIATE"))
            try:
                connection.execute("INSERT OR IGNORE INTO codecs (settings) VALUES (?)", (settings,))
                connection.executemany(
                    "INSERT OR REPLACE INTO streams (codec, image, scale, quality, mse, stream, checksum)"
                    " SELECT id, ?, ?, ?, ?, ?, ? FROM codecs WHERE settings = ?",
                    [(*key, row.mse, row.stream, _checksum(row), settings) for *key, row in rows],
                )
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Write nothing more to the file; what can be read of it is still read."""
        self._writable = False
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            way_out = "delete that file, or set LINKSIM_CACHE to another folder"
        else:
            way_out = "set LINKSIM_CACHE to a folder that can be written"
        assert self.path is not None
        if self.path not in _warned:
            _warned.add(self.path)
            message = f"encoded images are kept in memory only, {self.path} is of no use ({error}): {way_out}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._owner != _this_thread():
            _inherited.append(self._connection)
            self._connection = None
        if self._connection is None:
            assert self.path is not None
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
            # Processes that start together would refuse each other the change of journal mode without waiting.
            _when_unlocked(lambda: connection.execute("PRAGMA journal_mode = WAL"))
            connection.execute("PRAGMA synchronous = NORMAL")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _SCHEMA_VERSION):
                raise sqlite3.DatabaseError(f"format {version}, this linksim writes {_SCHEMA_VERSION}")
            if version == 0:
                _when_unlocked(lambda: connection.executescript(_SCHEMA))
                _when_unlocked(lambda: connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}"))
            self._connection, self._owner = connection, _this_thread()
        return self._connection


def _checksum(row: Row) -> int:
    return zlib.crc32(row.stream, zlib.crc32(struct.pack("<d", row.mse)))


def _size(rows: Rows) -> int:
    return sum(len(row.stream) + _ROW_OVERHEAD_BYTES for row in rows.values())


def _this_thread() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def _when_unlocked(act: Callable[[], T]) -> T:
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            return act()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
