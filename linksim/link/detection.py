"""Telling users apart with several antennas: linear detectors and joint maximum likelihood, with Sionna's blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from linksim.errors import LinksimError
from linksim.link.phy import sionna

if TYPE_CHECKING:
    from collections.abc import Sequence

    from linksim.link.config import Access, Detector, LinkConfig, SideInfo

#: Joint hypotheses of all users' symbols, at the most.
MAX_HYPOTHESES = 4096

#: Noise below this share of all users' power is taken for it: no matrix is inverted that double precision cannot.
NEGLIGIBLE = 1e-12

#: Numbers that joint detection holds at once.
_TOGETHER = 1 << 24


@dataclass(frozen=True)
class Equalised:
    """Every user's symbols as a detector finds them: s_i + e_i.

    Args:
        symbols: s_i + e_i, complex64 [B, N, k].
        noise_var: variance of e_i, what is left of the other users included, float32 [B, N, k or 1].
        powers: average power of s_i, one a user.
    """

    symbols: Tensor
    noise_var: Tensor
    powers: tuple[float, ...]

    @property
    def sinr(self) -> Tensor:
        """Power of s_i over that of e_i, float32 [B, N]; over symbols of different quality the effective one.

        That is the SINR of a channel without fading in which linear estimation has the same mean square error:
        1 / (1 + sinr) is averaged.
        """
        return 1 / (1 / (1 + self._sinrs)).mean(dim=-1) - 1

    @property
    def _sinrs(self) -> Tensor:
        power = torch.tensor(self.powers, device=self.noise_var.device)[:, None]
        return power / self.noise_var

    def as_orthogonal(self, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """The same as signals that never met: y_i = a_i s_i + n_i with n_i of the variance `noise_var`.

        What a receiver of orthogonal users was made for can hear this. Where the quality changes over the symbols, each
        is weighed as linear estimation would, so that a deep fade adds no noise; on average the gain is a_i.

        Args:
            noise_var: sigma^2 of the link, float32 [B].

        Returns:
            y_i, complex64 [B, N, k]; a_i >= 0, float32 [B, N].

        Example:
            >>> found = Equalised(torch.ones(1, 1, 4) + 0j, torch.full((1, 1, 1), 0.25), (1.0,))
            >>> signal, gain = found.as_orthogonal(torch.ones(1))
            >>> gain.tolist(), signal.real.tolist()
            ([[2.0]], [[[2.0, 2.0, 2.0, 2.0]]])
        """
        power = torch.tensor(self.powers, device=self.noise_var.device).clamp_min(1e-30)
        effective, each = self.sinr, self._sinrs
        gain = (effective * noise_var[:, None] / power).sqrt()
        weight: Tensor | float = 1.0
        if each.shape[-1] > 1:
            weight = each / (1 + each) * ((1 + effective) / effective.clamp_min(1e-30))[..., None]
        return gain[..., None] * weight * self.symbols, gain


def told_noise(side: SideInfo) -> Tensor:
    """sigma^2 as detected signals are scaled to it, float32 [B]; what detectors take for nothing is none here."""
    return side.noise_var.clamp_min(NEGLIGIBLE)


def gains(
    h: Tensor,
    noise: Tensor,
    noise_var: Tensor,
    powers: Sequence[float],
    access: Access,
    detector: Detector,
) -> Tensor:
    """a_i of `Equalised.as_orthogonal` from the channel alone, float32 [B, N]: both ends know it beforehand.

    Args:
        h: complex [B, M, N, T].
        noise: what an antenna takes for noise, real [B].
        noise_var: sigma^2 of the link, real [B].
        powers, access, detector: see `equalise`.
    """
    antennas, users, coefficients = h.shape[1:]
    shape = (antennas, coefficients) if access == "noma" else (antennas, users, coefficients)
    silence = torch.zeros(len(h), *shape, dtype=h.dtype, device=h.device)
    return equalise(silence, h, noise, powers, access, detector).as_orthogonal(noise_var)[1]


def equalise(
    received: Tensor, h: Tensor, noise_var: Tensor, powers: Sequence[float], access: Access, detector: Detector
) -> Equalised:
    """Every user's symbols from what the antennas receive.

    Users in channel uses of their own are combined over the antennas by maximum ratio, whatever the detector.

    Args:
        received: complex [B, M, k] ("noma") or [B, M, N, k] ("oma").
        h: complex [B, M, N, T], T = 1 or at least k.
        noise_var: sigma^2 per complex symbol and antenna, real [B].
        powers: average power of every user's symbols.
        detector: "lmmse", "zf" (zero forcing; at least as many antennas as users) or "mf" (matched filter).

    Raises:
        LinksimError: zero forcing with fewer antennas than users.

    Example:
        >>> h = torch.eye(2)[None, :, :, None] + 0j
        >>> sent = torch.tensor([[[1.0, -1.0], [1.0, 1.0]]]) + 0j
        >>> equalise(sent, h, torch.full((1,), 0.1), (1.0, 1.0), "noma", "zf").symbols.real.tolist()
        [[[1.0, -1.0], [1.0, 1.0]]]
    """
    mimo = sionna("mimo")
    antennas, users = h.shape[1:3]
    amplitudes = torch.tensor(powers, device=h.device).sqrt()
    scaled = (h[..., : received.shape[-1]] * amplitudes[:, None]).movedim(-1, 1)
    power = scaled.abs().square().sum(dim=(2, 3)).mean(dim=1)
    noise = at_least(noise_var, power)[:, None, None, None] * torch.eye(antennas, device=h.device)
    if access == "oma":
        # A system of one user for each user: [B, T, N, M, 1].
        signal, scaled, noise = received.permute(0, 3, 2, 1), scaled.mT[..., None], noise[:, None]
        found, error_var = mimo.lmmse_equalizer(*_alike(signal, scaled, noise), precision="double")
        found, error_var = found[..., 0], error_var[..., 0]
    else:
        _check_detector(detector, antennas, users)
        known: dict[str, Any] = {"lmmse": mimo.lmmse_equalizer, "zf": mimo.zf_equalizer, "mf": mimo.mf_equalizer}
        found, error_var = known[detector](*_alike(received.mT, scaled, noise), precision="double")
    # Sionna's users have unit power.
    symbols = (found * amplitudes).movedim(1, -1).to(torch.complex64)
    return Equalised(symbols, (error_var * amplitudes.square()).movedim(1, -1).float(), tuple(powers))


def at_least(noise_var: Tensor, power: Tensor) -> Tensor:
    """Noise that is not negligible beside the power of what is received; all of one shape.

    Example:
        >>> at_least(torch.tensor([0.0, 0.5]), torch.tensor([4.0, 4.0])).log10().tolist()
        [-11.397939682006836, -0.3010300099849701]
    """
    return torch.maximum(noise_var, NEGLIGIBLE * power)


def check_detector(link: LinkConfig) -> None:
    """Raises LinksimError where a link's detector cannot tell its users apart."""
    _check_detector(link.detector, link.antennas, link.users)


