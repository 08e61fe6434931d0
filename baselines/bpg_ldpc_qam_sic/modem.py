"""Mapping bits to QAM symbols and back to log-likelihood ratios, with Sionna's blocks."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor


class Modem:
    """Gray-mapped QAM of unit average power.

    Args:
        bits_per_symbol: even.
        device: torch device.
    """

    def __init__(self, bits_per_symbol: int, device: str) -> None:
        from linksim.link.phy import sionna

        mapping = sionna("mapping")
        self.bits_per_symbol = bits_per_symbol
        self._mapper: Any = mapping.Mapper("qam", bits_per_symbol, device=device)
        # A square QAM is two independent PAMs, even bits on the real axis and odd ones on the imaginary: demapping each
        # by itself is exact and visits 2^(m/2) points instead of 2^m.
        self._demapper: Any = (
            mapping.Demapper("app", "pam", bits_per_symbol // 2, device=device) if bits_per_symbol > 2 else None
        )

    def modulate(self, bits: Tensor) -> Tensor:
        """Bits [..., n] (0 or 1) to symbols complex64 [..., n / bits_per_symbol]."""
        found: Tensor = self._mapper(bits.to(torch.float32)).to(torch.complex64)
        return found

    def demodulate(self, symbols: Tensor, noise_var: Tensor) -> Tensor:
        """Exact LLRs, log p(1)/p(0), of symbols in circular Gaussian noise.

        Args:
            symbols: equalised, complex64 [..., s].
            noise_var: variance per complex symbol after equalisation, float32 of the same shape.

        Returns:
            float32 [..., s * bits_per_symbol].
        """
        if self._demapper is None:
            # QPSK in closed form: bit 0 is the positive half of an axis whose points lie at 1/sqrt(2).
            parts = torch.stack([symbols.real, symbols.imag], dim=-1)
            return (-2 * math.sqrt(2) / noise_var[..., None] * parts).flatten(-2)
        axes = [
            self._demapper((math.sqrt(2) * part).to(torch.complex64), 2 * noise_var).reshape(
                *symbols.shape, self.bits_per_symbol // 2
            )
            for part in (symbols.real, symbols.imag)
        ]
        return torch.stack(axes, dim=-1).flatten(-3)


@functools.lru_cache(maxsize=8)
def modem(bits_per_symbol: int, device: str) -> Modem:
    """A shared modem."""
    return Modem(bits_per_symbol, device)
