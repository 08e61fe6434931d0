"""How SemNOMA-CGAN is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from linksim.models.recipe import Decibel, LinkRecipe, NotNegative, Positive


@dataclass(frozen=True)
class CganRecipe(LinkRecipe):
    """How SemNOMA-CGAN is trained (KDD paper, section VI-A3).

    Args:
        weights: of MAE, LPIPS and the adversarial loss.
        lpips: network of LPIPS: "vgg" (needs the asset vgg16) or "alex".
    """

    learning_rate: Positive = 5e-4
    batch: Annotated[int, Field(ge=1, le=4096)] = 8
    snr_db: tuple[Decibel, Decibel] = (-5.0, 20.0)
    weights: tuple[NotNegative, NotNegative, NotNegative] = (1.0, 0.1, 1e-4)
    lpips: Literal["vgg", "alex"] = "vgg"
