"""The channel at work: one drawing of it, and the one way from symbols to the received signal. Complex tensors only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from linksim.errors import LinksimError
from linksim.link.config import Access, LinkConfig
from linksim.link.draws import SHARED, Draws, Stream
from linksim.link.fading import CHANNELS

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Realisation:
    """One drawing of a channel for B image groups.

    Args:
        h: coefficients, complex64 [B, N].
        draws: where its noise comes from.
    """

    h: Tensor
    draws: Draws

    def noise(self, access: Access, uses: int) -> Tensor:
        """Noise of variance 1 per complex symbol, complex64.

        [B, uses] for the multiple-access channel, where it is added once; [B, N, uses] where every user has its own.
        """
        if access == "noma":
            return self.draws.normal(Stream.NOISE, [SHARED], uses)[:, 0]
        return self.draws.normal(Stream.NOISE, range(self.h.shape[1]), uses)

    def through(self, symbols: Tensor, access: Access, noise_var: Tensor, noise: Tensor | None = None) -> Tensor:
        """The received signal: "noma", y = sum_i h_i s_i + n (eq. 3); "oma", y_i = h_i s_i + n_i (eq. 11).

        Args:
            symbols: complex [B, N, k].
            access: whether the users share their channel uses.
            noise_var: sigma^2 per complex symbol, real [B].
            noise: unit noise that was drawn before (see `noise`); None draws it.

        Returns:
            complex [B, k] for "noma", [B, N, k] for "oma".

        Raises:
            TypeError: a signal is real; a real tensor would carry its noise in one dimension, 3 dB off.

        Example:
            >>> from linksim.link.draws import KeyedDraws
            >>> link = realise(LinkConfig("awgn", users=2), KeyedDraws(seed=0, indices=[0]))
            >>> link.through(torch.ones(1, 2, 4) + 0j, "noma", torch.zeros(1)).real.tolist()
            [[2.0, 2.0, 2.0, 2.0]]
        """
        if noise is None:
            noise = self.noise(access, symbols.shape[-1])
        for name, tensor in (("symbols", symbols), ("h", self.h), ("noise", noise)):
            if not tensor.is_complex():
                raise TypeError(f"{name} must be complex, got {tensor.dtype}")
        faded = self.h[..., None] * symbols
        sigma = torch.sqrt(noise_var.to(torch.float32)).reshape(-1, *[1] * (noise.dim() - 1))
        return (faded.sum(dim=1) if access == "noma" else faded) + sigma * noise

    def estimate(self, error_var: float) -> Tensor:
        """The estimate of h that both ends share: h + e, e ~ CN(0, error_var); h itself at variance 0."""
        if error_var == 0:
            return self.h
        error = self.draws.normal(Stream.CSI_ERROR, range(self.h.shape[1]), 1)[..., 0]
        return (self.h + math.sqrt(error_var) * error.to(torch.complex128)).to(torch.complex64)


def realise(link: LinkConfig, draws: Draws) -> Realisation:
    """Draws a link's channel. Raises LinksimError for an unknown one, or one that breaks its contract."""
    h = CHANNELS.find(link.channel)(link).coefficients(draws)
    wanted = (draws.groups, link.users)
    if not isinstance(h, torch.Tensor) or h.shape != wanted or h.dtype != torch.complex64:
        found = f"{list(h.shape)} of {h.dtype}" if isinstance(h, torch.Tensor) else type(h).__name__
        raise LinksimError(f"channel {link.channel!r} drew {found}: complex64 {list(wanted)} is wanted")
    if not bool(torch.isfinite(torch.view_as_real(h)).all()):
        raise LinksimError(f"channel {link.channel!r} drew coefficients that are not finite")
    return Realisation(h, draws)
