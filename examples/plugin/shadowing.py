"""A channel of one's own: log-normal shadowing in front of block Rayleigh fading (Suzuki fading)."""

import math
from typing import ClassVar

import torch
from pydantic import Field

from linksim import Channel, ChannelParams
from linksim.link.draws import Draws, Stream


class SuzukiParams(ChannelParams):
    """Parameters: `--channel suzuki:spread_db=8`."""

    spread_db: float = Field(6.0, ge=0, le=40, description="standard deviation of the shadowing in dB")


class Suzuki(Channel):
    """Rayleigh fading whose mean power is itself random, in dB a Gaussian; E|h|^2 = 1."""

    name: ClassVar[str] = "suzuki"
    summary: ClassVar[str] = "example plug-in: Rayleigh fading behind log-normal shadowing"
    Params: ClassVar[type[ChannelParams]] = SuzukiParams
    # Learned schemes may run on weights that were trained over Rayleigh fading.
    trained_as: ClassVar[str | None] = "rayleigh"

    def coefficients(self, draws: Draws, uses: int) -> torch.Tensor:
        users, antennas = range(self.link.users), self.link.antennas
        # Antennas share the shadow, which is the second draw of the first of them, and scatter each for itself.
        scattered = draws.normals(Stream.FADING, users, 2, antennas)
        shadow = scattered[:, :1, :, 1:].real
        spread = self.params.spread_db * math.log(10) / 10
        # A draw's real part has variance 1/2; the mean of a log-normal power is taken out.
        power = (spread * math.sqrt(2) * shadow - spread**2 / 2).exp()
        return scattered[..., :1] * power.sqrt()
