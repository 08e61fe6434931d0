"""Fading: what a channel is, and the channels that linksim brings."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from linksim.link.config import LinkConfig
from linksim.link.draws import Draws, Stream
from linksim.link.units import db_to_linear
from linksim.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


class Channel(ABC):
    """How signals fade between the users and the base station: one coefficient a user and image group (block fading).

    Sweeps, training and validation draw through the same object. Generating is its part; applying it to symbols and
    adding the noise are `linksim.link.channel`'s.

    Class attributes:
        name: as in `--channel` and in the table.
        summary: one line for `linksim list channels`.
        fades: whether h differs from 1, so that there is something to tell the users beside the SNR.
        trained_as: the channel whose weights serve learned schemes here; None: weights of its own, which `linksim train
            --channel NAME` makes.

    Example:
        >>> from linksim.link.draws import KeyedDraws
        >>> Rayleigh(LinkConfig("rayleigh", users=2)).coefficients(KeyedDraws(seed=0, indices=range(3))).shape
        torch.Size([3, 2])
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    fades: ClassVar[bool] = True
    trained_as: ClassVar[str | None] = None

    def __init__(self, link: LinkConfig) -> None:
        """Args:
        link: number of users, and the parameters that the channel reads.
        """
        self.link = link

    @abstractmethod
    def coefficients(self, draws: Draws) -> Tensor:
        """h of every user of every group, complex64 [B, N] on the draws' device; E|h|^2 = 1.

        Args:
            draws: for B image groups; whatever is random is drawn from `Stream.FADING`, by user.
        """


class Awgn(Channel):
    """Additive white Gaussian noise alone."""

    name: ClassVar[str] = "awgn"
    summary: ClassVar[str] = "additive white Gaussian noise, h = 1"
    fades: ClassVar[bool] = False

    def coefficients(self, draws: Draws) -> Tensor:
        """See `Channel`."""
        import torch

        return torch.ones(draws.groups, self.link.users, dtype=torch.complex64, device=draws.device)


class Rayleigh(Channel):
    """Block Rayleigh fading (KDD paper, section III)."""

    name: ClassVar[str] = "rayleigh"
    summary: ClassVar[str] = "block Rayleigh fading, h ~ CN(0, 1) a user and image group"

    def coefficients(self, draws: Draws) -> Tensor:
        """See `Channel`."""
        return draws.normal(Stream.FADING, range(self.link.users), 1)[..., 0]


class Rician(Rayleigh):
    """Block Rician fading: a line of sight of phase 0 beside Rayleigh's scattered part."""

    name: ClassVar[str] = "rician"
    summary: ClassVar[str] = "block Rician fading with K factor --rician-k dB, line of sight of phase 0"
    # What was trained over Rayleigh fading has met every h.
    trained_as: ClassVar[str | None] = "rayleigh"

    def coefficients(self, draws: Draws) -> Tensor:
        """See `Channel`."""
        import torch

        k = db_to_linear(self.link.rician_k_db)
        scattered = super().coefficients(draws).to(torch.complex128)
        return (math.sqrt(k / (k + 1)) + math.sqrt(1 / (k + 1)) * scattered).to(torch.complex64)


#: Every channel by name; plug-ins by the entry-point group `linksim.channels` or `register_channel`.
CHANNELS: Registry[Channel] = Registry(
    "channel",
    "linksim.channels",
    lambda: Channel,
    "Channel",
    builtin={kind.name: kind for kind in (Awgn, Rayleigh, Rician)},
)


def register(channel: type[Channel]) -> type[Channel]:
    """Adds a channel for this process (a notebook, a test); installed plug-ins use an entry point.

    Raises LinksimError when the name is taken.
    """
    return CHANNELS.register(channel)
