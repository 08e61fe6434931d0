"""Linear analog transmission: Karhunen-Loeve coefficients of 8x8 blocks, and the linear least square error receiver.

What any learned scheme of one user has to beat: no network, no training but the second moments of blocks of CIFAR-10's
training images, which come along.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from linksim import Received, Scheme, Setting, SideInfo
from linksim.errors import LinksimError
from linksim.link.config import Access
from linksim.link.power import normalise

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 8
COLOURS = 3

#: Of each codeword, complex symbols of full power whose phase tells how strong the image is: one half coarsely, with a
#: phase that goes not once around; the other finely, round and round as often as the SNR lets the coarse ones tell.
PILOTS = 8

#: Radians of that phase between the weakest and the strongest image; what is left keeps noise from turning one into the
#: other.
_SPAN = 1.5 * math.pi

#: Natural logarithms of an image's strength over its mean: of the weakest and of the strongest that are told apart.
_STRENGTHS = (-3.0, 1.5)

#: Mean, variances and basis of blocks of CIFAR-10's training images, float32: `benchmarks/klt.py` writes them.
MOMENTS = Path(__file__).parent / "moments.npz"


class Klt(Scheme):
    """8x8 blocks, their strongest KLT coefficients, power by water-filling, and LMMSE at the receiver.

    Both ends are told gamma and the user's h, as learned schemes are: the transmitter allots power for the gain |h|^2.
    Of each block as many coefficients are sent as there are real symbols for it. A codeword has its user's power
    whatever the image, so that eight of its symbols tell the receiver by how much it was scaled.
    """

    name: ClassVar[str] = "klt"
    summary: ClassVar[str] = "linear: KLT of 8x8 blocks and LMMSE, needs no training"
    csi: ClassVar[str] = "own"
    access: ClassVar[Access] = "oma"

    def __init__(self, setting: Setting, params: Any) -> None:
        super().__init__(setting, params)
        colours, height, width = setting.image_shape
        if colours != COLOURS or height % SIDE or width % SIDE:
            raise LinksimError(f"klt sends blocks of {SIDE}x{SIDE}: take an --image-size of multiples of {SIDE}")
        self._blocks = (height // SIDE) * (width // SIDE)
        room = 2 * (self.symbols_per_user - PILOTS)
        self._sent = min(room // self._blocks, COLOURS * SIDE**2)
        if self._sent < 1:
            least = PILOTS + -(-self._blocks // 2)
            raise LinksimError(
                f"klt sends {PILOTS} pilots and a real symbol for each of {self._blocks} blocks: {least} symbols a "
                f"user at the least, not {self.symbols_per_user}: take a larger rho"
            )

    def transmit(self, images: Tensor, side: SideInfo) -> Tensor:
        """See `Scheme.transmit`."""
        import torch
        from torch.nn import functional

        gain = self.gains(side)
        mean, _, basis = _moments(images.device)
        blocks = functional.unfold(images.flatten(0, 1), SIDE, stride=SIDE).mT - mean
        values = (blocks @ basis[:, : self._sent] * self._amplitudes(side, gain)[:, None]).flatten(1)
        strength = values.square().mean(dim=1).sqrt().clamp_min(1e-12)
        low, high = _STRENGTHS
        told = (strength.log().clamp(low, high) - (low + high) / 2) / (high - low)
        values = values / strength[:, None] / math.sqrt(2)
        symbols = torch.zeros(len(values), self.symbols_per_user, dtype=torch.complex64, device=images.device)
        phases = torch.stack([_SPAN * told, 2 * math.pi * self._rounds(side, gain) * told], dim=1)
        pilots = torch.polar(torch.ones_like(phases), phases)
        symbols[:, :PILOTS] = pilots.repeat_interleave(PILOTS // 2, dim=1)
        paired = functional.pad(values, (0, values.shape[1] % 2)).unflatten(1, (-1, 2))
        symbols[:, PILOTS : PILOTS + paired.shape[1]] = torch.view_as_complex(paired.contiguous())
        return normalise(symbols.unflatten(0, images.shape[:2]), self.powers)

    def receive(self, received: Tensor, side: SideInfo) -> Received:
        """See `Scheme.receive`."""
        import torch
        from torch.nn import functional

        from linksim.link.detection import told_noise

        signal, gain = self.equalise(received, side).as_orthogonal(told_noise(side))
        shape = signal.shape[:2]
        powers = torch.tensor(self.powers, device=signal.device)
        # y = a s + n with s of unit power.
        signal, gain = (signal / powers.sqrt()[:, None]).flatten(0, 1), gain.flatten()
        noise = (told_noise(side)[:, None] / powers).flatten()
        low, high = _STRENGTHS
        coarse, fine = signal[:, :PILOTS].unflatten(1, (2, -1)).sum(dim=2).angle().unbind(1)
        rounds = self._rounds(side, gain.unflatten(0, shape))
        coarse, fine = coarse / _SPAN, fine / (2 * math.pi * rounds)
        told = fine + ((coarse - fine) * rounds).round() / rounds
        strength = (told.clamp(-0.5, 0.5) * (high - low) + (low + high) / 2).exp()
        used = self._blocks * self._sent
        values = torch.view_as_real(signal[:, PILOTS:].contiguous()).flatten(1)[:, :used]
        # Of full power: what is sent is scaled up where the codeword has room that no coefficient fills.
        full = math.sqrt(self.symbols_per_user / (PILOTS + used / 2))
        slope = full * gain / strength / math.sqrt(2)
        mean, variances, basis = _moments(received.device)
        amplitudes = self._amplitudes(side, gain.unflatten(0, shape)) * slope[:, None]
        known = variances[: self._sent]
        weights = known * amplitudes / (known * amplitudes.square() + noise[:, None] / 2).clamp_min(1e-30)
        found = values.unflatten(1, (self._blocks, self._sent)) * weights[:, None]
        blocks = found @ basis[:, : self._sent].T + mean
        images = functional.fold(blocks.mT, self.setting.image_shape[1:], SIDE, stride=SIDE)
        return Received(images.unflatten(0, shape).clamp(0, 1))

    def _amplitudes(self, side: SideInfo, gain: Tensor) -> Tensor:
        """What coefficients are multiplied with for mean power one, [B * N, sent]; `gain`: see `_received_noise`."""
        _, variances, _ = _moments(gain.device)
        return water_filled(variances[: self._sent], self._received_noise(side, gain))

    def _rounds(self, side: SideInfo, gain: Tensor) -> Tensor:
        """How often a fine pilot's phase goes around, [B * N]: five deviations of the coarse ones are half a round."""
        deviation = (self._received_noise(side, gain) / PILOTS).sqrt() / _SPAN
        return (0.2 / deviation).floor().clamp(1, 1000)

    def _received_noise(self, side: SideInfo, gain: Tensor) -> Tensor:
        """Variance of the noise of symbols of unit power, [B * N]; `gain`: a_i of y = a_i s + n, [B, N]."""
        import torch

        from linksim.link.detection import told_noise

        powers = torch.tensor(self.powers, device=gain.device)
        return (told_noise(side)[:, None] / (gain.square() * powers).clamp_min(1e-12)).flatten()


