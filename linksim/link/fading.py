"""Fading: what a channel is, and the channels that linksim brings."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from linksim.link.config import LinkConfig
from linksim.link.draws import Draws, Stream
from linksim.link.units import db_to_linear

if TYPE_CHECKING:
    from torch import Tensor


class ChannelParams(BaseModel):
    """Parameters of a channel (`--channel name:key=value`).

    Example:
        >>> class Own(ChannelParams):
        ...     k_db: float = 3.0
        >>> Own().k_db
        3.0
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class Channel(ABC):
    """How signals fade between the users' antennas and those of the base station.

    Sweeps, training and validation draw through the same object. Generating is its part; applying it to symbols and
    adding the noise are `linksim.link.channel`'s.

    Class attributes:
        name: as in `--channel` and in the table.
        summary: one line for `linksim list channels`.
        Params: its parameters.
        fades: whether h differs from 1, so that there is something to tell the users beside the SNR.
        block: whether h holds for a whole image group; else there is one a symbol.
        trained_as: the channel whose weights serve learned schemes here; None: weights of its own, which `linksim train
            --channel NAME` makes.

    Example:
        >>> from linksim.link.draws import KeyedDraws
        >>> channel = Rayleigh(LinkConfig("rayleigh", users=2, antennas=4), ChannelParams())
        >>> channel.coefficients(KeyedDraws(seed=0, indices=range(3)), uses=8).shape
        torch.Size([3, 4, 2, 1])
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    Params: ClassVar[type[ChannelParams]] = ChannelParams
    fades: ClassVar[bool] = True
    block: ClassVar[bool] = True
    trained_as: ClassVar[str | None] = None

    def __init__(self, link: LinkConfig, params: Any) -> None:
        """Args:
        link: number of users and of antennas.
        params: of the class's own `Params`.
        """
        self.link, self.params = link, params

    @abstractmethod
    def coefficients(self, draws: Draws, uses: int) -> Tensor:
        """h from every user to every antenna, complex64 [B, M, N, T] on the draws' device; E|h|^2 = 1.

        T is 1 for a `block` channel, else `uses`.

        Args:
            draws: for B image groups; whatever is random is drawn from `Stream.FADING`, by user and antenna.
            uses: channel uses of the system for one image group.
        """


class Awgn(Channel):
    """Additive white Gaussian noise alone.

    One antenna hears every user alike. Of M antennas, user i is heard by antenna i modulo M alone: with as many
    antennas as users H is the identity, since with ones everywhere no number of antennas could tell the users apart.
    """

    name: ClassVar[str] = "awgn"
    summary: ClassVar[str] = "additive white Gaussian noise, h = 1; of several antennas each user is heard by its own"
    fades: ClassVar[bool] = False

    def coefficients(self, draws: Draws, uses: int) -> Tensor:
        """See `Channel`."""
        import torch

        antennas, users = self.link.antennas, self.link.users
        heard = torch.arange(users) % antennas == torch.arange(antennas)[:, None]
        return heard.to(torch.complex64)[None, :, :, None].repeat(draws.groups, 1, 1, 1).to(draws.device)


class Rayleigh(Channel):
    """Block Rayleigh fading (KDD paper, section III), independent from antenna to antenna."""

    name: ClassVar[str] = "rayleigh"
    summary: ClassVar[str] = "block Rayleigh fading, h ~ CN(0, 1) a user, antenna and image group"

    def coefficients(self, draws: Draws, uses: int) -> Tensor:
        """See `Channel`."""
        return draws.normals(Stream.FADING, range(self.link.users), 1, self.link.antennas)


class RicianParams(ChannelParams):
    """Parameters of Rician fading."""

    k_db: float = Field(6.0, ge=-200, le=200, description="K factor, line of sight over scattered power, in dB")


class Rician(Rayleigh):
    """Block Rician fading: a line of sight of phase 0 beside Rayleigh's scattered part."""

    name: ClassVar[str] = "rician"
    summary: ClassVar[str] = "block Rician fading, line of sight of phase 0 at every antenna"
    Params: ClassVar[type[ChannelParams]] = RicianParams
    # What was trained over Rayleigh fading has met every h.
    trained_as: ClassVar[str | None] = "rayleigh"

    def coefficients(self, draws: Draws, uses: int) -> Tensor:
        """See `Channel`."""
        import torch

        k = db_to_linear(self.params.k_db)
        scattered = super().coefficients(draws, uses).to(torch.complex128)
        return (math.sqrt(k / (k + 1)) + math.sqrt(1 / (k + 1)) * scattered).to(torch.complex64)


class RayleighFast(Channel):
    """Rayleigh fading that is new at every symbol: ideal interleaving over a long time."""

    name: ClassVar[str] = "rayleigh-fast"
    summary: ClassVar[str] = "fast Rayleigh fading, h ~ CN(0, 1) a user, antenna and symbol"
    block: ClassVar[bool] = False
    trained_as: ClassVar[str | None] = "rayleigh"

    def coefficients(self, draws: Draws, uses: int) -> Tensor:
        """See `Channel`."""
        return draws.normals(Stream.FADING, range(self.link.users), uses, self.link.antennas)
