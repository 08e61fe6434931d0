"""The one place for the definitions of SNR, bandwidth ratio and decibels (KDD paper, section III)."""

import math
from fractions import Fraction

from linksim.errors import LinksimError

#: Average power that every definition is relative to (the paper's P_avg).
P_AVG = 1.0


def db_to_linear(value_db: float) -> float:
    """10^(dB / 10)."""
    return 10.0 ** (value_db / 10.0)


def linear_to_db(value: float) -> float:
    """10 log10(value)."""
    return 10.0 * math.log10(value)


def noise_variance(snr_db: float) -> float:
    """sigma^2, the noise variance per complex symbol, from gamma = 10 log10(P_avg / sigma^2)."""
    return P_AVG / db_to_linear(snr_db)


def parse_rho(text: str | float | Fraction) -> Fraction:
    """A bandwidth ratio from `1/6`, `0.25` or a number; positive."""
    try:
        rho = Fraction(text) if not isinstance(text, float) else Fraction(text).limit_denominator(10**6)
    except (ValueError, ZeroDivisionError):
        raise LinksimError(f"rho {text!r} is no ratio: write it as 1/6 or 0.25") from None
    if rho <= 0:
        raise LinksimError(f"rho {text} must be positive: write it as 1/6 or 0.25")
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
        below, above = Fraction(max(1, math.floor(k)), m), Fraction(math.floor(k) + 1, m)
        raise LinksimError(
            f"rho {rho} gives k = {float(k):g} channel uses for {'x'.join(map(str, image_shape))} images (m = {m}), "
            f"not a whole number: take {below} or {above}, or another ratio whose denominator divides {m}"
        )
    return int(k)
