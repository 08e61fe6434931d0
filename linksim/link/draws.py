"""Random draws keyed by what they stand for, never by the order in which they are made.

Every draw is a function of (seed, stream, image group, user) alone: a counter-based generator (Philox) takes the seed
and the stream as its key, the group and the user as the high words of its counter. The same fading and the same unit
noise therefore meet every scheme at every SNR, whatever the batch size, the number of workers or the order of work, and
differences between schemes are paired.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Stream(IntEnum):
    """What a draw is for. The numbers are part of the results: never change or reuse one."""

    FADING = 1
    NOISE = 2
    CSI_ERROR = 3
    REFINER = 5


#: The "user" of draws that belong to a whole group: the noise of the multiple-access channel.
SHARED = 2**32


def generator(seed: int, stream: Stream, group: int, user: int = SHARED) -> np.random.Generator:
    """The generator of one (seed, stream, image group, user)."""
    return np.random.Generator(np.random.Philox(key=[seed, int(stream)], counter=[0, 0, user, group]))


def complex_normal(
    seed: int, stream: Stream, groups: Sequence[int], users: Sequence[int], size: int
) -> NDArray[np.complex64]:
    """Draws from CN(0, 1) (variance 1 per complex sample): complex64 [len(groups), len(users), size].

    A longer draw begins with the shorter one, so the noise at one bandwidth ratio is the start of that at a larger one.
    """
    out = np.empty((len(groups), len(users), size), np.complex64)
    for i, group in enumerate(groups):
        for j, user in enumerate(users):
            pairs = generator(seed, stream, group, user).standard_normal((size, 2), dtype=np.float32)
            out[i, j] = pairs.view(np.complex64)[:, 0]
    out *= np.float32(np.sqrt(0.5))
    return out
