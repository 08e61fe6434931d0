"""Networks of SemNOMA-CGAN (KDD paper, section VI-A2): a U-Net generator, a PatchGAN discriminator."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

_GROUPS = 8


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(_GROUPS, outputs), nn.SiLU(inplace=True)
    )


class Generator(nn.Module):
    """U-Net (Ronneberger et al. 2015) that adds to an image what is missing in it; it begins by adding nothing.

    Args:
        width: channels at full resolution; the levels below have 2, 4 and 4 times as many.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.width = width
        widths = [width, 2 * width, 4 * width, 4 * width]
        self.head = _convolution(3, width)
        self.down = nn.ModuleList(
            nn.Sequential(_convolution(a, b, stride=2), _convolution(b, b)) for a, b in pairwise(widths)
        )
        self.up = nn.ModuleList(
            nn.Sequential(_convolution(b + a, a), _convolution(a, a)) for a, b in reversed(list(pairwise(widths)))
        )
        self.tail = nn.Conv2d(width, 3, 3, 1, 1)
        for value in self.tail.parameters():
            nn.init.zeros_(value)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] to images of the same shape, not clamped. H and W are multiples of 8."""
        x = self.head(2 * images - 1)
        skips = []
        for level in self.down:
            skips.append(x)
            x = level(x)
        for level in self.up:
            x = level(torch.cat([nn.functional.interpolate(x, scale_factor=2.0), skips.pop()], 1))
        found: Tensor = images + self.tail(x).float()
        return found


class Discriminator(nn.Module):
    """PatchGAN of three layers (Isola et al. 2017): a logit for each patch of an image, given its condition.

    Args:
        width: channels of the first layer.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(6, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for a, b, stride in ((width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 8 * width, 1)):
            layers += [nn.Conv2d(a, b, 4, stride, 1), nn.GroupNorm(_GROUPS, b), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))

    def forward(self, condition: Tensor, images: Tensor) -> Tensor:
        """Condition and images, both [B, 3, H, W] in [0, 1], to logits [B, 1, H', W'], high for real images."""
        found: Tensor = self.layers(torch.cat([condition, images], 1) * 2 - 1)
        return found
