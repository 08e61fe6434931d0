"""A scheme of one's own: pixels sent as they are, averaged until they fit, each user in its own channel uses."""

import math
from typing import ClassVar

import torch

from linksim import Received, Scheme, SideInfo

#: Radians between black and white; the rest of the circle keeps noise from turning one into the other.
SPAN = 1.5 * math.pi


class AnalogPixels(Scheme):
    """Uncoded analogue transmission of a small copy of the image; a value is a phase, so all symbols have full power.

    The receiver is told nothing: the size of the copy follows from the setting, which both ends know.
    """

    name: ClassVar[str] = "analog-pixels"
    summary: ClassVar[str] = "example plug-in: averaged pixels as phases, orthogonal channel uses"
    access = "oma"

    @property
    def small(self) -> int:
        """Side of the small copy in pixels."""
        return math.isqrt(super().symbols_per_user // self.setting.image_shape[0])

    @property
    def symbols_per_user(self) -> int:
        return self.setting.image_shape[0] * self.small**2

    def transmit(self, images: torch.Tensor, side: SideInfo) -> torch.Tensor:
        values = torch.nn.functional.adaptive_avg_pool2d(images.flatten(0, 1), self.small).flatten(1)
        symbols = torch.polar(torch.full_like(values, math.sqrt(self.powers[0])), SPAN * (values - 0.5))
        return symbols.unflatten(0, images.shape[:2])

    def receive(self, received: torch.Tensor, side: SideInfo) -> Received:
        channels, height, width = self.setting.image_shape
        values = self.equalise(received, side).symbols.angle() / SPAN + 0.5
        small = values.reshape(-1, channels, self.small, self.small)
        images = torch.nn.functional.interpolate(small, (height, width), mode="bilinear")
        return Received(images.clamp(0, 1).unflatten(0, values.shape[:2]))
