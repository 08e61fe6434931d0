"""The one place for the definitions of SNR, bandwidth ratio and decibels (KDD paper, section III)."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from typing import TYPE_CHECKING

from linksim.errors import LinksimError, shown

if TYPE_CHECKING:
    from torch import Tensor

#: Average power that every definition is relative to (the paper's P_avg).
P_AVG = 1.0

#: Channel uses a source value, at the most.
MAX_RHO = 16


#: What values of images may overshoot to, and by how much fall below 0; beyond it the scale is another than [0, 1].
_LARGEST = 2.0


def off_scale(images: Tensor) -> str | None:
    """What values images have that are far from [0, 1], or no numbers; None where they have none.

    Example:
        >>> import torch
        >>> off_scale(torch.tensor([0.0, 255.0])), off_scale(torch.tensor([-0.5, 1.2]))
        ('values from 0 to 255', None)
    """
    if not images.numel():
        return None
    low, high = float(images.min()), float(images.max())
    return None if low >= 1 - _LARGEST and high <= _LARGEST else f"values from {low:.3g} to {high:.3g}"


def db_to_linear(value_db: float) -> float:
    """10^(dB / 10)."""
    found: float = 10.0 ** (value_db / 10.0)
    return found


def noise_variance(snr_db: float) -> float:
    """sigma^2, the noise variance per complex symbol, from gamma = 10 log10(P_avg / sigma^2)."""
    return P_AVG / db_to_linear(snr_db)


def parse_rho(text: str | float | Fraction) -> Fraction:
    """A bandwidth ratio from `1/6`, `0.25` or a number; positive.

    A decimal fraction stands for the simplest ratio of which it is the rounded value, with a denominator of twos and
    threes as images have them; a warning says so.

    Raises:
        LinksimError: no ratio, or one out of range.

    Example:
        >>> parse_rho("1/12"), parse_rho(1 / 6), parse_rho(0.25)
        (Fraction(1, 12), Fraction(1, 6), Fraction(1, 4))
    """
    try:
        # Also a float of NumPy.
        if isinstance(text, bool):
            raise TypeError
        text = repr(float(text)) if isinstance(text, float) else text
        # An exponent would let a few letters stand for a number that takes minutes to write out.
        if isinstance(text, str) and (len(text) > 40 or "e" in text.lower()):
            raise ValueError
        rho = Fraction(text)
    except (ValueError, ZeroDivisionError, OverflowError, TypeError):
        raise LinksimError(f"rho {shown(text)} is no ratio: write it as 1/6 or 0.25") from None
    if not 0 < rho <= MAX_RHO:
        raise LinksimError(f"rho {str(text)[:40]} must be positive and at most {MAX_RHO}: write it as 1/6 or 0.25")
    if isinstance(text, str) and "." in text:
        rho = _rounded(rho, len(text.strip().partition(".")[2]), text)
    return rho


#: Numerator of a ratio that somebody may have rounded, at the most; what has such a one is meant as it is: 0.05, 0.16.
_SIMPLE = 4

#: Denominators of twos and threes, as far as images go.
_DENOMINATORS = sorted(2**twos * 3**threes for twos in range(11) for threes in range(3))


def _rounded(exact: Fraction, digits: int, text: str) -> Fraction:
    """The simplest ratio that rounds to a number of so many digits behind its point; itself where there is none."""
    # A float that was divided lies as near to its ratio as its 53 bits let it.
    half = exact / 2**51 if digits > 14 else Fraction(1, 2 * 10**digits)
    if exact.denominator in _DENOMINATORS or exact.numerator <= _SIMPLE or digits < 2:
        return exact
    near = (Fraction(round(exact * count), count) for count in _DENOMINATORS)
    found = next((ratio for ratio in near if 0 < ratio.numerator <= _SIMPLE and abs(ratio - exact) <= half), exact)
    if found != exact and digits <= 14:
        warnings.warn(f"rho {text} is taken as {found}", stacklevel=2)
    return found


def ratio_of(value: float) -> Fraction:
    """The ratio that a table's column `rho` holds as a float.

    Example:
        >>> ratio_of(4 / 25), ratio_of(1 / 6)
        (Fraction(4, 25), Fraction(1, 6))
    """
    return Fraction(value).limit_denominator(10**6)


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
