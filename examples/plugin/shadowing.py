"""A channel of one's own: log-normal shadowing in front of block Rayleigh fading (Suzuki fading)."""

import math
from typing import ClassVar

import torch

from linksim import Channel
from linksim.link.draws import Draws, Stream

#: Standard deviation of the shadowing in dB.
SPREAD_DB = 6.0


class Suzuki(Channel):
    """Rayleigh fading whose mean power is itself random, in dB a Gaussian; E|h|^2 = 1."""

    name: ClassVar[str] = "suzuki"
    summary: ClassVar[str] = "example plug-in: Rayleigh fading behind log-normal shadowing of 6 dB"
    # Learned schemes may run on weights that were trained over Rayleigh fading.
    trained_as: ClassVar[str | None] = "rayleigh"

    def coefficients(self, draws: Draws) -> torch.Tensor:
        scattered, shadow = draws.normal(Stream.FADING, range(self.link.users), 2).unbind(-1)
        spread = SPREAD_DB * math.log(10) / 10
        # A draw's real part has variance 1/2; the mean of a log-normal power is taken out.
        power = (spread * math.sqrt(2) * shadow.real - spread**2 / 2).exp()
        return scattered * power.sqrt()
