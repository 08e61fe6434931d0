"""Channel coefficients: one complex h per user and image group (block fading), constant over the group's symbols."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from linksim.errors import unknown
from linksim.link.config import LinkConfig
from linksim.link.draws import Stream, complex_normal
from linksim.link.units import db_to_linear

Coefficients = NDArray[np.complex64]


def _awgn(link: LinkConfig, seed: int, groups: Sequence[int]) -> Coefficients:
    return np.ones((len(groups), link.users), np.complex64)


def _rayleigh(link: LinkConfig, seed: int, groups: Sequence[int]) -> Coefficients:
    return complex_normal(seed, Stream.FADING, groups, range(link.users), 1)[..., 0]


def _rician(link: LinkConfig, seed: int, groups: Sequence[int]) -> Coefficients:
    k = db_to_linear(link.rician_k_db)
    line_of_sight, scattered = np.sqrt(k / (k + 1)), np.sqrt(1 / (k + 1))
    return (line_of_sight + scattered * _rayleigh(link, seed, groups)).astype(np.complex64)


#: Channels by name: what they are, and how their coefficients are drawn. E|h|^2 = 1 for each.
CHANNELS: dict[str, tuple[str, Callable[[LinkConfig, int, Sequence[int]], Coefficients]]] = {
    "awgn": ("additive white Gaussian noise, h = 1", _awgn),
    "rayleigh": ("block Rayleigh fading, h ~ CN(0, 1) a user and image group", _rayleigh),
    "rician": ("block Rician fading with K factor --rician-k dB, line of sight of phase 0", _rician),
}


def draw_coefficients(link: LinkConfig, seed: int, groups: Sequence[int]) -> Coefficients:
    """h of every user of every group, complex64 [B, N]; E|h|^2 = 1. Raises LinksimError for an unknown channel."""
    if link.channel not in CHANNELS:
        raise unknown("channel", link.channel, CHANNELS)
    return CHANNELS[link.channel][1](link, seed, groups)


def estimate_coefficients(link: LinkConfig, h: Coefficients, seed: int, groups: Sequence[int]) -> Coefficients:
    """The estimate of `h` [B, N] that both ends share: h + e, e ~ CN(0, link.csi_error_var); h itself at variance 0."""
    if link.csi_error_var == 0:
        return h
    error = complex_normal(seed, Stream.CSI_ERROR, groups, range(link.users), 1)[..., 0]
    return (h + np.sqrt(link.csi_error_var) * error).astype(np.complex64)
