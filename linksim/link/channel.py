"""Applying the channel: superposition or orthogonal uses, and the noise. Complex tensors only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from linksim.link.config import Access
from linksim.link.draws import SHARED, Stream, complex_normal

if TYPE_CHECKING:
    from torch import Tensor


def unit_noise(access: Access, users: int, uses: int, seed: int, groups: Sequence[int]) -> Tensor:
    """Noise of variance 1 per complex symbol, complex64.

    [B, uses] for the multiple-access channel, where it is added once; [B, N, uses] where every user has its own uses.
    """
    if access == "noma":
        noise = complex_normal(seed, Stream.NOISE, groups, [SHARED], uses)[:, 0]
    else:
        noise = complex_normal(seed, Stream.NOISE, groups, range(users), uses)
    return torch.from_numpy(noise)


def transmit_over(access: Access, symbols: Tensor, h: Tensor, noise: Tensor, noise_var: Tensor) -> Tensor:
    """The received signal.

    Args:
        access: "noma": y = sum_i h_i s_i + n (eq. 3), the noise added once; "oma": y_i = h_i s_i + n_i (eq. 11).
        symbols: complex [B, N, k].
        h: complex [B, N].
        noise: unit noise, complex [B, k] or [B, N, k] (see `unit_noise`).
        noise_var: sigma^2 per complex symbol, real [B].

    Returns:
        complex [B, k] for "noma", [B, N, k] for "oma".

    Raises:
        TypeError: a signal is real; a real tensor would carry its noise in one dimension, 3 dB off.
    """
    for name, tensor in (("symbols", symbols), ("h", h), ("noise", noise)):
        if not tensor.is_complex():
            raise TypeError(f"{name} must be complex, got {tensor.dtype}")
    faded = h[..., None] * symbols
    sigma = torch.sqrt(noise_var.to(torch.float32)).reshape(-1, *[1] * (noise.dim() - 1))
    return (faded.sum(dim=1) if access == "noma" else faded) + sigma * noise


def to_complex64(array: np.ndarray, device: str) -> Tensor:
    """`array` as a complex64 tensor on `device`."""
    return torch.from_numpy(np.ascontiguousarray(array, np.complex64)).to(device)
