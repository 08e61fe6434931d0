"""Networks of users in separate channel uses, which hear equalised symbols alone."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from linksim.errors import LinksimError
from linksim.link.power import normalise
from linksim.nets.network import Network, check_sides, to_features, to_symbols

Equaliser = Literal["mmse", "zf"]

#: What a deep fade is taken for, so that zero forcing stays finite.
_LEAST_GAIN = 1e-6


class OrthogonalNetwork(Network):
    """One encoder and one decoder, the same for every user; the receiver equalises before the decoder.

    Perfect CSI then means a good equaliser, not a network that is told h (GSC paper, section III-B).

    Args:
        image_shape: (C, H, W).
        stride: of an image over its feature maps.
        maps: feature maps that are sent, an even number.
        side_dim: numbers of side information, see `side_information`; h stands behind gamma where it fades.
        told: whether the networks are told gamma too, as one more feature at the channel.

    Subclasses give `encoder` and `decoder`: images [M, C, H, W] to features [M, maps, H / stride, W / stride] and back,
    each with gamma in units of 20 dB, [M, 1], or None.
    """

    encoder: nn.Module
    decoder: nn.Module

    #: How symbols are equalised: "mmse", or "zf", which a deep fade makes loud.
    equaliser: Equaliser = "mmse"

    def __init__(self, image_shape: tuple[int, int, int], stride: int, maps: int, side_dim: int, told: bool) -> None:
        super().__init__(1, side_dim)
        self.stride, self.maps, self.told = stride, maps, told
        self.serve(image_shape)

    def serve(self, image_shape: tuple[int, int, int]) -> None:
        """See `Network`."""
        check_sides(image_shape, self.stride)
        self.image_shape = image_shape

    def encode(self, images: Tensor, side: Tensor, powers: tuple[float, ...]) -> Tensor:
        """See `Network.encode`; of any number of users."""
        features = self.encoder(images.flatten(0, 1), self._gamma(side))
        return normalise(to_symbols(features.unflatten(0, images.shape[:2])), powers)

    def receive(self, received: Tensor, side: Tensor) -> Tensor:
        """See `Network.receive`; of signals [B, N, k] of users with unit power."""
        symbols = equalised(received, side, self.equaliser)
        _, height, width = self.image_shape
        features = to_features(symbols, (self.maps, height // self.stride, width // self.stride))
        shown = self.decoder(features.flatten(0, 1), self._gamma(side)).float()
        found: Tensor = shown.unflatten(0, received.shape[:2])
        return found

    def _gamma(self, side: Tensor) -> Tensor | None:
        return side[..., :1].flatten(0, 1) if self.told else None


def equalised(received: Tensor, side: Tensor, equaliser: Equaliser) -> Tensor:
    """Symbols s of unit power as an equaliser finds them in y = h s + n: without bias ("zf"), or nearest ("mmse").

    Args:
        received: y, complex [B, N, k].
        side: side information of each user, [B, N, 1] (h = 1) or [B, N, 3], see `side_information`.
        equaliser: "mmse" or "zf".

    Example:
        >>> y, told = torch.tensor([[[2.0 + 0j]]]), torch.tensor([[[0.0, 2.0, 0.0]]])
        >>> equalised(y, told, "zf").item(), equalised(y, told, "mmse").real.item()
        ((1+0j), 0.800000011920929)
    """
    noise = 10 ** (-2 * side[..., :1])
    h = torch.ones_like(noise) + 0j
    if side.shape[-1] > 1:
        h = torch.polar(side[..., 1:2].contiguous(), (torch.pi * side[..., 2:3]).contiguous())
    gain = h.abs().square()
    if equaliser == "zf":
        return received * h.conj() / gain.clamp_min(_LEAST_GAIN)
    return received * h.conj() / (gain + noise)


def maps_of(symbols: int, image_shape: tuple[int, int, int], stride: int) -> int:
    """Feature maps of `stride` that hold a user's complex symbols.

    Raises:
        LinksimError: no whole even number of them.

    Example:
        >>> maps_of(512, (3, 32, 32), 8)
        64
    """
    check_sides(image_shape, stride)
    colours, height, width = image_shape
    maps, left = divmod(2 * symbols * stride**2, height * width)
    if left or maps < 2 or maps % 2:
        raise LinksimError(
            f"{symbols} symbols of a {height}x{width} image give no even number of feature maps at 1/{stride} of its "
            f"sides: take a rho that is a multiple of 1/{stride**2 * colours}"
        )
    return maps
