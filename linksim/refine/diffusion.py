"""The schedule of a diffusion process, by diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

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
