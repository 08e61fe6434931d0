"""Rates of ideal codes over the Gaussian multiple-access channel."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray


def max_min_rates(received_snr: NDArray[np.float64]) -> NDArray[np.float64]:
    """The fair point of the multiple-access region with joint decoding, in bits per channel use.

    All users' rates rise together until a set of users meets its sum-rate bound, log2(1 + sum of its SNRs); those users
    stop there, the others go on with what is left to them. The result is the lexicographically largest point: the
    smallest rate is as large as can be, then the next smallest, and the sum lies on the region's face.

    Args:
        received_snr: |h_i|^2 p_i / sigma^2, linear [B, N].

    Returns:
        rates [B, N].
    """
    batch, users = received_snr.shape
    rates = np.zeros((batch, users))
    free = np.ones((batch, users), bool)
    subsets = np.array(list(itertools.product([False, True], repeat=users))[1:])
    bounds = np.log2(1 + received_snr @ subsets.T.astype(float))
    while free.any():
        frozen_rate = np.where(free, 0.0, rates) @ subsets.T
        free_users = free @ subsets.T.astype(int)
        with np.errstate(divide="ignore", invalid="ignore"):
            level = np.where(free_users > 0, (bounds - frozen_rate) / free_users, np.inf)
        step = level.min(axis=1)
        rates = np.where(free, step[:, None], rates)
        tight = (level <= step[:, None] * (1 + 1e-12) + 1e-15) & (free_users > 0)
        free &= ~((tight.astype(int) @ subsets.astype(int)) > 0)
    return rates


def orthogonal_rates(received_snr: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rates [B, N] in bits per channel use of the system, each user alone in 1/N of the uses: log2(1 + SNR_i) / N."""
    return np.log2(1 + received_snr) / received_snr.shape[1]
