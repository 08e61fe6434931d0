"""What every learned transceiver is to training and to the harness, and the parts that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from linksim.errors import LinksimError


class Network(nn.Module, ABC):
    """N users' transmitters and the base station's receiver as one module.

    Args:
        users: N.
        side_dim: D, numbers of side information that each end is told for each user, as `side_information` gives them.
    """

    def __init__(self, users: int, side_dim: int) -> None:
        super().__init__()
        self.users, self.side_dim = users, side_dim

    @abstractmethod
    def encode(self, images: Tensor, side: Tensor, powers: tuple[float, ...]) -> Tensor:
        """Images [B, N, C, H, W] with side information [B, N, D] to symbols complex64 [B, N, k] of `powers`."""

    @abstractmethod
    def receive(self, received: Tensor, side: Tensor) -> Tensor:
        """Complex [B, k] (users superpose) or [B, N, k], with [B, N, D], to images float32 [B, N, C, H, W]."""

    def adopt(self, source: Network) -> None:
        """Starts from what `source` has learned: every tensor of equal name and shape.

        Raises:
            LinksimError: a network of another kind.
        """
        if type(source) is not type(self):
            raise cannot_start(self, source)
        own = self.state_dict()
        learned = source.state_dict()
        self.load_state_dict(
            {n: learned[n].clone() if n in learned and learned[n].shape == v.shape else v for n, v in own.items()}
        )

    def embed(self, source: Network) -> None:
        """Starts as `source`, which is of users in separate channel uses. Raises LinksimError where it cannot."""
        raise cannot_start(self, source)


def cannot_start(network: Network, source: Network) -> LinksimError:
    """The error for a warm start from a network of another kind."""
    return LinksimError(
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


def with_planes(images: Tensor, planes: Tensor) -> Tensor:
    """Images [B, N, C, H, W] with each user's plane [N, 1, H, W] as one more channel (eq. 10): [B * N, C + 1, H, W]."""
    labelled = torch.cat([images, planes.expand(len(images), -1, -1, -1, -1).to(images)], dim=2).flatten(0, 1)
    return labelled.contiguous(memory_format=torch.channels_last)


def side_information(snr_db: Tensor, h: Tensor, side_dim: int) -> Tensor:
    """What one end tells its networks, float32 [B, N, D].

    Args:
        snr_db: gamma, [B]; or [B, N] where every user has its own.
        h: coefficients, complex [B, N].
        side_dim: 1: gamma alone (AWGN); 3: gamma, |h_i|, angle(h_i) of the user itself; 1 + 2N: gamma and every user's.

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
    return torch.cat([gamma, polar.flatten(1)[:, None].expand(-1, users, -1)], dim=-1)