def water_filled(variances: Tensor, noise: Tensor) -> Tensor:
    """Amplitudes g_i that make the error of a linear receiver least: sum v_i / (1 + g_i^2 v_i / noise).

    Args:
        variances: of the coefficients, the largest first, [n].
        noise: of a symbol of unit power, [M].

    Returns:
        [M, n], with sum g_i^2 v_i = n.

    Example:
        >>> import torch
        >>> variances = torch.tensor([4.0, 1.0])
        >>> power = water_filled(variances, torch.tensor([1.0])).square() * variances
        >>> [round(value, 4) for value in power[0].tolist()]
        [1.6667, 0.3333]
    """
    import torch

    roots, count = variances.sqrt(), torch.arange(1, len(variances) + 1, device=variances.device)
    # With the first j in use: p_i = noise^.5 level root_i - noise, and their sum is n.
    level = (len(variances) + count * noise[:, None]) / (noise[:, None].sqrt() * roots.cumsum(0))
    power = noise[:, None].sqrt() * level * roots - noise[:, None]
    used = (power > 0).sum(dim=1).clamp_min(1)
    level = level.gather(1, used[:, None] - 1)
    power = (noise[:, None].sqrt() * level * roots - noise[:, None]).clamp_min(0)
    power = torch.where(count <= used[:, None], power, torch.zeros_like(power))
    return (power / variances.clamp_min(1e-12)).sqrt()


@functools.cache
def _moments(device: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [192], variances [192], the largest first, and the basis [192, 192], a coefficient a column."""
    import torch

    with np.load(MOMENTS) as content, torch.inference_mode(False):
        mean, variances, basis = (torch.from_numpy(content[name]).to(device) for name in ("mean", "variances", "basis"))
    return mean, variances, basis


def moments_of(images: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, variances and basis of the blocks of images, uint8 [T, 3, H, W]; float32, as `MOMENTS` holds them."""
    count, colours, height, width = images.shape
    blocks = images.reshape(count, colours, height // SIDE, SIDE, width // SIDE, SIDE).transpose(0, 2, 4, 1, 3, 5)
    flat = blocks.reshape(-1, colours * SIDE**2).astype(np.float64) / 255
    mean = flat.mean(axis=0)
    variances, basis = np.linalg.eigh((flat.T @ flat) / len(flat) - np.outer(mean, mean))
    order = np.argsort(-variances)
    # Which way an eigenvector points is chance.
    basis = basis[:, order] * np.sign(basis[np.abs(basis).argmax(axis=0), range(len(mean))])[order]
    found = {"mean": mean, "variances": np.maximum(variances[order], 0), "basis": basis}
    return {name: value.astype(np.float32) for name, value in found.items()}
