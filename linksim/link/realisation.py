"""The channel at work: one drawing of it, and the one way from symbols to the received signal. Complex tensors only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from linksim.errors import LinksimError
from linksim.link.channels import make_channel
from linksim.link.config import Access, LinkConfig
from linksim.link.draws import SHARED, Draws, Stream
from linksim.source import source_digest


@dataclass(frozen=True)
class Realisation:
    """One drawing of a channel for B image groups.

    Args:
        h: coefficients from every user to every antenna, complex64 [B, M, N, T]; T is 1, or one for each symbol that a
            user sends.
        access: whether the users share their channel uses.
        draws: where its noise comes from.
    """

    h: Tensor
    access: Access
    draws: Draws

    def noise(self, symbols: int) -> Tensor:
        """Noise of variance 1 per complex symbol and antenna, complex64.

        [B, M, symbols] for the multiple-access channel, where it is added once; [B, M, N, symbols] where every user has
        channel uses of its own.
        """
        antennas, users = self.h.shape[1:3]
        if self.access == "noma":
            return self.draws.normals(Stream.NOISE, [SHARED], symbols, antennas)[:, :, 0]
        return self.draws.normals(Stream.NOISE, range(users), symbols, antennas)

    def through(self, symbols: Tensor, noise_var: Tensor, noise: Tensor | None = None) -> Tensor:
        """The received signal: "noma", y = H s + n (eq. 3 with M antennas); "oma", y_i = h_i s_i + n_i (eq. 11).

        Args:
            symbols: complex [B, N, k].
            noise_var: sigma^2 per complex symbol and antenna, real [B].
            noise: unit noise that was drawn before (see `noise`); None draws it.

        Returns:
            complex [B, M, k] for "noma", [B, M, N, k] for "oma".

        Raises:
            TypeError: a signal is real; a real tensor would carry its noise in one dimension, 3 dB off.

        Example:
            >>> from linksim.link.draws import KeyedDraws
            >>> link = realise(LinkConfig("awgn", users=2), KeyedDraws(seed=0, indices=[0]), symbols=4)
            >>> link.through(torch.ones(1, 2, 4) + 0j, torch.zeros(1)).real.tolist()
            [[[2.0, 2.0, 2.0, 2.0]]]
        """
        if noise is None:
            noise = self.noise(symbols.shape[-1])
        for name, tensor in (("symbols", symbols), ("h", self.h), ("noise", noise)):
            if not tensor.is_complex():
                raise TypeError(f"{name} must be complex, got {tensor.dtype}")
        faded = self.h[..., : symbols.shape[-1]] * symbols[:, None]
        sigma = torch.sqrt(noise_var.to(torch.float32)).reshape(-1, *[1] * (noise.dim() - 1))
        return (faded.sum(dim=2) if self.access == "noma" else faded) + sigma * noise

    def estimate(self, error_var: float) -> Tensor:
        """The estimate of h that both ends share: h + e, e ~ CN(0, error_var) for each coefficient; h at variance 0."""
        if error_var == 0:
            return self.h
        antennas, users, coefficients = self.h.shape[1:]
        error = self.draws.normals(Stream.CSI_ERROR, range(users), coefficients, antennas)
        return (self.h + math.sqrt(error_var) * error.to(torch.complex128)).to(torch.complex64)


def realise(link: LinkConfig, draws: Draws, symbols: int, access: Access = "noma") -> Realisation:
    """Draws a link's channel.

    Args:
        link: the channel, users and antennas.
        draws: for B image groups.
        symbols: that one user sends for an image.
        access: of users that share their channel uses ("noma"), or take turns ("oma": user i has the i-th N-th).

    Raises:
        LinksimError: an unknown channel, or one that breaks its contract.
    """
    channel, users = make_channel(link), link.users
    uses = symbols if access == "noma" else symbols * users
    h = channel.coefficients(draws, uses)
    wanted = (draws.groups, link.antennas, users, 1 if channel.block else uses)
    if not isinstance(h, Tensor) or h.shape != wanted or h.dtype != torch.complex64:
        found = f"{list(h.shape)} of {h.dtype}" if isinstance(h, Tensor) else type(h).__name__
        raise LinksimError(f"channel {link.channel!r} drew {found}: complex64 {list(wanted)} is wanted")
    # Of linksim's own it is known, and a GPU would be waited for at every training step.
    if source_digest(type(channel)) and not bool(torch.isfinite(torch.view_as_real(h)).all()):
        raise LinksimError(f"channel {link.channel!r} drew coefficients that are not finite")
    if access == "oma" and not channel.block:
        turns = h.unflatten(-1, (users, symbols))
        h = torch.stack([turns[:, :, user, user] for user in range(users)], dim=2)
    return Realisation(h, access, draws)
