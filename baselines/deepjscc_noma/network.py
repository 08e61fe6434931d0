"""Networks of DeepJSCC-NOMA: residual blocks with GDN, attention blocks and attention-feature modules.

The layer lists are those of the baseline that the KDD paper's released code trains: 8.56 M parameters in the encoder
and 13.82 M in the decoder at 256 filters, 32 feature maps and two users.
"""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from linksim.link.power import normalise
from linksim.nets.layers import AttentionBlock, Conditioned, Sided
from linksim.nets.network import (
    OVERLAP,
    Network,
    check_sides,
    first_maps,
    in_tiles,
    to_features,
    to_symbols,
    with_planes,
)


class Gdn(nn.Module):
    """Generalised divisive normalisation (Ballé, Laparra, Simoncelli, ICLR 2016): x_i / sqrt(b_i + sum_j g_ij x_j^2).

    Args:
        channels: C'.
        inverse: multiply by the root in place of dividing.
    """

    def __init__(self, channels: int, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        # Roots of b and g, so that both stay positive; g starts near 0.1 on the diagonal.
        self.root_b = nn.Parameter(torch.ones(channels))
        self.root_g = nn.Parameter(torch.full((channels, channels), 0.01) + torch.eye(channels) * 0.1**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C', H', W'] to [B, C', H', W']."""
        energy = functional.conv2d(x.square(), self.root_g.square()[:, :, None, None], self.root_b.square() + 1e-6)
        return x * (energy.sqrt() if self.inverse else energy.rsqrt())


class _Residual(nn.Module):
    """A branch and a skip, added."""

    def __init__(self, branch: nn.Module, skip: nn.Module) -> None:
        super().__init__()
        self.branch, self.skip = branch, skip

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H', W'] to [B, outputs, H'', W'']."""
        found: Tensor = self.skip(x) + self.branch(x)
        return found


class ResidualBlock(_Residual):
    """Two 3x3 convolutions with LeakyReLU and a skip, which is a 1x1 convolution where the channels change."""

    def __init__(self, inputs: int, outputs: int) -> None:
        branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.LeakyReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.LeakyReLU(),
        )
        super().__init__(branch, nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1))


