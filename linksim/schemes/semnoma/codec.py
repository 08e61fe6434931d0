"""Encoder and decoder of the ConvNeXt transceiver (KDD paper, tables II and III)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from linksim.errors import LinksimError
from linksim.nets.layers import (
    NORM_EPS,
    AFModule,
    AttentionBlock,
    Conditioned,
    ConvNextBlock,
    Downsample,
    LayerNorm2d,
    OutputLayer,
    Upsample,
)
from linksim.schemes.semnoma.recipe import stages

Size = Literal["paper", "compact"]

DROP_PATH = 0.1


@dataclass(frozen=True)
class CodecShape:
    """Widths and depths of an encoder and of the decoder that mirrors it.

    Args:
        image_shape: (C, H, W).
        widths: channels of the encoder's stages; the decoder's are the same in reverse.
        encoder_depths: ConvNeXt blocks of each of the encoder's stages.
        decoder_depths: of the decoder's.
        channels: M, feature maps that are sent.
        side_dim: D, numbers of side information.
        layer_scale: start of the blocks' layer scale.
    """

    image_shape: tuple[int, int, int]
    widths: tuple[int, ...]
    encoder_depths: tuple[int, ...]
    decoder_depths: tuple[int, ...]
    channels: int
    side_dim: int
    layer_scale: float = 1e-6

    @property
    def feature_side(self) -> tuple[int, int]:
        """H', W': the stem and every stage but the first halve the sides."""
        factor = 2 ** len(self.widths)
        return self.image_shape[1] // factor, self.image_shape[2] // factor


#: The paper's two networks by their stages: for CIFAR-10's 32 pixels and for 256 (tables II and III).
_LAYOUTS = {
    2: CodecShape((3, 32, 32), (96, 192), (3, 3), (3, 3), 0, 0),
    4: CodecShape((3, 256, 256), (96, 192, 384, 768), (2, 2, 6, 2), (2, 6, 2, 2), 0, 0),
}

#: Widths that a CPU can train: half the paper's for two stages; for four a quarter, where it is no more than 64.
_COMPACT = {2: (48, 96), 4: (24, 48, 64, 64)}


def layout(image_shape: tuple[int, int, int], size: Size) -> CodecShape:
    """Stages and widths for images of a size, before anything is known of the link.

    Args:
        image_shape: (C, H, W).
        size: "paper" or "compact".

    Raises:
        LinksimError: sides that the stages do not halve evenly.

    Example:
        >>> layout((3, 64, 96), "paper").feature_side, layout((3, 512, 768), "compact").widths
        ((16, 24), (24, 48, 64, 64))
    """
    colours, height, width = image_shape
    shape = _LAYOUTS[stages(image_shape)]
    stride = 2 ** len(shape.widths)
    if colours != 3 or height % stride or width % stride or not height * width:
        raise LinksimError(
            f"learned schemes take colour images whose sides are multiples of {stride}, not "
            f"{width}x{height}{'' if colours == 3 else f' of {colours} channels'}: resize with --image-size"
        )
    if size == "compact":
        shape = replace(shape, widths=_COMPACT[len(shape.widths)])
    return replace(shape, image_shape=image_shape)


def codec_shape(
    image_shape: tuple[int, int, int], symbols: int, side_dim: int, size: Size, users_apart: int = 1
) -> CodecShape:
    """The shape that sends `symbols` complex symbols an image.

    Args:
        image_shape: (C, H, W).
        symbols: complex symbols of one user.
        side_dim: D, numbers of side information.
        size: "paper" or "compact".
        users_apart: users that share the system's channel uses in turns; for messages.

    Raises:
        LinksimError: sides that no network takes, or a number of symbols that gives no whole M.
    """
    shape = layout(image_shape, size)
    height, width = shape.feature_side
    channels, left = divmod(2 * symbols, height * width)
    if left or channels < 1:
        stride = 2 ** len(shape.widths)
        raise LinksimError(
            f"{symbols} symbols an image give no whole number of {height}x{width} feature maps: take a rho that is a "
            f"multiple of {Fraction(users_apart, 2 * 3 * stride * stride)}"
        )
    return replace(shape, channels=channels, side_dim=side_dim)


def _blocks(width: int, depth: int, rates: list[float], layer_scale: float) -> nn.Sequential:
    return nn.Sequential(*(ConvNextBlock(width, rates.pop(0), layer_scale) for _ in range(depth)))


def _ramp(depths: Sequence[int]) -> list[float]:
    return torch.linspace(0, DROP_PATH, sum(depths)).tolist()


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Encoder(nn.Module):
    """Images with their user's plane, [B, C + 1, H, W], to features [B, M, H', W']."""

    def __init__(self, shape: CodecShape) -> None:
        super().__init__()
        rates, widths = _ramp(shape.encoder_depths), shape.widths
        layers: list[nn.Module] = [
            nn.Sequential(
                nn.Conv2d(shape.image_shape[0] + 1, widths[0], 4, stride=2, padding=1),
                LayerNorm2d(widths[0], NORM_EPS),
            )
        ]
        for stage, (width, depth) in enumerate(zip(widths, shape.encoder_depths, strict=True)):
            if stage:
                layers.append(Downsample(widths[stage - 1], width))
            layers += [_blocks(width, depth, rates, shape.layer_scale), AFModule(width, shape.side_dim)]
            layers.append(AttentionBlock(width))
        layers.append(nn.Sequential(LayerNorm2d(widths[-1], NORM_EPS), nn.Conv2d(widths[-1], shape.channels, 1)))
        self.layers = Conditioned(*layers)
        self.apply(_initialise)

    def forward(self, images: Tensor, side: Tensor) -> Tensor:
        """Images [B, C + 1, H, W] and side information [B, D] to features [B, M, H', W']."""
        found: Tensor = self.layers(images, side)
        return found


class Decoder(nn.Module):
    """Received features [B, M, H', W'] to images [B, C, H, W] in [0, 1].

    `layers` are numbered as in Table IV: 0 the input layer, then for each stage blocks, AF-Module, attention, upsample;
    last the output layer.
    """

    def __init__(self, shape: CodecShape) -> None:
        super().__init__()
        rates, widths = _ramp(shape.decoder_depths), shape.widths[::-1]
        layers: list[nn.Module] = [
            nn.Sequential(nn.Conv2d(shape.channels, widths[0], 1), LayerNorm2d(widths[0], NORM_EPS))
        ]
        for (width, after), depth in zip(pairwise([*widths, widths[-1]]), shape.decoder_depths, strict=True):
            layers += [_blocks(width, depth, rates, shape.layer_scale), AFModule(width, shape.side_dim)]
            layers += [AttentionBlock(width), Upsample(width, after)]
        layers.append(OutputLayer(widths[-1], shape.image_shape[0]))
        self.layers = Conditioned(*layers)
        self.apply(_initialise)

    def forward(self, features: Tensor, side: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Layers `start` to `stop` (exclusive): from the received features to the image when both are left out."""
        found: Tensor = self.layers(features, side, start, stop)
        return found
