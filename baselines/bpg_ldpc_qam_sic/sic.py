"""Successive interference cancellation at the level of code words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.bpg_ldpc_qam_sic.blocks import BlockCoder
from baselines.bpg_ldpc_qam_sic.modem import Modem
from linksim.link.power import normalise


@dataclass(frozen=True)
class Detected:
    """What cancellation found.

    Args:
        info: information bits uint8 [F, N, blocks, info_bits].
        good: whether each block's checksum holds, bool [F, N, blocks].
        order: the users of each frame in the order in which they were decoded, int [F, N].
    """

    info: NDArray[np.uint8]
    good: NDArray[np.bool_]
    order: NDArray[np.intp]


def modulate_frames(
    coder: BlockCoder, modem: Modem, info: NDArray[np.uint8], users: NDArray[np.intp], device: str
) -> Tensor:
    """Information bits of frames of `users` [F] to symbols of unit average power an image.

    uint8 [F, blocks, info_bits] to complex64 [F, images, k].
    """
    coded = torch.from_numpy(coder.encode(info, users)).to(device)
    symbols = modem.modulate(coded).reshape(len(info), coder.frame.images, -1)
    return normalise(symbols, (1.0,) * coder.frame.images)


def cancel_successively(
    received: Tensor,
    gains: Tensor,
    noise_var: Tensor,
    coder: BlockCoder,
    modem: Modem,
    genie: Tensor | None = None,
) -> Detected:
    """Decodes the strongest user with the others as noise, re-encodes and subtracts it, and goes on with the next.

    The order is by received power, frame by frame. A user whose checksum fails is not subtracted, since its re-encoded
    word would add errors: it stays in the noise of those that follow.

    Args:
        received: complex64 [F, images, k]; each image of a frame has its own coefficients (block fading).
        gains: h_i sqrt(p_i) as the receiver knows them, complex64 [F, images, N].
        noise_var: sigma^2 per complex symbol and whatever else is noise to the receiver, float32 [F, images].
        coder: of the frames.
        modem: of the symbols.
        genie: the symbols really sent, unit power, complex64 [F, N, images, k], to be subtracted in place of the
            re-encoded ones (a test's bound).
    """
    frames, users = gains.shape[0], gains.shape[2]
    strength = gains.abs().square()
    order = torch.argsort(strength.mean(dim=1), dim=1, descending=True, stable=True)
    residual = received.clone()
    interference = strength.sum(dim=2)
    blocks, info_bits = coder.frame.blocks, coder.frame.info_bits
    info = np.zeros((frames, users, blocks, info_bits), np.uint8)
    good = np.zeros((frames, users, blocks), bool)
    rows = np.arange(frames)
    for rank in range(users):
        user = order[:, rank]
        pick = user[:, None, None].expand(-1, gains.shape[1], 1)
        gain = gains.gather(2, pick)[..., 0]
        own = strength.gather(2, pick)[..., 0]
        noise = noise_var + (interference - own).clamp_min(0)
        equalised = residual * (gain.conj() / own)[..., None]
        llr = modem.demodulate(equalised, (noise / own)[..., None].expand(equalised.shape))
        who = user.cpu().numpy()
        bits, holds = coder.decode(llr.reshape(frames, -1).cpu().numpy(), who)
        info[rows, who], good[rows, who] = bits, holds
        solved = torch.from_numpy(holds.all(axis=1)).to(received.device)
        if genie is not None:
            sent = genie[torch.arange(frames), user]
            solved = torch.ones_like(solved)
        else:
            sent = modulate_frames(coder, modem, bits, who, str(received.device))
        residual = residual - solved[:, None, None] * gain[..., None] * sent
        interference = interference - solved[:, None] * own
    return Detected(info, good, order.cpu().numpy())
