"""How the latent-diffusion restorer is trained."""

from __future__ import annotations

from dataclasses import dataclass

from linksim.models.recipe import Decibel, LinkRecipe, NotNegative


@dataclass(frozen=True)
class LatentRecipe(LinkRecipe):
    """How a part of the latent-diffusion restorer is trained.

    Args:
        kl_weight: of the divergence, in the autoencoder's loss.
    """

    snr_db: tuple[Decibel, Decibel] = (-5.0, 20.0)
    weight_decay: NotNegative = 0.0
    kl_weight: NotNegative = 1e-6
