"""How a diffusion prior is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from linksim.models.recipe import BaseRecipe, NotNegative, Share


@dataclass(frozen=True)
class PriorRecipe(BaseRecipe):
    """How a diffusion prior is trained.

    Args:
        more_ema: decays of further averages of the weights, beside `ema` where that is not 0; all are validated, and
            the best is kept. A long average pays at the end of a long training.
        early_steps: a refinement starts at a step T' of some tens to two hundred of the thousand, so that steps below
            this one are trained more often.
        early_share: share of the images that is drawn below `early_steps`; the others are drawn from all steps.
        weighting: of the noise's squared error at a step: "none", as Ho et al. 2020; "min-snr": min(SNR, 5) / SNR (Hang
            et al. 2023), which makes less of early steps.
    """

    weight_decay: NotNegative = 0.0
    batch: Annotated[int, Field(ge=1, le=4096)] = 32
    more_ema: tuple[Share, Share] = (0.9995, 0.9999)
    early_steps: Annotated[int, Field(ge=1, le=1000)] = 250
    early_share: Annotated[float, Field(ge=0, le=1)] = 0.75
    weighting: Literal["none", "min-snr"] = "none"
