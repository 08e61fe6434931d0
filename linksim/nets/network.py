"""What every learned transceiver is to training and to the harness, and the parts that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from linksim.data.images import pixels
from linksim.errors import LinksimError, WrongStart

#: Pixels by which parts of large images go over each other's edges: what lies further away changes little.
OVERLAP = 64


class Network(nn.Module, ABC):
    """N users' transmitters and the base station's receiver as one module.

    Args:
        users: N.
        side_dim: D, numbers of side information that each end is told for each user, as `side_information` gives them.

    Class attributes:
        tile: side in pixels of the parts in which larger images go through (`in_tiles`); 0: all at once.
        placed: whether `encode` takes `corners`, the place of image parts, by which user planes are cut alike.

    Parameters named `planes`, [N, 1, H', W'], take the size of what is loaded into them (`with_planes`).
    """

    placed: ClassVar[bool] = False
    tile: int = 0

    def __init__(self, users: int, side_dim: int) -> None:
        super().__init__()
        self.users, self.side_dim = users, side_dim

    @abstractmethod
    def encode(self, images: Tensor, side: Tensor, powers: tuple[float, ...]) -> Tensor:
        """Images [B, N, C, H, W] with side information [B, N, D] to symbols complex64 [B, N, S] of `powers`."""

    @abstractmethod
    def receive(self, received: Tensor, side: Tensor) -> Tensor:
        """Complex [B, S] (users superpose) or [B, N, S], with [B, N, D], to images float32 [B, N, C, H, W]."""

    def serve(self, image_shape: tuple[int, int, int]) -> None:
        """Takes images of this shape (C, H, W) from now on, and symbols in proportion.

        Raises:
            LinksimError: a network for images of one size.
        """
        raise LinksimError(f"a {type(self).__name__} is for images of one size: leave crop out")

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        own, given = getattr(self, "planes", None), state.get(f"{prefix}planes")
        if own is not None and given is not None and given.shape[:-2] == own.shape[:-2] and given.shape != own.shape:
            self.planes = nn.Parameter(own.new_empty(given.shape))
        super()._load_from_state_dict(state, prefix, *rest)

    def adopt(self, source: Network) -> None:
        """Starts from what `source` has learned: every tensor of equal name and shape.

        Raises:
            LinksimError: a network of another kind.
        """
        if type(source) is not type(self):
            raise cannot_start(self, source)
        own = self.state_dict()
        learned = source.state_dict()
        if "planes" in learned and "planes" in own:
            learned["planes"] = tiled(learned["planes"], own["planes"].shape[-2:])
        self.load_state_dict(
            {n: learned[n].clone() if n in learned and learned[n].shape == v.shape else v for n, v in own.items()}
        )

    def embed(self, source: Network) -> None:
        """Starts as `source`, which is of users in separate channel uses. Raises LinksimError where it cannot."""
        raise cannot_start(self, source)


def first_maps(have: int, want: int) -> Tensor:
    """Indices of `want` of `have` feature maps: the first of the real and the first of the imaginary ones, [want].

    Example:
        >>> first_maps(8, 4).tolist()
        [0, 1, 4, 5]
    """
    return torch.cat([torch.arange(want - want // 2), have // 2 + torch.arange(want // 2)])


def check_sides(image_shape: tuple[int, int, int], stride: int) -> None:
    """Raises LinksimError where a network of that stride does not take images (C, H, W), or parts of images."""
    if any(side % stride for side in image_shape[1:]):
        raise LinksimError(
            f"its networks take sides that are multiples of {stride}, not {pixels(image_shape)}: take "
            "another --image-size, or crop"
        )


def cannot_start(network: Network, source: Network) -> WrongStart:
    """The error for a warm start from a network of another kind."""
    return WrongStart(
        f"a {type(network).__name__} cannot start from a {type(source).__name__}: take a model of the same kind"
    )


def to_symbols(features: Tensor) -> Tensor:
    """Features [..., M, H', W'] to complex symbols [..., M H' W' / 2]; the first half of the values is real."""
    real, imaginary = features.float().flatten(-3).chunk(2, dim=-1)
    return torch.complex(real.contiguous(), imaginary.contiguous())


def to_features(symbols: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Complex symbols [..., k] back to features [..., M, H', W'] of `shape`; the inverse of `to_symbols`."""
    found: Tensor = torch.cat([symbols.real, symbols.imag], dim=-1).unflatten(-1, shape)
    return found


