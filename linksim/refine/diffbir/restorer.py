"""Sampling of a latent-diffusion restorer (Lin et al. 2024), whichever its networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from linksim.errors import LinksimError
from linksim.refine.base import Steps
from linksim.refine.diffusion import make_scheduler

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

#: Original steps of Stable Diffusion's process.
_TOTAL = 1000


@dataclass(frozen=True)
class Restorer:
    """The parts of a latent-diffusion restorer.

    Args:
        encode: images [M, 3, H, W] in [0, 1] to latents.
        decode: latents to images.
        told: what the denoiser tells of (noisy latents, time, hint), guidance included.
        schedule: of the process, settings of a diffusers scheduler.
    """

    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    told: Callable[[Tensor, int, Tensor], Tensor]
    schedule: Mapping[str, Any]


def restore(
    restorer: Restorer,
    images: Tensor,
    noise: Callable[[tuple[int, ...]], Tensor],
    steps: int,
    eta: float,
    report: Steps,
) -> Tensor:
    """Draws images given those of the first stage, from pure noise.

    Args:
        restorer: the parts.
        images: float32 [M, 3, H, W] in [0, 1].
        noise: draws from N(0, 1) of a shape [C, h, w], for each image.
        steps: of the process, evenly over all of it; they divide its 1000.
        eta: 1 is DDPM over these steps; 0 is DDIM without randomness.
        report: called after each step.

    Returns:
        float32 [M, 3, H, W], not clamped.
    """
    import torch

    scheduler = make_scheduler(restorer.schedule)
    scheduler.set_timesteps(steps)
    with torch.inference_mode():
        hint = restorer.encode(images).float()
        x = noise(tuple(hint.shape[1:]))
        for done, time in enumerate(scheduler.timesteps.tolist(), 1):
            told = restorer.told(x, time, hint)
            x = scheduler.step(told, time, x, eta=eta, variance_noise=noise(tuple(x.shape[1:]))).prev_sample
            report(done, steps)
        return restorer.decode(x).float()


def recoloured(images: Tensor, colours: Tensor) -> Tensor:
    """The details of `images` on the colours of `colours`: coarse parts exchanged, as DiffBIR does at its end.

    Coarse is what an a trous decomposition with the kernel (1, 2, 1) / 4 leaves after as many levels as double a pixel
    to a 16th of the shorter side: DiffBIR's five at 512, one at 32.

    Args:
        images, colours: [M, 3, H, W].
    """
    levels = max(1, round(math.log2(min(images.shape[-2:]) / 16)))

    def coarse(x: Tensor) -> Tensor:
        import torch
        from torch.nn import functional

        row = torch.tensor([0.25, 0.5, 0.25], device=x.device, dtype=x.dtype)
        kernel = (row[:, None] * row).expand(x.shape[1], 1, 3, 3)
        for level in range(levels):
            gap = min(2**level, min(x.shape[-2:]) - 1)
            x = functional.conv2d(
                functional.pad(x, [gap] * 4, mode="replicate"), kernel, dilation=gap, groups=x.shape[1]
            )
        return x

    return images - coarse(images) + coarse(colours)


def noise_of(draws: Sequence[np.random.Generator], like: Tensor) -> Callable[[tuple[int, ...]], Tensor]:
    import numpy as np
    import torch

    def noise(shape: tuple[int, ...]) -> Tensor:
        drawn = np.stack([draw.standard_normal(shape, dtype=np.float32) for draw in draws])
        return torch.from_numpy(drawn).to(like.device)

    return noise


def check_steps(steps: int) -> None:
    """Raises LinksimError where steps are not even over the 1000 of the process."""
    if _TOTAL % steps:
        nearest = min((n for n in range(1, _TOTAL + 1) if _TOTAL % n == 0), key=lambda n: abs(n - steps))
        raise LinksimError(f"steps={steps}: they must divide {_TOTAL}: take {nearest}")
