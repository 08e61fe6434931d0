"""The one place for the definitions of SNR, bandwidth ratio and decibels (KDD paper, section III)."""

import math
from fractions import Fraction

from linksim.errors import LinksimError, shown

#: Average power that every definition is relative to (the paper's P_avg).
P_AVG = 1.0

#: Channel uses a source value, at the most.
MAX_RHO = 16


def db_to_linear(value_db: float) -> float:
    """10^(dB / 10)."""
    found: float = 10.0 ** (value_db / 10.0)
    return found


def noise_variance(snr_db: float) -> float:
    """sigma^2, the noise variance per complex symbol, from gamma = 10 log10(P_avg / sigma^2)."""
    return P_AVG / db_to_linear(snr_db)


def parse_rho(text: str | float | Fraction) -> Fraction:
    """A bandwidth ratio from `1/6`, `0.25` or a number; positive."""
    try:
        # An exponent would let a few letters stand for a number that takes minutes to write out.
        if isinstance(text, str) and (len(text) > 40 or "e" in text.lower()):
            raise ValueError
        rho = Fraction(text) if not isinstance(text, float) else Fraction(text).limit_denominator(10**6)
    except (ValueError, ZeroDivisionError, OverflowError, TypeError):
        raise LinksimError(f"rho {shown(text)} is no ratio: write it as 1/6 or 0.25") from None
    if not 0 < rho <= MAX_RHO:
        raise LinksimError(f"rho {str(text)[:40]} must be positive and at most {MAX_RHO}: write it as 1/6 or 0.25")
    return rho


def source_size(image_shape: tuple[int, int, int]) -> int:
    """m = C * H * W, the number of source values of one image."""
    return math.prod(image_shape)


def channel_uses(rho: Fraction, image_shape: tuple[int, int, int]) -> int:
    """k = rho * m complex channel uses for images of `image_shape` (C, H, W).

    Raises LinksimError where k is not a whole number, naming the nearest ratios that give one.
    """
    m = source_size(image_shape)
    k = rho * m
    if k.denominator != 1 or k < 1:
        near = [str(Fraction(uses, m)) for uses in (math.floor(k), math.floor(k) + 1) if uses]
        raise LinksimError(
            f"rho {rho} gives k = {float(k):g} channel uses for {'x'.join(map(str, image_shape))} images (m = {m}), "
            f"not a whole number: take {' or '.join(near)}, or another ratio whose denominator divides {m}"
        )
    return int(k)
