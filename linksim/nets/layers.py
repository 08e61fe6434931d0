"""Layers of the ConvNeXt transceiver (KDD paper, sections III-B and III-C)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.convnext import CNBlock, LayerNorm2d

from linksim.nets.depthwise import DepthwiseConv2d

NORM_EPS = 1e-6


class ConvNextBlock(CNBlock):  # type: ignore[misc]
    """ConvNeXt block: depthwise 7x7, LayerNorm, linear to 4C, GELU, linear to C, layer scale, stochastic depth, skip.

    Args:
        channels: C.
        drop_path: probability that a sample skips the block in training.
        layer_scale: start of the learned scale.
    """

    def __init__(self, channels: int, drop_path: float, layer_scale: float) -> None:
        super().__init__(channels, layer_scale, drop_path)
        self.block[0] = DepthwiseConv2d(channels)


class Sided(nn.Module):
    """A layer that sees the side information beside the features."""

    #: See `linksim.nets.optimizers.matrices`.
    by_adamw = True


class Conditioned(nn.Sequential):
    """Layers in a row, of which the `Sided` ones see the side information too."""

    def forward(self, x: Tensor, side: Tensor, start: int = 0, stop: int | None = None) -> Tensor:  # type: ignore[override]
        """Layers `start` to `stop` (exclusive) on features [B, C, H, W] with side information [B, D]."""
        for layer in list(self)[start:stop]:
            x = layer(x, side) if isinstance(layer, Sided) else layer(x)
        return x


class AFModule(Sided):
    """Enhanced attention-feature module (eqs. 5 to 9): channels masked by their means and the side information.

    Args:
        channels: C'.
        side_dim: D, numbers of side information.
    """

    def __init__(self, channels: int, side_dim: int) -> None:
        super().__init__()
        self.encode_side = nn.Sequential(
            nn.Linear(side_dim, 128), nn.LayerNorm(128), nn.LeakyReLU(), nn.Linear(128, channels)
        )
        self.mask = nn.Sequential(
            nn.Linear(2 * channels, 4 * channels),
            nn.LeakyReLU(),
            nn.Dropout(0.1),
            nn.Linear(4 * channels, 4 * channels),
            nn.LeakyReLU(),
            nn.Linear(4 * channels, channels),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor, side: Tensor) -> Tensor:
        """Features [B, C', H', W'] and side information [B, D] to features [B, C', H', W']."""
        context = features.mean(dim=(2, 3))
        mask = self.mask(torch.cat([context, self.encode_side(side).to(context)], dim=1))
        found: Tensor = features * mask.to(features)[:, :, None, None]
        return found


class _ResidualUnit(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv = nn.Sequential(
            nn.Conv2d(channels, half, 1),
            nn.ReLU(),
            nn.Conv2d(half, half, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(half, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv(x))


class AttentionBlock(nn.Module):
    """Simplified attention block (Cheng et al., CVPR 2020): a branch of residual units, gated by another, residual.

    Args:
        channels: C', even.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*(_ResidualUnit(channels) for _ in range(3)))
        self.gate = nn.Sequential(*(_ResidualUnit(channels) for _ in range(3)), nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C', H', W'] to [B, C', H', W']."""
        found: Tensor = x + self.trunk(x) * torch.sigmoid(self.gate(x))
        return found


class Upsample(nn.Sequential):
    """LayerNorm, 3x3 convolution to four times `out_channels`, pixel shuffle: twice the side."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            LayerNorm2d(in_channels, NORM_EPS),
            nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1),
            nn.PixelShuffle(2),
        )


class OutputLayer(nn.Sequential):
    """1x1 convolution and sigmoid, in float32: values of eight bits would show in a PSNR of 35 dB and more."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.Conv2d(in_channels, out_channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] to [B, out_channels, H, W] in [0, 1]."""
        with torch.autocast(x.device.type, enabled=False):
            found: Tensor = super().forward(x.float())  # type: ignore[no-untyped-call]
            return found


class Downsample(nn.Sequential):
    """LayerNorm, 2x2 convolution of stride 2: half the side."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(LayerNorm2d(in_channels, NORM_EPS), nn.Conv2d(in_channels, out_channels, 2, stride=2))
