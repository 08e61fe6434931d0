"""A scheme of one's own: pixels sent as they are, averaged until they fit, each user in its own channel uses."""

import math
from typing import ClassVar

import torch

from linksim import Received, Scheme, SideInfo


class AnalogPixels(Scheme):
    """Uncoded analogue transmission of a small copy of the image; the simplest scheme that degrades gracefully."""

    name: ClassVar[str] = "analog-pixels"
    summary: ClassVar[str] = "example plug-in: averaged pixels as symbols, orthogonal channel uses"
    access = "oma"

    def transmit(self, images: torch.Tensor, side: SideInfo) -> torch.Tensor:
        self.side = int(math.sqrt(2 * self.symbols_per_user / images.shape[2]))
        small = torch.nn.functional.adaptive_avg_pool2d(images.flatten(0, 1), self.side)
        values = torch.nn.functional.pad(small.flatten(1) - 0.5, (0, small[0].numel() % 2))
        symbols = torch.view_as_complex(values.unflatten(1, (-1, 2)).contiguous())
        return symbols.unflatten(0, images.shape[:2]) * math.sqrt(2 * self.powers[0])

    def receive(self, received: torch.Tensor, side: SideInfo) -> Received:
        channels, height, width = self.setting.image_shape
        values = torch.view_as_real(received / side.h[..., None] / math.sqrt(2 * self.powers[0])).flatten(2) + 0.5
        small = values[..., : channels * self.side**2].reshape(-1, channels, self.side, self.side)
        images = torch.nn.functional.interpolate(small, (height, width), mode="bilinear")
        return Received(images.clamp(0, 1).unflatten(0, received.shape[:2]))
