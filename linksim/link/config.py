"""What a link is, and what each of its ends knows of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from linksim.link.units import channel_uses

if TYPE_CHECKING:
    from torch import Tensor

Access = Literal["noma", "oma"]
PowerConvention = Literal["sum", "per-ue"]
Precision = Literal["float32", "bf16"]

#: Users that one base station serves at once.
MAX_USERS = 8


@dataclass(frozen=True)
class LinkConfig:
    """The link between N users and the base station, all but the SNR.

    Args:
        channel: name of the fading ("awgn", "rayleigh", "rician").
        users: N, users that send at once.
        power: "sum", P_avg / N a user where all send at once (released code), or "per-ue", P_avg each (eq. 2).
        rician_k_db: Rician K factor in dB; read by "rician" alone.
        csi_error_var: variance of the channel estimate's error, h_est = h + e with e ~ CN(0, var); 0 is perfect CSI.
    """

    channel: str
    users: int
    power: PowerConvention = "sum"
    rician_k_db: float = 6.0
    csi_error_var: float = 0.0


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
        snr_db: gamma, float32 [B].
        noise_var: sigma^2 per complex symbol, float32 [B].
        h: every user's coefficient as this end estimates it, complex64 [B, N]; all ones over AWGN.
        draws: (seed, image groups [B]) for a scheme that draws at random: keyed with them,
            `linksim.link.draws.generator` keeps a run reproducible.
    """

    snr_db: Tensor
    noise_var: Tensor
    h: Tensor
    draws: tuple[int, tuple[int, ...]] = (0, ())
