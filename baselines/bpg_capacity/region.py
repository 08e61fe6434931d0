"""Rates of ideal codes over the Gaussian multiple-access channel."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray


def subset_bounds(gains: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Sum-rate bounds of the multiple-access channel with Gaussian codes, in bits per channel use.

    For a set S of users, log2 det(I + sum over S of g_i g_i^H), averaged over the symbols.

    Args:
        gains: g_i = h_i sqrt(p_i) / sigma, [B, M, N, T].

    Returns:
        [B, 2^N - 1], a column for each row of `subsets(N)`.
    """
    chosen = subsets(gains.shape[2]).astype(float)
    scaled = np.moveaxis(gains, 3, 1)
    if scaled.shape[2] == 1:
        # One antenna: the determinant is a number.
        snr = np.abs(scaled[:, :, 0]) ** 2
        found: NDArray[np.float64] = np.log2(1 + snr @ chosen.T).mean(axis=1)
        return found
    identity = np.eye(scaled.shape[2])
    bounds = [
        np.linalg.slogdet(identity + (scaled * members) @ np.conj(np.swapaxes(scaled, -1, -2)))[1] / np.log(2)
        for members in chosen
    ]
    together: NDArray[np.float64] = np.stack(bounds, axis=-1).mean(axis=1)
    return together


def subsets(users: int) -> NDArray[np.bool_]:
    """Every set of users but the empty one, [2^N - 1, N]."""
    return np.array(list(itertools.product([False, True], repeat=users))[1:])


def max_min_rates(bounds: NDArray[np.float64]) -> NDArray[np.float64]:
    """The fair point of the multiple-access region with joint decoding, in bits per channel use.

    All users' rates rise together until a set of users meets its sum-rate bound; those users stop there, the others go
    on with what is left to them. The result is the lexicographically largest point: the smallest rate is as large as
    can be, then the next smallest, and the sum lies on the region's face.

    Args:
        bounds: of every set of users, [B, 2^N - 1], see `subset_bounds`.

    Returns:
        rates [B, N].

    Example:
        >>> max_min_rates(np.log2([[2.0, 4.0, 5.0]])).round(3).tolist()
        [[1.322, 1.0]]
    """
    users = (bounds.shape[1] + 1).bit_length() - 1
    batch, chosen = len(bounds), subsets(users)
    rates = np.zeros((batch, users))
    free = np.ones((batch, users), bool)
    while free.any():
        frozen_rate = np.where(free, 0.0, rates) @ chosen.T
        free_users = free @ chosen.T.astype(int)
        with np.errstate(divide="ignore", invalid="ignore"):
            level = np.where(free_users > 0, (bounds - frozen_rate) / free_users, np.inf)
        step = level.min(axis=1)
        rates = np.where(free, step[:, None], rates)
        tight = (level <= step[:, None] * (1 + 1e-12) + 1e-15) & (free_users > 0)
        free &= ~((tight.astype(int) @ chosen.astype(int)) > 0)
    return rates


def orthogonal_rates(gains: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Rates [B, N] in bits per channel use of the system, each user alone in 1/N of the uses.

    log2(1 + |g_i|^2) / N with |g_i|^2 summed over the antennas (maximum ratio combining), averaged over the symbols.

    Args:
        gains: g_i = h_i sqrt(p_i) / sigma, [B, M, N, T].
    """
    snr = (np.abs(gains) ** 2).sum(axis=1)
    found: NDArray[np.float64] = np.log2(1 + snr).mean(axis=-1) / gains.shape[2]
    return found
