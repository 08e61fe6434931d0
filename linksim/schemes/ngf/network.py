"""NGF's Swin transformer for one user (GSC paper, section III-A; depths and heads of WITT for CIFAR-10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from linksim.nets.orthogonal import OrthogonalNetwork

Size = Literal["paper", "wide"]
Activation = Literal["relu", "gelu"]


@dataclass(frozen=True)
class _Shape:
    patch: int
    widths: tuple[int, int]
    depths: tuple[int, int] = (2, 4)
    heads: tuple[int, int] = (4, 8)
    window: int = 2


#: `paper`: 479,904 parameters at rho 1/6; `wide`: WITT's own for 32x32.
SHAPES: dict[Size, _Shape] = {"paper": _Shape(4, (32, 64)), "wide": _Shape(2, (128, 256))}


class _Blocks(nn.Sequential):
    """Swin blocks on tokens [B, H, W, C], every other one with shifted windows."""

    def __init__(self, channels: int, depth: int, heads: int, window: int, activation: Activation) -> None:
        from torchvision.models.swin_transformer import SwinTransformerBlock

        blocks = [
            SwinTransformerBlock(channels, heads, [window] * 2, [index % 2 * (window // 2)] * 2)
            for index in range(depth)
        ]
        for block in blocks:
            if activation == "relu":
                block.mlp[1] = nn.ReLU()
            # It follows from the window's size: no weight.
            block.attn.register_buffer("relative_position_index", block.attn.relative_position_index, persistent=False)
        super().__init__(*blocks)


class _Told(nn.Module):
    """A linear layer over the last dimension that sees gamma beside its input, where there is one."""

    def __init__(self, inputs: int, outputs: int, told: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs + told, outputs)

    def forward(self, tokens: Tensor, gamma: Tensor | None) -> Tensor:
        if gamma is not None:
            told = gamma.to(tokens)[:, None, None].expand(*tokens.shape[:3], 1)
            tokens = torch.cat([tokens, told], dim=-1)
        found: Tensor = self.layer(tokens)
        return found


class Encoder(nn.Module):
    """Patches to tokens, two stages with a merge between them, and a head of `maps` numbers a token."""

    def __init__(self, shape: _Shape, colours: int, maps: int, told: bool, activation: Activation) -> None:
        super().__init__()
        from torchvision.models.swin_transformer import PatchMerging

        first, second = shape.widths
        self.unshuffle = nn.PixelUnshuffle(shape.patch)
        self.embed = nn.Sequential(nn.Linear(colours * shape.patch**2, first), nn.LayerNorm(first))
        self.stage1 = _Blocks(first, shape.depths[0], shape.heads[0], shape.window, activation)
        self.merge = PatchMerging(first)
        if second != 2 * first:
            raise ValueError("a merge doubles the width")
        self.stage2 = _Blocks(second, shape.depths[1], shape.heads[1], shape.window, activation)
        self.norm = nn.LayerNorm(second)
        self.head = _Told(second, maps, told)

    def forward(self, images: Tensor, gamma: Tensor | None) -> Tensor:
        """Images [B, C, H, W] in [0, 1] to features [B, maps, H / stride, W / stride]."""
        tokens = self.embed(self.unshuffle(images - 0.5).permute(0, 2, 3, 1))
        tokens = self.norm(self.stage2(self.merge(self.stage1(tokens))))
        found: Tensor = self.head(tokens, gamma).permute(0, 3, 1, 2)
        return found


class Decoder(nn.Module):
    """The encoder's mirror: two stages, each followed by a linear layer and a pixel shuffle."""

    def __init__(self, shape: _Shape, colours: int, maps: int, told: bool, activation: Activation) -> None:
        super().__init__()
        first, second = shape.widths
        self.embed = _Told(maps, second, told)
        self.stage2 = _Blocks(second, shape.depths[1], shape.heads[1], shape.window, activation)
        self.split = nn.Sequential(nn.LayerNorm(second), nn.Linear(second, 4 * first, bias=False))
        self.stage1 = _Blocks(first, shape.depths[0], shape.heads[0], shape.window, activation)
        self.head = nn.Sequential(nn.LayerNorm(first), nn.Linear(first, colours * shape.patch**2))
        self.spread, self.shuffle = nn.PixelShuffle(2), nn.PixelShuffle(shape.patch)

    def forward(self, features: Tensor, gamma: Tensor | None) -> Tensor:
        """Features [B, maps, H', W'] to images [B, C, H, W], which may leave [0, 1]."""
        tokens = self.split(self.stage2(self.embed(features.permute(0, 2, 3, 1), gamma)))
        tokens = self.stage1(self.spread(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        found: Tensor = self.shuffle(self.head(tokens).float().permute(0, 3, 1, 2)) + 0.5
        return found


class NgfNetwork(OrthogonalNetwork):
    """NGF's encoder and decoder.

    Args:
        size: "paper" or "wide".
        activation: of the blocks' hidden layers, "relu" (GSC paper) or "gelu" (Swin's own).
        image_shape, maps, side_dim, told: see `OrthogonalNetwork`.

    Example:
        >>> network = NgfNetwork("paper", (3, 32, 32), maps=64, side_dim=1, told=False)
        >>> sum(value.numel() for value in network.parameters())
        479904
    """

    def __init__(
        self, size: Size, image_shape: tuple[int, int, int], maps: int, side_dim: int, told: bool,
        activation: Activation = "relu",
    ) -> None:  # fmt: skip
        shape = SHAPES[size]
        super().__init__(image_shape, stride_of(size), maps, side_dim, told)
        self.encoder = Encoder(shape, image_shape[0], maps, told, activation)
        self.decoder = Decoder(shape, image_shape[0], maps, told, activation)


def stride_of(size: Size) -> int:
    """Pixels a side of what a token at the channel stands for."""
    return 2 * SHAPES[size].patch
