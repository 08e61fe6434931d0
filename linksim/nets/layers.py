"""Layers of the ConvNeXt transceiver (KDD paper, sections III-B and III-C)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linksim.nets.depthwise import DepthwiseConv2d

NORM_EPS = 1e-6


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of features [B, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C, H, W]."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Permute(nn.Module):
    """Dimensions in another order."""

    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        """A view of x."""
        return x.permute(self.order)


class StochasticDepth(nn.Module):
    """In training, leaves out samples with probability p, and scales the others by 1 / (1 - p) (Huang et al. 2016)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] to [B, ...]."""
        if not self.training or self.p == 0.0:
            return x
        kept = x.new_empty((len(x),) + (1,) * (x.ndim - 1)).bernoulli_(1 - self.p)
        return x * kept.div_(1 - self.p)


class ConvNextBlock(nn.Module):
    """ConvNeXt block: depthwise 7x7, LayerNorm, linear to 4C, GELU, linear to C, layer scale, stochastic depth, skip.

    The layers and their names are torchvision's, which takes two seconds longer to import.

    Args:
        channels: C.
        drop_path: probability that a sample skips the block in training.
        layer_scale: start of the learned scale.
    """

    def __init__(self, channels: int, drop_path: float, layer_scale: float) -> None:
        super().__init__()
        self.block = nn.Sequential(
            DepthwiseConv2d(channels),
            Permute(0, 2, 3, 1),
            nn.LayerNorm(channels, NORM_EPS),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
            Permute(0, 3, 1, 2),
        )
        self.layer_scale = nn.Parameter(torch.full((channels, 1, 1), layer_scale))
        self.stochastic_depth = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C, H, W]."""
        added: Tensor = self.stochastic_depth(self.layer_scale * self.block(x))
        return added.add_(x)


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


#: Residual units in each branch of an attention block.
_RESIDUAL_UNITS = 3


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
        units = range(_RESIDUAL_UNITS)
        self.trunk = nn.Sequential(*(_ResidualUnit(channels) for _ in units))
        self.gate = nn.Sequential(*(_ResidualUnit(channels) for _ in units), nn.Conv2d(channels, channels, 1))

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
