"""Which test images meet in one group of users."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from linksim.errors import LinksimError
from linksim.link.config import MAX_USERS


@dataclass(frozen=True)
class Grouping:
    """The test set, split into `users` contiguous parts of equal length that are zipped into groups.

    Group g holds the images g, G + g, 2G + g, ... with G the number of groups (KDD paper, section VI: the test set is
    split into N non-overlapping parts, one a user). Every image but the `left_out` last ones is sent exactly once.

    Args:
        n_images: images in the test set.
        users: N, users that send at once, 1 to 8.

    Raises:
        LinksimError: `users` outside 1 to 8, or fewer images than users.
    """

    n_images: int
    users: int

    def __post_init__(self) -> None:
        if not 1 <= self.users <= MAX_USERS:
            raise LinksimError(f"{self.users} users: choose 1 to {MAX_USERS} (--users)")
        if self.n_images < self.users:
            raise LinksimError(
                f"{self.n_images} images cannot serve {self.users} users: give more images, or fewer users (--users)"
            )

    @property
    def n_groups(self) -> int:
        """G, the number of whole groups."""
        return self.n_images // self.users

    @property
    def left_out(self) -> int:
        """Images at the end of the set that fill no group."""
        return self.n_images - self.n_groups * self.users

    def indices(self, groups: slice | ArrayLike) -> NDArray[np.int64]:
        """Image indices [B, N] of the given groups, in the given order.

        Args:
            groups: a slice over the groups, or their numbers [B].

        Raises:
            IndexError: a group number outside 0..n_groups-1.
        """
        every = np.arange(self.n_groups)
        chosen = every[groups] if isinstance(groups, slice) else every[np.asarray(groups, dtype=np.int64).reshape(-1)]
        return chosen[:, None] + self.n_groups * np.arange(self.users)
