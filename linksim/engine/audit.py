"""Power and bandwidth as measured on the symbols that a scheme sent, never as it claims them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from linksim.errors import LinksimError, shown
from linksim.link.power import TOLERANCE, exceeds_eq2, symbol_power, total_power, user_powers

if TYPE_CHECKING:
    from torch import Tensor

    from linksim.schemes.base import Scheme


def audit_symbols(scheme: Scheme, symbols: Tensor, groups: int) -> tuple[float, int]:
    """Measures one batch.

    Args:
        symbols: what the scheme sent, complex [B, N, k of a user].
        groups: B, the image groups that it was given.

    Returns:
        tx_power: mean power a channel use, all users together, in units of P_avg.
        channel_uses: channel uses of the system for one image group.

    Raises:
        LinksimError: not complex, more channel uses than the budget, the users' shares above the convention's total, a
            codeword above its user's power, or symbols that are not finite.
    """
    link, name = scheme.setting.link, scheme.name
    if not symbols.is_complex():
        raise LinksimError(f"audit: scheme {name!r} sent real symbols ({symbols.dtype}): send complex ones")
    if scheme.access not in ("noma", "oma"):
        raise LinksimError(f"audit: scheme {name!r} has access {shown(scheme.access)}: noma and oma are known")
    if symbols.dim() != 3 or symbols.shape[:2] != (groups, link.users):
        raise LinksimError(
            f"audit: scheme {name!r} sent symbols of shape {list(symbols.shape)}: "
            f"[{groups} groups, {link.users} users, channel uses] is wanted"
        )
    users, uses = symbols.shape[1:]
    if not isinstance(scheme.overhead, int) or not 1 <= scheme.overhead <= users:
        raise LinksimError(
            f"audit: scheme {name!r} has overhead {shown(scheme.overhead)}: 1 to N times the budget are possible"
        )
    system_uses = uses * (users if scheme.access == "oma" else 1)
    budget = scheme.setting.channel_uses * scheme.overhead
    if system_uses > budget:
        raise LinksimError(
            f"audit: scheme {name!r} used {system_uses} channel uses a group, its budget is {budget}: send fewer"
        )
    total = total_power(link.power, link.users, scheme.access)
    shares = scheme.split
    if len(shares) != users or not all(share >= 0 for share in shares) or not sum(shares) <= 1 + TOLERANCE:
        raise LinksimError(f"audit: scheme {name!r} splits the power into {shares}: one share a user, 1 in all at most")
    measured = symbol_power(symbols)
    if not bool(measured.isfinite().all()):
        raise LinksimError(f"audit: scheme {name!r} sent symbols that are not finite")
    for user, allowed in enumerate(user_powers(link.power, users, scheme.access, shares)):
        worst = float(measured[:, user].max())
        if worst > allowed * (1 + TOLERANCE):
            raise LinksimError(
                f"audit: scheme {name!r} sent a codeword of user {user} at power {worst:.6g}, allowed are "
                f"{allowed:.6g} (convention {link.power!r}, total {total:g}): normalise it"
            )
    power = measured.double().mean(dim=0)
    return float(power.mean() if scheme.access == "oma" else power.sum()), system_uses


#: Share of the allowed power below which a row says so: such a scheme is judged at a lower SNR than the others.
FULL_POWER = 0.99

#: What a note on too little power ends with.
TOO_LITTLE = "of the power allowed"


def allowed_power(scheme: Scheme) -> float:
    """Power a channel use, all users together, that the link allows; as `audit_symbols` measures it."""
    link = scheme.setting.link
    return total_power(link.power, link.users, scheme.access)


def low_power_note(measured: float, allowed: float) -> str:
    """What a row must say of a scheme that sends less than it may; empty from FULL_POWER on.

    Example:
        >>> low_power_note(0.27, 1.0)
        'sends 0.27 of the power allowed (-5.7 dB)'
        >>> low_power_note(0.995, 1.0)
        ''
    """
    share = measured / allowed
    if share >= FULL_POWER:
        return ""
    loss = f"{10 * math.log10(share):.1f} dB" if share > 0 else "silent"
    return f"sends {share:.2g} {TOO_LITTLE} ({loss})"


def power_note(scheme: Scheme) -> str:
    """What a row must say of the power split; empty where nothing."""
    if exceeds_eq2(scheme.setting.link.power, scheme.access, scheme.split):
        return "unequal split under per-ue: one user exceeds P_avg of eq. 2"
    return ""
