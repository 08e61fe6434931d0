"""Power: the two conventions of the field, splits between users, normalisation and the audit's measure."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from linksim.errors import LinksimError, shown
from linksim.link.config import Access, PowerConvention
from linksim.link.units import P_AVG

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Relative excess that the audit forgives: rounding of complex64 sums, nothing more.
TOLERANCE = 1e-4

#: What shares written with two digits may miss 1 by.
_ROUNDED = 0.0101


def total_power(power: PowerConvention, users: int, access: Access) -> float:
    """Power that all users together may put into one channel use.

    Where all send at once: P_avg under "sum" (the released code), N P_avg under "per-ue" (eq. 2). Where each user has
    its own uses, one user is active at a time and has P_avg under both, so that "sum" gives both accesses equal power a
    use.
    """
    return P_AVG * users if access == "noma" and power == "per-ue" else P_AVG


def user_powers(power: PowerConvention, users: int, access: Access, split: Sequence[float]) -> tuple[float, ...]:
    """Average power of each user over the uses in which it sends.

    Args:
        split: each user's share of the total where all send at once; shares sum to 1. Where users have their own uses
            each has the whole power of its uses and the split is not read.
    """
    total = total_power(power, users, access)
    if access == "oma":
        return (total,) * users
    return tuple(total * share for share in split)


def equal_split(users: int) -> tuple[float, ...]:
    """1/N for each user."""
    return (1.0 / users,) * users


def parse_split(text: str, users: int) -> tuple[float, ...]:
    """Shares of the total power from `equal`, `0.8/0.2`, or parts like `4/1`, which are scaled to sum to 1.

    `sic` is the ladder that successive cancellation needs: every user has four times the share of the next, which is
    0.8/0.2 for two.
    """
    if text == "equal":
        return equal_split(users)
    if text == "sic":
        parts = [4.0 ** (users - 1 - i) for i in range(users)]
    else:
        try:
            parts = [float(part) for part in text.split("/")]
        except ValueError:
            raise LinksimError(f"split {shown(text)}: write one share a user, like 0.8/0.2, or equal, or sic") from None
    # Written so that a share that is no number fails too; beyond a millionth of another a share is a slip of the pen.
    if len(parts) != users or not 0 < max(parts) <= 1e6 * min(parts) <= 1e12:
        raise LinksimError(
            f"split {shown(text)}: {users} users need {users} positive shares, like 0.8/0.2, or equal, or sic"
        )
    if max(parts) < 1 and abs(sum(parts) - 1) > _ROUNDED:
        raise LinksimError(
            f"split {shown(text)}: these shares add up to {sum(parts):.4g}: give some that add up to 1, like 0.8/0.2, "
            "or parts, like 4/1"
        )
    return tuple(part / sum(parts) for part in parts)


def exceeds_eq2(power: PowerConvention, access: Access, split: Sequence[float]) -> bool:
    """True where an unequal split under "per-ue" gives one user more than the P_avg of eq. 2."""
    powers = user_powers(power, len(split), access, split)
    return power == "per-ue" and access == "noma" and max(powers) > P_AVG * (1 + TOLERANCE)


def normalise(symbols: Tensor, powers: Sequence[float]) -> Tensor:
    """`symbols` complex [B, N, k], each codeword scaled to its user's average power; all-zero codewords stay zero."""
    import torch

    measured = symbol_power(symbols)
    target = _targets(tuple(powers), measured.dtype, measured.device)
    scale = torch.where(measured > 0, torch.sqrt(target / measured.clamp_min(1e-30)), torch.zeros_like(measured))
    return symbols * scale[..., None]


@functools.cache
def _targets(powers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Powers as a tensor, made once: a copy to a GPU at every step would have the host wait for it."""
    import torch

    # An evaluation may ask first, and training cannot use what inference mode made.
    with torch.inference_mode(False):
        return torch.tensor(powers, dtype=dtype, device=device)


def symbol_power(symbols: Tensor) -> Tensor:
    """Mean of |s|^2 over the symbols of each codeword: complex [B, N, k] to float32 [B, N]."""
    return (symbols.real.square() + symbols.imag.square()).mean(dim=-1)
