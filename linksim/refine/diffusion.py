"""A diffusion process: its schedule by diffusers, a network that knows it, and DDIM sampling (KDD paper, section V)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from linksim.errors import LinksimError
from linksim.refine.base import Steps, silent

if TYPE_CHECKING:
    from diffusers import DDIMScheduler
    from torch import Tensor, nn

#: Original steps that a step of DDIM covers, by name. The paper takes a quarter of the original ones.
STRIDES = {"half": 2, "quarter": 4}

Sigma = Literal["ddim", "paper"]

#: Of the priors trained here: 1000 steps, cosine (Nichol and Dhariwal 2021), the network predicts the noise. Steps are
#: counted as diffusers does, from 0: step t here is step t + 1 of the paper.
OWN_SCHEDULE: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "epsilon",
    "clip_sample": True,
    "timestep_spacing": "trailing",
}


def make_scheduler(settings: Mapping[str, Any]) -> DDIMScheduler:
    """A DDIM scheduler of diffusers from its own settings."""
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(dict(settings))


@dataclass(frozen=True)
class Prior:
    """A network that knows images, and the process that it was trained for.

    Args:
        network: an unconditional UNet2DModel; what it says of the variance is not used.
        schedule: settings of a diffusers scheduler.
        time_scale: what the network is told for one original step.
    """

    network: nn.Module
    schedule: Mapping[str, Any]
    time_scale: float = 1.0

    def predict(self, x: Tensor, time: int) -> Tensor:
        """What the network tells of noisy images [M, C, H, W] at original step `time`, counted from 0; float32."""
        import torch

        times = torch.full((len(x),), time * self.time_scale, device=x.device)
        with torch.inference_mode():
            told = self.network(x.contiguous(memory_format=torch.channels_last), times).sample
        found: Tensor = told[:, : x.shape[1]].float()
        return found


def step_count(start: int, steps: int | Literal["half", "quarter"], total: int) -> int:
    """Number of steps from T' to 0.

    Args:
        start: T', in original steps.
        steps: how many; "half": T'/2, "quarter": T'/4, or the nearest above it that divides T'.
        total: original steps of the process.

    Raises:
        LinksimError: the steps do not divide T', or T' is none of the process.
    """
    if not 1 <= start <= total:
        raise LinksimError(f"start={start}: T' is 1 to {total}")
    if isinstance(steps, str):
        return next(count for count in range(-(-start // STRIDES[steps]), start + 1) if start % count == 0)
    if not 1 <= steps <= start or start % steps:
        whole = [count for count in range(1, start + 1) if start % count == 0]
        nearest = min(whole, key=lambda count: abs(count - steps))
        raise LinksimError(f"steps={steps}: they must divide T' = {start}: take {nearest}")
    stride = start // steps
    if total // (total // stride) != stride:
        raise LinksimError(f"start={start},steps={steps}: a stride of {stride} does not fit {total}: take more steps")
    return steps


def sample(
    prior: Prior,
    images: Tensor,
    noise: Callable[[], Tensor],
    start: int,
    steps: int,
    eta: float,
    sigma: Sigma,
    report: Steps = silent,
    excess: float = 1.0,
) -> Tensor:
    """Refines images in one batch.

    The first stage's error stands in x_T' scaled by sqrt(a_T') (eq. 24). Steps are strided: t = T', T' - T'/steps, ...,
    down to 0; a_t is the cumulative product, and t counts from 1 as in the paper.

    Args:
        prior: the network and its schedule.
        images: float32 [M, C, H, W] in [0, 1].
        noise: draws from N(0, 1), float32 [M, C, H, W]: the first z of eq. 24, then one for each step.
        start: T'.
        steps: how many; they divide T'.
        eta: randomness.
        sigma: "ddim", eta sqrt((1-a_prev)/(1-a)) sqrt(1-a/a_prev) (Song et al. 2021); "paper", the root of eta in
            eta's place (eq. 21).
        report: called after each step.
        excess: standard deviation of the noise at T', over the process's own there (S_noise of Karras et al. 2022).

    Returns:
        float32 [M, C, H, W] in [0, 1].
    """
    import torch

    scheduler = make_scheduler(prior.schedule)
    stride = start // steps
    scheduler.set_timesteps(scheduler.config.num_train_timesteps // stride)
    times = range(start - 1, -1, -stride)
    x = scheduler.add_noise(
        2 * images.clamp(0, 1) - 1, excess * noise(), torch.tensor([start - 1], device=images.device)
    )
    for done, time in enumerate(times, 1):
        told = prior.predict(x, time)
        x = scheduler.step(
            told,
            time,
            x,
            eta=eta if sigma == "ddim" else math.sqrt(eta),
            use_clipped_model_output=True,
            variance_noise=noise() if eta > 0 else None,
        ).prev_sample
        report(done, steps)
    found: Tensor = ((x + 1) / 2).clamp(0, 1)
    return found
