"""Successive interference cancellation at the level of code words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.bpg_ldpc_qam_sic.blocks import BlockCoder
from baselines.bpg_ldpc_qam_sic.modem import Modem
from linksim.link.config import Detector
from linksim.link.detection import at_least, equalise, joint_llrs
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

    The order is by received power, frame by frame. Each user is heard through the linear receiver of least mean square
    error against the users that are left; with one antenna that is the division by its coefficient. A user whose
    checksum fails is not subtracted, since its re-encoded word would add errors: it stays in the noise of those that
    follow.

    Args:
        received: complex64 [F, images, M, k]; each image of a frame has its own coefficients (block fading).
        gains: h_i sqrt(p_i) as the receiver knows them, complex64 [F, images, M, N, T], T = 1 or at least k.
        noise_var: sigma^2 per complex symbol and antenna and whatever else is noise to the receiver, float32
            [F, images].
        coder: of the frames.
        modem: of the symbols.
        genie: the symbols really sent, unit power, complex64 [F, N, images, k], to be subtracted in place of the
            re-encoded ones (a test's bound).
    """
    gains = gains[..., : received.shape[-1]]
    frames, images, antennas, users = gains.shape[:4]
    strength = gains.abs().square().sum(dim=2)
    order = torch.argsort(strength.mean(dim=(1, 3)), dim=1, descending=True, stable=True)
    residual = received.clone()
    interference = strength.sum(dim=2)
    left = torch.ones(frames, users, device=received.device)
    blocks, info_bits = coder.frame.blocks, coder.frame.info_bits
    info = np.zeros((frames, users, blocks, info_bits), np.uint8)
    good = np.zeros((frames, users, blocks), bool)
    rows = np.arange(frames)
    for rank in range(users):
        user = order[:, rank]
        pick = user[:, None, None, None, None].expand(-1, images, antennas, 1, gains.shape[-1])
        gain = gains.gather(3, pick)[:, :, :, 0]
        own = strength.gather(2, pick[:, :, 0])[:, :, 0]
        left[torch.arange(frames), user] = 0
        if antennas == 1:
            noise = noise_var[..., None] + (interference - own).clamp_min(0)
            equalised, error_var = residual[:, :, 0] * (gain[:, :, 0].conj() / own), noise / own
        else:
            equalised, error_var = _hear(residual, gain, gains * left[:, None, None, :, None], noise_var)
        llr = modem.demodulate(equalised, error_var.expand(equalised.shape))
        who = user.cpu().numpy()
        bits, holds = coder.decode(llr.reshape(frames, -1).cpu().numpy(), who)
        info[rows, who], good[rows, who] = bits, holds
        solved = torch.from_numpy(holds.all(axis=1)).to(received.device)
        if genie is not None:
            sent = genie[torch.arange(frames), user]
            solved = torch.ones_like(solved)
        else:
            sent = modulate_frames(coder, modem, bits, who, str(received.device))
        residual = residual - solved[:, None, None, None] * gain * sent[:, :, None]
        interference = interference - solved[:, None, None] * own
        left[torch.arange(frames), user] = 1 - solved.to(left.dtype)
    return Detected(info, good, order.cpu().numpy())


def _hear(received: Tensor, gain: Tensor, others: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
    """One user's symbols of unit power by linear least squares against the others, and the variance of their error.

    Args:
        received: complex [F, images, M, k].
        gain: of the user, complex [F, images, M, T].
        others: gains of those that interfere, complex [F, images, M, N, T].
        noise_var: real [F, images].

    Returns:
        complex [F, images, k] and real [F, images, T].
    """
    from linksim.link.phy import sionna

    between = others.movedim(-1, 2).to(torch.complex128)
    power = gain.abs().square().sum(dim=2).mean(dim=-1) + others.abs().square().sum(dim=(2, 3)).mean(dim=-1)
    noise = at_least(noise_var, power)
    white = noise[..., None, None, None] * torch.eye(received.shape[2], device=received.device)
    covariance = between @ between.mH + white
    found, error_var = sionna("mimo").lmmse_equalizer(received.mT, gain.mT[..., None], covariance, precision="double")
    return found[..., 0].to(torch.complex64), error_var[..., 0].float()


def decode_apart(
    received: Tensor,
    gains: Tensor,
    noise_var: Tensor,
    coder: BlockCoder,
    modem: Modem,
    detector: Detector | None,
) -> Detected:
    """Decodes every user by itself, without cancellation; arguments as of `cancel_successively`.

    Args:
        detector: linear detector in front; None takes the LLRs of joint maximum a-posteriori detection.

    Raises:
        LinksimError: zero forcing with fewer antennas than users; too many joint hypotheses.
    """
    frames, _, _, users = gains.shape[:4]
    flat = (received.flatten(0, 1), gains.flatten(0, 1), noise_var.flatten(), (1.0,) * users)
    if detector is None:
        llr = joint_llrs(*flat, modem.bits_per_symbol)
    else:
        found = equalise(*flat, "noma", detector)
        llr = modem.demodulate(found.symbols, found.noise_var.expand(found.symbols.shape))
    llr = llr.unflatten(0, (frames, -1)).transpose(1, 2)
    info = np.zeros((frames, users, coder.frame.blocks, coder.frame.info_bits), np.uint8)
    good = np.zeros((frames, users, coder.frame.blocks), bool)
    for user in range(users):
        own = llr[:, user].reshape(frames, -1).cpu().numpy()
        info[:, user], good[:, user] = coder.decode(own, np.full(frames, user))
    return Detected(info, good, np.tile(np.arange(users), (frames, 1)))