class ResidualDown(_Residual):
    """A residual block that halves the side: 3x3 of stride 2, LeakyReLU, 3x3, GDN; the skip is a 1x1 of stride 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1),
            nn.LeakyReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            Gdn(outputs),
        )
        super().__init__(branch, nn.Conv2d(inputs, outputs, 1, stride=2))


class ResidualUp(_Residual):
    """A residual block that doubles the side: sub-pixel 3x3, LeakyReLU, 3x3, inverse GDN; the skip is sub-pixel too."""

    def __init__(self, inputs: int, outputs: int) -> None:
        branch = nn.Sequential(
            _sub_pixel(inputs, outputs),
            nn.LeakyReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            Gdn(outputs, inverse=True),
        )
        super().__init__(branch, _sub_pixel(inputs, outputs))


def _sub_pixel(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, 4 * outputs, 3, padding=1), nn.PixelShuffle(2))


class AttentionFeature(Sided):
    """Attention-feature module of ADJSCC (Xu et al., 2021): channels masked by their means and the side information.

    Args:
        channels: C'.
        side_dim: numbers of side information.
    """

    def __init__(self, channels: int, side_dim: int) -> None:
        super().__init__()
        self.mask = nn.Sequential(
            nn.Linear(channels + side_dim, channels),
            nn.LeakyReLU(),
            last := nn.Linear(channels, channels),
            nn.Sigmoid(),
        )
        # The modules begin nearly open: at a half each, eight in a row would leave little of the signal.
        nn.init.constant_(last.bias, 2.0)

    def forward(self, features: Tensor, side: Tensor) -> Tensor:
        """Features [B, C', H', W'] and side information [B, D] to features [B, C', H', W']."""
        context = features.mean(dim=(2, 3))
        mask = self.mask(torch.cat([context, side.to(context)], dim=1))
        found: Tensor = features * mask.to(features)[:, :, None, None]
        return found


class DeepJsccNetwork(Network):
    """One encoder for all users and ONE decoder that shows all their images.

    Args:
        image_shape: (C, H, W); the sides are multiples of 4.
        users: N.
        channels: M, feature maps that are sent, of a quarter of the image's sides.
        side_dim: 1, gamma alone as published, or 3, gamma and the user's h; the decoder, which serves all users, then
            sees every user's.
        filters: width, 256 as published.
    """

    placed: ClassVar[bool] = True

    def __init__(
        self, image_shape: tuple[int, int, int], users: int, channels: int, side_dim: int, filters: int
    ) -> None:
        super().__init__(users, side_dim)
        colours, height, width = image_shape
        self.channels, self.filters = channels, filters
        self.serve(image_shape)
        f, m, joint = filters, channels, 1 + users * (side_dim - 1)
        self.planes = nn.Parameter(torch.randn(users, 1, height, width))
        self.encoder = Conditioned(
            ResidualDown(colours + 1, f),
            AttentionFeature(f, side_dim),
            ResidualBlock(f, f),
            ResidualBlock(f, f),
            AttentionFeature(f, side_dim),
            AttentionBlock(f),
            ResidualBlock(f, f),
            ResidualDown(f, f),
            AttentionFeature(f, side_dim),
            ResidualBlock(f, f),
            ResidualBlock(f, m),
            AttentionFeature(m, side_dim),
            AttentionBlock(m),
        )
        self.decoder = Conditioned(
            AttentionBlock(m),
            ResidualBlock(m, f),
            ResidualBlock(f, f),
            AttentionFeature(f, joint),
            ResidualBlock(f, f),
            ResidualUp(f, f),
            AttentionFeature(f, joint),
            AttentionBlock(f),
            ResidualBlock(f, f),
            ResidualBlock(f, f),
            AttentionFeature(f, joint),
            ResidualBlock(f, f),
            last := ResidualUp(f, colours * users),
            AttentionFeature(colours * users, joint),
        )
        # Shown images begin grey, not black.
        nn.init.constant_(last.skip.get_parameter("0.bias"), 0.5)

    def serve(self, image_shape: tuple[int, int, int]) -> None:
        """See `Network`."""
        check_sides(image_shape, 4)
        self.image_shape = image_shape
        self.feature_shape = self.channels, image_shape[1] // 4, image_shape[2] // 4

    def adopt(self, source: Network) -> None:
        """See `Network.adopt`; of a network that sends more maps as `narrowed`, and without side information it lacks.

        With fresh layers at the channel the trained ones around them learn within some steps to show the mean of all
        images and to close their masks, and stay there.
        """
        if isinstance(source, DeepJsccNetwork) and source.channels > self.channels:
            source = source.narrowed(self.channels)
        super().adopt(source)
        state, learned = self.state_dict(), source.state_dict()
        for name, value in state.items():
            known = learned.get(name, value)
            if value.dim() == 2 and len(known) == len(value) and (more := value.shape[1] - known.shape[1]) > 0:
                # What it is told beside gamma has no influence at first.
                value.copy_(functional.pad(known, (0, more)))
        self.load_state_dict(state)

    def narrowed(self, channels: int) -> DeepJsccNetwork:
        """The same network with its first feature maps alone, half from the real and half from the imaginary part.

        Example:
            >>> DeepJsccNetwork((3, 32, 32), 2, 32, 1, 16).narrowed(16).feature_shape
            (16, 8, 8)
        """
        have = self.channels
        kept = first_maps(have, channels)
        shape = self.image_shape[0], *self.planes.shape[-2:]
        found = DeepJsccNetwork(shape, self.users, channels, self.side_dim, self.filters)
        state = found.state_dict()
        for name, value in self.state_dict().items():
            if name not in state:
                # Where there are as many maps as filters, a skip has no weights.
                continue
            for axis, (wide, narrow) in enumerate(zip(value.shape, state[name].shape, strict=True)):
                if wide == narrow:
                    continue
                # Layers on the maps, on half as many, or on the maps and side information behind them.
                rows = torch.arange(narrow) if wide == have // 2 else torch.cat([kept, torch.arange(have, wide)])
                value = value.index_select(axis, rows.to(value.device))
            state[name] = value
        found.load_state_dict(state)
        return found

    def encode(self, images: Tensor, side: Tensor, powers: tuple[float, ...], corners: Tensor | None = None) -> Tensor:
        """See `Network.encode`; `corners`: see `with_planes`."""
        shown = with_planes(images, self.planes, corners)
        features = in_tiles(self.encoder, shown, side.flatten(0, 1), self.tile, OVERLAP, Fraction(1, 4))
        return normalise(to_symbols(features.unflatten(0, images.shape[:2])), powers)

    def receive(self, received: Tensor, side: Tensor) -> Tensor:
        """See `Network.receive`."""
        joint = torch.cat([side[:, 0, :1], side[:, :, 1:].flatten(1)], dim=1)
        features = to_features(received, self.feature_shape)
        shown = in_tiles(self.decoder, features, joint, self.tile // 4, OVERLAP // 4, Fraction(4))
        found: Tensor = shown.float().unflatten(1, (self.users, self.image_shape[0]))
        return found