def _check_detector(detector: Detector, antennas: int, users: int) -> None:
    if detector == "zf" and antennas < users:
        raise LinksimError(
            f"zero forcing tells {users} users apart with as many antennas, not {antennas}: --antennas {users}, or "
            "--detector lmmse"
        )


def _alike(signal: Tensor, h: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three with equal leading sizes but for the symbols, where h and noise may have one for all."""
    noise = noise.expand(*h.shape[:-2], *noise.shape[-2:])
    return signal, h, noise.to(h.dtype)


def joint_llrs(received: Tensor, h: Tensor, noise_var: Tensor, powers: Sequence[float], bits_per_symbol: int) -> Tensor:
    """LLRs, log p(1)/p(0), of every user's QAM bits by joint maximum a-posteriori detection.

    Args:
        received: complex [B, M, k].
        h: complex [B, M, N, T], T = 1 or at least k.
        noise_var: sigma^2 per complex symbol and antenna, and what else is noise, real [B].
        powers: average power of every user's symbols.
        bits_per_symbol: of the QAM.

    Returns:
        float32 [B, N, k * bits_per_symbol].

    Raises:
        LinksimError: more than MAX_HYPOTHESES joint hypotheses.
    """
    batch, antennas, users = h.shape[:3]
    hypotheses = 2 ** (bits_per_symbol * users)
    check_joint(users, bits_per_symbol)
    detector = sionna("mimo").MaximumLikelihoodDetector
    detect: Any = detector("bit", "app", users, "qam", bits_per_symbol, device=str(received.device))
    uses = received.shape[-1]
    amplitudes = torch.tensor(powers, device=h.device).sqrt()
    scaled = (h[..., :uses] * amplitudes[:, None]).movedim(-1, 1).expand(-1, uses, -1, -1).flatten(0, 1)
    signal = received.mT.flatten(0, 1)
    noise = noise_var[:, None, None, None] * torch.eye(antennas, device=h.device)
    noise = noise.expand(-1, uses, -1, -1).flatten(0, 1).to(scaled.dtype)
    size = max(1, _TOGETHER // (hypotheses * antennas))
    parts = [detect(*part) for part in zip(signal.split(size), scaled.split(size), noise.split(size), strict=True)]
    llrs: Tensor = torch.cat(parts).unflatten(0, (batch, uses))
    return llrs.transpose(1, 2).flatten(2)


def check_joint(users: int, bits_per_symbol: int) -> None:
    """Raises LinksimError where joint detection would try more than MAX_HYPOTHESES hypotheses."""
    if 2 ** (bits_per_symbol * users) > MAX_HYPOTHESES:
        raise LinksimError(
            f"joint detection of {users} users with {bits_per_symbol} bits a symbol tries "
            f"{2 ** (bits_per_symbol * users)} hypotheses, {MAX_HYPOTHESES} are possible: a smaller modulation, or "
            "receiver=sic"
        )
