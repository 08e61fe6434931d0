"""Random draws keyed by what they stand for, never by the order in which they are made.

Every draw is a function of (seed, stream, image group, user, antenna) alone: a counter-based generator (Philox) takes
the seed and the stream as its key, the others as the high words of its counter. The same fading and the same unit
noise therefore meet every scheme at every SNR, whatever the batch size, the number of workers or the order of work, and
differences between schemes are paired.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Stream(IntEnum):
    """What a draw is for. The numbers are part of the results: never change or reuse one."""

    FADING = 1
    NOISE = 2
    CSI_ERROR = 3
    REFINER = 5


#: The "user" of draws that belong to a whole group: the noise of the multiple-access channel.
SHARED = 2**32


def generator(seed: int, stream: Stream, group: int, user: int = SHARED, antenna: int = 0) -> np.random.Generator:
    """The generator of one (seed, stream, image group, user, antenna)."""
    return np.random.Generator(np.random.Philox(key=[seed, int(stream)], counter=[0, antenna, user, group]))


def complex_normal(
    seed: int, stream: Stream, groups: Sequence[int], users: Sequence[int], size: int, antenna: int = 0
) -> NDArray[np.complex64]:
    """Draws from CN(0, 1) (variance 1 per complex sample): complex64 [len(groups), len(users), size].

    A longer draw begins with the shorter one, so the noise at one bandwidth ratio is the start of that at a larger one.
    """
    out = np.empty((len(groups), len(users), size), np.complex64)
    for i, group in enumerate(groups):
        for j, user in enumerate(users):
            pairs = generator(seed, stream, group, user, antenna).standard_normal((size, 2), dtype=np.float32)
            out[i, j] = pairs.view(np.complex64)[:, 0]
    out *= np.float32(np.sqrt(0.5))
    return out


class Draws(ABC):
    """Where the random numbers of B image groups come from: a channel draws from it, whatever it is.

    Attributes:
        device: torch device of what is drawn.
    """

    device: torch.device | str

    @property
    @abstractmethod
    def groups(self) -> int:
        """B, image groups."""

    @abstractmethod
    def normal(self, stream: Stream, users: Sequence[int], size: int, antenna: int = 0) -> Tensor:
        """Draws from CN(0, 1), complex64 [B, len(users), size].

        Args:
            stream: what the draw is for.
            users: whom it belongs to; `[SHARED]` for what belongs to the whole group.
            size: draws for each.
            antenna: receive antenna that it belongs to.
        """

    @abstractmethod
    def seeds(self, stream: Stream, users: Sequence[int]) -> NDArray[np.int64]:
        """A seed for a generator of another library, for every group and user, int64 [B, len(users)]."""

    def normals(self, stream: Stream, users: Sequence[int], size: int, antennas: int) -> Tensor:
        """Draws from CN(0, 1) for every antenna, complex64 [B, antennas, len(users), size]; see `normal`."""
        import torch

        return torch.stack([self.normal(stream, users, size, antenna) for antenna in range(antennas)], dim=1)


@dataclass(frozen=True)
class KeyedDraws(Draws):
    """Draws keyed by seed and image group, as in a sweep: the same for every scheme, SNR, batch and worker.

    Args:
        seed: of the sweep.
        indices: the image groups.
        device: torch device.

    Example:
        >>> first, both = KeyedDraws(0, [7]), KeyedDraws(0, [3, 7])
        >>> bool((first.normal(Stream.FADING, [0], 4) == both.normal(Stream.FADING, [0], 4)[1:]).all())
        True
    """

    seed: int
    indices: Sequence[int]
    device: str = "cpu"

    @property
    def groups(self) -> int:
        """See `Draws`."""
        return len(self.indices)

    def normal(self, stream: Stream, users: Sequence[int], size: int, antenna: int = 0) -> Tensor:
        """See `Draws`."""
        import torch

        drawn = complex_normal(self.seed, stream, self.indices, users, size, antenna)
        return torch.from_numpy(drawn).to(self.device)

    def seeds(self, stream: Stream, users: Sequence[int]) -> NDArray[np.int64]:
        """See `Draws`."""
        drawn = [
            [generator(self.seed, stream, group, user).integers(2**62) for user in users] for group in self.indices
        ]
        return np.array(drawn, np.int64).reshape(len(self.indices), len(users))


@dataclass(frozen=True)
class FreshDraws(Draws):
    """Draws from torch's own generator, as in training: new ones at every call.

    Args:
        count: B, image groups.
        device: torch device.
    """

    count: int
    device: torch.device | str = "cpu"

    @property
    def groups(self) -> int:
        """See `Draws`."""
        return self.count

    def normal(self, stream: Stream, users: Sequence[int], size: int, antenna: int = 0) -> Tensor:
        """See `Draws`."""
        import torch

        return torch.randn(self.count, len(users), size, dtype=torch.complex64, device=self.device)

    def seeds(self, stream: Stream, users: Sequence[int]) -> NDArray[np.int64]:
        """See `Draws`."""
        import torch

        return torch.randint(2**62, (self.count, len(users))).numpy()
