"""How semantic fine-tuning is trained (GSC paper, sections III-C and IV-A)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from linksim.models.fidelity import ImageLoss
from linksim.models.recipe import LinkRecipe
from linksim.refine.sft.network import Betas, Predict


@dataclass(frozen=True)
class SftRecipe(LinkRecipe):
    """How SFT is trained: N1 and N2 on images alone; then the diffusion that tells N1's Z without the original.

    `fast` is for images' PSNR, as the transceivers' `finetune` is; `paper` for the mean absolute error.

    Args:
        loss: of the images, see `linksim.models.fidelity`.
        taught_share: share of the steps that N1 and N2 have, for the images.
        latent_share: share of the others in which the diffusion is trained alone, before N2 goes on beside it.
        betas: of the diffusion, "linear" (the paper) or "sqrt" (DiffIR).
        predict: what its denoiser tells, "x0" (DiffIR's code) or "eps" (the paper's eq. 13, which multiplies errors by
            24.5).
    """

    loss: ImageLoss = "log-mse"
    learning_rate: float = 4e-4
    batch: Annotated[int, Field(ge=1, le=4096)] = 16
    weight_decay: float = 0.0
    snr_db: tuple[float, float] = (0.0, 15.0)
    taught_share: Annotated[float, Field(ge=0, le=1)] = 0.3
    latent_share: Annotated[float, Field(ge=0, le=1)] = 0.15
    betas: Betas = "linear"
    predict: Predict = "x0"

    @classmethod
    def presets(cls) -> dict[str, Any]:
        """`paper`: mean absolute error, constant 2e-4 in batches of 16, without averaging."""
        paper = cls(
            "paper",
            loss="mae",
            learning_rate=2e-4,
            warmup=0.0,
            schedule="constant",
            ema=0.0,
            clip=0.0,
            flip=False,
            snr_db=(1.0, 13.0),
        )
        return {"fast": cls(), "paper": paper}
