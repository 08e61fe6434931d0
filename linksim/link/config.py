"""What a link is, and what each of its ends knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from linksim.errors import LinksimError
from linksim.link.units import channel_uses

if TYPE_CHECKING:
    from torch import Tensor

Access = Literal["noma", "oma"]
PowerConvention = Literal["sum", "per-ue"]
Precision = Literal["float32", "bf16"]
Detector = Literal["lmmse", "zf", "mf"]

#: Users that one base station serves at once.
MAX_USERS = 8

#: SNR in dB, up or down, and variance of a channel estimate's error: what goes beyond is a slip of the pen.
MAX_DB, MAX_CSI_ERROR = 200.0, 100.0

#: Receive antennas of a base station.
MAX_ANTENNAS = 64


@dataclass(frozen=True)
class LinkConfig:
    """The link between N users and the base station, all but the SNR.

    Args:
        channel: name of the fading with its parameters: "awgn", "rayleigh", "tdl-c:delay_spread=3e-07".
        users: N, users that send at once, with one antenna each.
        power: "sum", P_avg / N a user where all send at once (released code), or "per-ue", P_avg each (eq. 2).
        csi_error_var: variance of the channel estimate's error, h_est = h + e with e ~ CN(0, var); 0 is perfect CSI.
        antennas: M, receive antennas of the base station.
        detector: what tells the users apart for a scheme that asks for equalised symbols.

    Example:
        >>> LinkConfig("rayleigh", users=3, antennas=3).power
        'sum'
    """

    channel: str
    users: int
    power: PowerConvention = "sum"
    csi_error_var: float = 0.0
    antennas: int = 1
    detector: Detector = "lmmse"


@dataclass(frozen=True)
class Setting:
    """All that a scheme may know before the first image comes: the link, the images' shape and the bandwidth.

    Args:
        link: the link.
        image_shape: (C, H, W).
        rho: the system's bandwidth ratio k / m.
        train_mean: mean colour of the training set, one value in [0, 1] a channel.
        device: torch device that evaluates.
        precision: of the networks' arithmetic.

    Example:
        >>> Setting(LinkConfig("awgn", 2), (3, 32, 32), Fraction(1, 6)).channel_uses
        512
    """

    link: LinkConfig
    image_shape: tuple[int, int, int]
    rho: Fraction
    train_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    device: str = "cpu"
    precision: Precision = "float32"
    channel_uses: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "channel_uses", channel_uses(self.rho, self.image_shape))


@dataclass(frozen=True)
class SideInfo:
    """What one end of the link knows of the channel while it works.

    Args:
        snr_db: gamma, float32 [B]; per receive antenna.
        noise_var: sigma^2 per complex symbol and receive antenna, float32 [B].
        h: coefficients from every user to every antenna as this end estimates them, complex64 [B, M, N, T]. T is 1
            where a coefficient holds for a whole image group (block fading), else one a symbol that a user sends.
        draws: (seed, image groups [B]) for a scheme that draws at random: keyed with them,
            `linksim.link.draws.generator` keeps a run reproducible.

    Example:
        >>> import torch
        >>> side = SideInfo(torch.tensor([10.0]), torch.tensor([0.1]), torch.ones(1, 1, 2, 1) + 0j)
        >>> side.flat, side.h_flat.shape
        (True, torch.Size([1, 2]))
    """

    snr_db: Tensor
    noise_var: Tensor
    h: Tensor
    draws: tuple[int, tuple[int, ...]] = (0, ())

    def part(self, rows: Sequence[int]) -> SideInfo:
        """Of some groups, by their rows here; a copy.

        Example:
            >>> import torch
            >>> side = SideInfo(torch.arange(3.0), torch.ones(3), torch.ones(3, 1, 2, 1) + 0j, (0, (5, 6, 7)))
            >>> side.part([2, 0]).draws
            (0, (7, 5))
        """
        index, (seed, groups) = list(rows), self.draws
        keyed = seed, tuple(groups[row] for row in rows)
        return SideInfo(self.snr_db[index], self.noise_var[index], self.h[index], keyed)

    @property
    def flat(self) -> bool:
        """Whether there is one antenna and one coefficient a user and image group."""
        return self.h.shape[1] == self.h.shape[3] == 1

    @property
    def received_db(self) -> Tensor:
        """SNR at which each user is received in dB, [B, N]: gamma times the power of h, over all antennas.

        The mean over the symbols, where h changes.

        Example:
            >>> import torch
            >>> SideInfo(torch.tensor([10.0]), torch.tensor([0.1]), torch.tensor([[[[1 + 0j], [0.1j]]]])).received_db
            tensor([[ 10., -10.]])
        """
        gain = self.h.abs().square().sum(1).mean(-1)
        return self.snr_db.to(gain.device)[:, None] + 10 * gain.clamp_min(1e-30).log10()

    @property
    def h_flat(self) -> Tensor:
        """h of every user where the channel is flat, complex64 [B, N]; all ones over AWGN.

        Raises:
            LinksimError: there are several antennas, or h changes from symbol to symbol.

        Example:
            >>> import torch
            >>> SideInfo(torch.zeros(2), torch.ones(2), torch.ones(2, 1, 3, 1) + 0j).h_flat.shape
            torch.Size([2, 3])
        """
        if not self.flat:
            antennas, coefficients = self.h.shape[1], self.h.shape[3]
            raise LinksimError(
                f"one coefficient a user is wanted, {antennas} antennas with {coefficients} coefficients each are "
                "there: a scheme that asks for equalised symbols (Scheme.equalise) works with them"
            )
        return self.h[:, 0, :, 0]
