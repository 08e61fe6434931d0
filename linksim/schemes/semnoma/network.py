"""The ConvNeXt transceiver of N users (KDD paper, sections III and IV)."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor, nn

from linksim.errors import LinksimError, WrongStart
from linksim.link.power import normalise
from linksim.nets.network import (
    OVERLAP,
    Network,
    cannot_start,
    check_sides,
    first_maps,
    in_tiles,
    tiled,
    to_features,
    to_symbols,
    with_planes,
)
from linksim.schemes.semnoma.codec import CodecShape, Decoder, Encoder


class Transceiver(Network):
    """One encoder for all users, told apart by a learned plane each (eq. 10), and one decoder a user or one for all.

    Args:
        shape: of encoder and decoders.
        users: N.
        shared_decoder: one decoder serves every user (SemOMA, the teacher); else each has its own (SemNOMA).
    """

    placed: ClassVar[bool] = True

    def __init__(self, shape: CodecShape, users: int, shared_decoder: bool) -> None:
        super().__init__(users, shape.side_dim)
        self.shape, self.shared_decoder = shape, shared_decoder
        self.encoder = Encoder(shape)
        self.planes = nn.Parameter(torch.randn(users, 1, *shape.image_shape[1:]))
        self.decoders = nn.ModuleList(Decoder(shape) for _ in range(1 if shared_decoder else users))

    def serve(self, image_shape: tuple[int, int, int]) -> None:
        """See `Network`; the layers are convolutions and means, and take any size that their strides divide."""
        check_sides(image_shape, self._stride)
        self.shape = replace(self.shape, image_shape=image_shape)

    def encode(self, images: Tensor, side: Tensor, powers: tuple[float, ...], corners: Tensor | None = None) -> Tensor:
        """See `Network.encode`; `corners`: see `with_planes`."""
        shown = with_planes(images, self.planes, corners)
        told = side[..., : self.side_dim].flatten(0, 1)
        features = in_tiles(self.encoder, shown, told, self.tile, OVERLAP, Fraction(1, self._stride))
        return normalise(to_symbols(features.unflatten(0, images.shape[:2])), powers)

    @property
    def _stride(self) -> int:
        return 1 << len(self.shape.widths)

    def receive(self, received: Tensor, side: Tensor) -> Tensor:
        """See `Network.receive`."""
        features = self.received_features(received)
        if not self.tile or max(self.shape.image_shape) <= self.tile:
            return self.decode(features, side).float()

        def decode(part: Tensor, told: Tensor) -> Tensor:
            users = (-1, self.users)
            return self.decode(part.unflatten(0, users), told.unflatten(0, users)).flatten(0, 1)

        tile, overlap = self.tile // self._stride, OVERLAP // self._stride
        shown = in_tiles(decode, features.flatten(0, 1), side.flatten(0, 1), tile, overlap, Fraction(self._stride))
        found: Tensor = shown.unflatten(0, features.shape[:2]).float()
        return found

    def received_features(self, received: Tensor) -> Tensor:
        """What each user's decoder gets, [B, N, M, H', W'], from complex [B, k] (all the same signal) or [B, N, k]."""
        features = to_features(received, (self.shape.channels, *self.shape.feature_side))
        return features if received.dim() == 3 else features[:, None].expand(-1, self.users, -1, -1, -1)

    def decode(self, features: Tensor, side: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Layers `start` to `stop` of the decoders, as Table IV numbers them; to the end where `stop` is None.

        Args:
            features: what layer `start` takes, [B, N, C', H', W'].
            side: side information, [B, N, D] or more, of which the first D are read.

        Returns:
            what layer `stop - 1` gives, [B, N, C'', H'', W'']; images [B, N, C, H, W] at the end.
        """
        side = side[..., : self.side_dim]
        if self.shared_decoder:
            out = self.decoders[0](features.flatten(0, 1), side.flatten(0, 1), start, stop)
            found: Tensor = out.unflatten(0, features.shape[:2])
            return found
        parts = [decoder(features[:, user], side[:, user], start, stop) for user, decoder in enumerate(self.decoders)]
        return torch.stack(parts, dim=1)

    def adopt(self, source: Network) -> None:
        """Starts from what another transceiver has learned, of another link if need be.

        Where M is smaller here, the maps are taken half from the real and half from the imaginary part; where it is
        larger, the layers at the channel start anew. Side information that `source` did not have starts without
        influence. A shared decoder becomes every user's. Users that `source`
        does not have begin with fresh planes or, where a shared decoder serves all, with those of its users again.

        Raises:
            LinksimError: a network of another kind.
        """
        if not isinstance(source, Transceiver):
            raise cannot_start(self, source)
        if len(source.shape.widths) != len(self.shape.widths):
            raise WrongStart(
                f"networks of {len(self.shape.widths)} stages cannot start from one of {len(source.shape.widths)}: "
                "take a model for images of about this size"
            )
        planes = tiled(source.planes.detach(), self.planes.shape[-2:])
        if self.shared_decoder:
            # Users that share no channel uses need no planes to be told apart.
            planes = planes[torch.arange(self.users) % source.users]
        else:
            planes = torch.cat([planes[: self.users], self.planes.detach()[source.users :]])
        learned = {**source.state_dict(), "planes": planes}
        own = self.state_dict()
        for name, value in own.items():
            origin = name
            if name.startswith("decoders.") and source.shared_decoder:
                origin = "decoders.0." + name.split(".", 2)[2]
            if origin in learned:
                own[name] = _fit(learned[origin], value)
        self.load_state_dict(own)

    def embed(self, source: Network) -> None:
        """Starts as an orthogonal transceiver of M/N maps: each user has its own maps, and sends them as `source` does.

        Encoder and decoders are the source's; decoder u sees nothing of maps that are not user u's. The encoder sends
        the same on every user's maps, until it has learned from the planes to leave the others' empty
        (`linksim.schemes.semnoma.embedding`). Of users with the same plane all but the first keep fresh ones.

        Raises:
            LinksimError: a network of another kind, or maps that do not divide among the users.
        """
        if not isinstance(source, Transceiver) or not source.shared_decoder or self.shared_decoder:
            raise cannot_start(self, source)
        maps, users = self.shape.channels, self.users
        if maps != users * source.shape.channels or maps % (2 * users) or source.users != users:
            raise LinksimError(
                f"{maps} maps of {users} users cannot start as {source.shape.channels} maps of {source.users} users in "
                "separate channel uses: M/2 must be a multiple of N, and the source must be of rho/N"
            )
        planes = tiled(source.planes.detach(), self.planes.shape[-2:]).clone()
        for user in range(1, users):
            if any(torch.equal(planes[user], other) for other in planes[:user]):
                planes[user] = self.planes.detach()[user]
        learned = {**source.state_dict(), "planes": planes}
        own = self.state_dict()
        last, first = f"encoder.layers.{len(self.encoder.layers) - 1}.1.", "layers.0.0.weight"
        for name, value in own.items():
            origin = learned[re.sub(r"^decoders\.\d+", "decoders.0", name)]
            if name.startswith(last):
                for user in range(users):
                    value[own_maps(user, users, maps)] = origin / users
            elif name.startswith("decoders.") and name.endswith(first):
                value.zero_()[:, own_maps(int(name.split(".")[1]), users, maps)] = origin
            else:
                value.copy_(_fit(origin, value))
        self.load_state_dict(own)


def own_maps(user: int, users: int, maps: int) -> Tensor:
    """Indices of a user's own maps, the `user`-th N-th of the real ones and of the imaginary ones, [maps / N].

    Example:
        >>> own_maps(1, 2, 8).tolist()
        [2, 3, 6, 7]
    """
    half, each = maps // 2, maps // (2 * users)
    real = torch.arange(user * each, (user + 1) * each)
    return torch.cat([real, half + real])


def _fit(source: Tensor, target: Tensor) -> Tensor:
    """`source` in the shape of `target`; columns for side information that it has not are zero."""
    if source.shape == target.shape:
        return source.clone()
    if source.dim() != target.dim():
        return target
    fitted = source
    for axis, (have, want) in enumerate(zip(source.shape, target.shape, strict=True)):
        if have == want:
            continue
        if source.dim() == 2 and axis == 1:
            stay = min(have, want)
            fitted = torch.cat([fitted[:, :stay], fitted.new_zeros(len(fitted), want - stay)], dim=1)
            continue
        if want > have:
            return target
        fitted = fitted.index_select(axis, first_maps(have, want).to(source.device))
    return fitted