def in_tiles(
    layers: Callable[[Tensor, Tensor], Tensor], x: Tensor, side: Tensor, tile: int, overlap: int, scale: Fraction
) -> Tensor:
    """What layers make of maps that are too large to go through at once, part by part.

    Each part is seen with what lies around it; layers that look at all of their input, the means of AF-Modules, see a
    part and its surroundings alone.

    Args:
        layers: maps [B, C, H, W] and side information to maps [B, C', scale H, scale W].
        x: the maps.
        side: side information [B, D].
        tile: side of the parts; 0, or no less than the maps', is all at once.
        overlap: what is seen on each side of a part.
        scale: of the maps' sides.

    Example:
        >>> x = torch.rand(1, 1, 8, 12)
        >>> torch.equal(in_tiles(lambda part, side: 2 * part, x, x, 4, 1, Fraction(1)), 2 * x)
        True
    """
    height, width = x.shape[-2:]
    if not tile or max(height, width) <= tile:
        return layers(x, side)
    rows = []
    for top in range(0, height, tile):
        row = []
        for left in range(0, width, tile):
            above, before = min(overlap, top), min(overlap, left)
            part = x[..., top - above : top + tile + overlap, left - before : left + tile + overlap]
            found = layers(part, side)
            first, second = int(above * scale), int(before * scale)
            down, across = int(min(tile, height - top) * scale), int(min(tile, width - left) * scale)
            row.append(found[..., first : first + down, second : second + across])
        rows.append(torch.cat(row, dim=-1))
    return torch.cat(rows, dim=-2)


def with_planes(images: Tensor, planes: Tensor, corners: Tensor | None = None) -> Tensor:
    """Images [B, N, C, H, W] with each user's plane as one more channel (eq. 10): [B * N, C + 1, H, W].

    Args:
        images: of all users.
        planes: [N, 1, H', W']; beyond their size they begin anew.
        corners: top and left of each image in the one that it was cut from, [B, N, 2]; its plane is cut alike.
    """
    own = tiled(planes, images.shape[-2:], corners).expand(len(images), -1, -1, -1, -1)
    return torch.cat([images, own.to(images)], dim=2).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def tiled(planes: Tensor, size: tuple[int, ...], corners: Tensor | None = None) -> Tensor:
    """Planes [N, 1, H', W'] side by side over images of `size` (H, W).

    Interpolated instead, they lose 10 to 15 dB: what tells users apart is in their finest detail. KD-SemNOMA, rho 1/6,
    planes of 32x32 on photographs of 96x96, AWGN, 10 dB: 26.87 side by side, 11.84 bilinear (`benchmarks/planes.py`).

    Returns:
        [N, 1, H, W], or [B, N, 1, H, W] for images whose top left `corners` [B, N, 2] differ.

    Example:
        >>> tiled(torch.tensor([[[[1.0, 2.0]]]]), (1, 5)).flatten().tolist()
        [1.0, 2.0, 1.0, 2.0, 1.0]
    """
    if corners is None and planes.shape[-2:] == size:
        return planes
    at = planes.new_zeros(1, len(planes), 2, dtype=torch.long) if corners is None else corners.to(planes.device)
    rows, columns = (
        (at[..., axis, None] + torch.arange(size[axis], device=planes.device)) % planes.shape[axis - 2]
        for axis in (0, 1)
    )
    users = torch.arange(len(planes), device=planes.device)[:, None, None]
    found = planes[users, 0, rows[..., :, None], columns[..., None, :]].unsqueeze(2)
    return found[0] if corners is None else found


def side_information(snr_db: Tensor, h: Tensor, side_dim: int) -> Tensor:
    """What one end tells its networks, float32 [B, N, D].

    Args:
        snr_db: gamma, [B]; or [B, N] where every user has its own.
        h: coefficients, complex [B, N].
        side_dim: 1: gamma alone (AWGN); 3: gamma, |h_i|, angle(h_i) of the user itself; 1 + 2N: then those of the other
            users in turn, from the next one on.

    gamma is given in units of 20 dB and the angle in units of pi: the first layer is followed by a LayerNorm, which
    would see little of numbers that are large beside its bias.
    """
    users = h.shape[1]
    gamma = (snr_db.float() / 20).reshape(len(h), -1, 1).expand(-1, users, 1)
    if side_dim == 1:
        return gamma
    polar = torch.stack([h.abs(), h.angle() / torch.pi], dim=-1).float()
    if side_dim == 3:
        return torch.cat([gamma, polar], dim=-1)
    turned = [polar.roll(-place, dims=1) for place in range(users)]
    return torch.cat([gamma, *turned], dim=-1)
