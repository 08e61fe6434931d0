"""What a server need not do twice: encoders' symbols, where they follow from the image."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from linksim.engine.variants import Variant
from linksim.schemes.base import Scheme
from linksim.serve.work import Served, system_of

#: Bytes of an entry beside its symbols.
_ENTRY_BYTES = 256


class Symbols:
    """What was sent, by image, scheme and what else the symbols follow from; noise and fading are new every time.

    Args:
        served: what is served.
        most_bytes: that are kept; 0 keeps nothing.

    Example:
        >>> from linksim.engine.config import make_config
        >>> served = Served(make_config({"scheme": "klt", "users": 1, "groups": 1, "metrics": "psnr"}))
        >>> kept = Symbols(served, 2**20)
        >>> kept.keys(served.config.variants[0], "awgn", 10.0, [np.zeros((3, 32, 32), np.uint8)]) is None
        True
    """

    def __init__(self, served: Served, most_bytes: int) -> None:
        self._served, self._most = served, most_bytes
        self._kept: LRUCache[Hashable, NDArray[np.complex64]] = LRUCache(
            max(1, most_bytes), getsizeof=lambda symbols: symbols.nbytes + _ENTRY_BYTES
        )

    def keys(
        self, variant: Variant, channel: str, snr_db: float, images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
    ) -> list[Hashable] | None:
        """A key for what each user of a group sends; None where it follows from more than images and SNR."""
        if not self._most:
            return None
        shape = images[0].shape
        system = system_of(self._served, variant, channel, shape)
        follow = system.symbols_follow_from(snr_db) if isinstance(system, Scheme) else None
        if follow is None:
            return None
        return [(variant, channel, shape, follow, user, digest_of(image)) for user, image in enumerate(images)]

    def known(self, keys: Sequence[Hashable] | None) -> NDArray[np.complex64] | None:
        """What the users of a group send, complex64 [N, k], where it was sent before."""
        found = [self._kept.get(key) for key in keys or []]
        sent = [symbols for symbols in found if symbols is not None]
        return np.stack(sent) if sent and len(sent) == len(found) else None

    def keep(self, keys: Sequence[Hashable] | None, symbols: NDArray[np.complex64]) -> None:
        """Keeps what the users of a group sent, complex64 [N, k]."""
        for key, sent in zip(keys or [], symbols, strict=False):
            if sent.nbytes + _ENTRY_BYTES <= self._most:
                self._kept[key] = sent.copy()


def digest_of(image: NDArray[np.uint8]) -> bytes:
    """SHA-256 of an image's pixels."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()
