"""How `flow` is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from linksim.models.recipe import Decibel, LinkRecipe, NotNegative, Positive

#: Euler steps, unless told otherwise.
STEPS = 1


@dataclass(frozen=True)
class FlowRecipe(LinkRecipe):
    """How `flow` is trained: by Muon, whose loss after 400 steps is 0.65 where that of AdamW is 0.74.

    Args:
        noise_level: share of the first stage's error that the start of the flow is moved by (sigma_s).
        perceptual: weight of LPIPS between where the velocity points to and what was sent (Lee et al. 2024), beside
            the squared error of the velocity in units of the first stage's error.
        adversarial: weight of what a critic on the layers of that LPIPS says of where the velocity points to.
        lpips: network of that LPIPS: "vgg" (needs the asset vgg16) or "alex".
    """

    optimizer: Literal["adamw", "muon"] = "muon"
    learning_rate: Positive = 2e-3
    weight_decay: NotNegative = 0.0
    batch: Annotated[int, Field(ge=1, le=4096)] = 8
    snr_db: tuple[Decibel, Decibel] = (-5.0, 20.0)
    noise_level: NotNegative = 0.2
    perceptual: NotNegative = 80.0
    adversarial: NotNegative = 1.2
    lpips: Literal["vgg", "alex"] = "vgg"
