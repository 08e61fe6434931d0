"""N users' encoders and decoders as one module, between images and complex symbols."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linksim.link.power import normalise
from linksim.nets.codec import CodecShape, Decoder, Encoder


def to_symbols(features: Tensor) -> Tensor:
    """Features [..., M, H', W'] to complex symbols [..., M H' W' / 2]; the first half of the values is real."""
    real, imaginary = features.float().flatten(-3).chunk(2, dim=-1)
    return torch.complex(real.contiguous(), imaginary.contiguous())


def to_features(symbols: Tensor, shape: CodecShape) -> Tensor:
    """Complex symbols [..., k] back to features [..., M, H', W']; the inverse of `to_symbols`."""
    values = torch.cat([symbols.real, symbols.imag], dim=-1)
    return values.unflatten(-1, (shape.channels, *shape.feature_side))


def side_information(snr_db: Tensor, h: Tensor, side_dim: int) -> Tensor:
    """What one end tells its networks, float32 [B, N, D].

    Args:
        snr_db: gamma, [B].
        h: coefficients, complex [B, N].
        side_dim: 1: gamma alone (AWGN); 3: gamma, |h_i|, angle(h_i) of the user itself; 1 + 2N: gamma and every user's.

    gamma is given in units of 20 dB and the angle in units of pi: the first layer is followed by a LayerNorm, which
    would see little of numbers that are large beside its bias.
    """
    users = h.shape[1]
    gamma = (snr_db.float() / 20)[:, None, None].expand(-1, users, 1)
    if side_dim == 1:
        return gamma
    polar = torch.stack([h.abs(), h.angle() / torch.pi], dim=-1).float()
    if side_dim == 3:
        return torch.cat([gamma, polar], dim=-1)
    return torch.cat([gamma, polar.flatten(1)[:, None].expand(-1, users, -1)], dim=-1)


class Transceiver(nn.Module):
    """One encoder for all users, told apart by a learned plane each (eq. 10), and one decoder a user or one for all.

    Args:
        shape: of encoder and decoders.
        users: N.
        shared_decoder: one decoder serves every user (SemOMA, the teacher); else each has its own (SemNOMA).
    """

    def __init__(self, shape: CodecShape, users: int, shared_decoder: bool) -> None:
        super().__init__()
        self.shape, self.users, self.shared_decoder = shape, users, shared_decoder
        self.encoder = Encoder(shape)
        self.planes = nn.Parameter(torch.randn(users, 1, *shape.image_shape[1:]))
        self.decoders = nn.ModuleList(Decoder(shape) for _ in range(1 if shared_decoder else users))

    def encode(self, images: Tensor, side: Tensor, powers: tuple[float, ...]) -> Tensor:
        """Images [B, N, C, H, W] with side information [B, N, D] to symbols complex64 [B, N, k] of `powers`."""
        planes = self.planes.expand(len(images), -1, -1, -1, -1).to(images)
        labelled = torch.cat([images, planes], dim=2).flatten(0, 1)
        if labelled.device.type == "cpu":
            labelled = labelled.contiguous(memory_format=torch.channels_last)
        features = self.encoder(labelled, side.flatten(0, 1)).unflatten(0, images.shape[:2])
        return normalise(to_symbols(features), powers)

    def received_features(self, received: Tensor) -> Tensor:
        """What each user's decoder gets, [B, N, M, H', W'], from complex [B, k] (all the same signal) or [B, N, k]."""
        features = to_features(received, self.shape)
        return features if received.dim() == 3 else features[:, None].expand(-1, self.users, -1, -1, -1)

    def decode(self, features: Tensor, side: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Layers `start` to `stop` of the decoders, on features [B, N, ...] with side information [B, N, D]."""
        if self.shared_decoder:
            out = self.decoders[0](features.flatten(0, 1), side.flatten(0, 1), start, stop)
            return out.unflatten(0, features.shape[:2])
        parts = [decoder(features[:, user], side[:, user], start, stop) for user, decoder in enumerate(self.decoders)]
        return torch.stack(parts, dim=1)
