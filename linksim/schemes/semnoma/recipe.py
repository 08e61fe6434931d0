"""How the paper's transceivers are trained (KDD paper, sections IV and VI-A3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from linksim.models.recipe import NotNegative, Positive
from linksim.schemes.recipe import TransceiverRecipe

#: Scale of FA: eq. 14 as it stands, or as in the released code.
FaNorm = Literal["mean", "released"]


def stages(image_shape: tuple[int, ...]) -> int:
    """Stages of encoder and decoder for images (C, H, W): 2 as for 32x32, from 128 pixels on 4 as for 256x256.

    Example:
        >>> stages((3, 64, 64)), stages((3, 512, 768))
        (2, 4)
    """
    return 2 if min(image_shape[1:]) < 128 else 4


@dataclass(frozen=True)
class Recipe(TransceiverRecipe):
    """How a ConvNeXt transceiver is trained.

    Args:
        layer_scale: start of the ConvNeXt blocks' layer scale.
        embed_steps: steps of the embedding, where a model starts so (`linksim.schemes.semnoma.embedding`).
        weights: of MAE, FA and CrossKD (eq. 17).
        fa_norm: scale of FA: "mean" (eq. 14), or "released", that of the released code, which the paper's weight of 100
            belongs to.
        leave_out: the part of eq. 17 that is not trained for (Table V).
        cross_layer: j, the decoder layer whose output crosses over to the teacher; None takes the best of Table IV.
    """

    layer_scale: Positive = 0.1
    embed_steps: Annotated[int, Field(ge=1, le=100_000)] = 2000
    weights: tuple[NotNegative, NotNegative, NotNegative] = (10.0, 1.0, 1.0)
    fa_norm: FaNorm = "mean"
    leave_out: Literal["none", "fa", "crosskd"] = "none"
    cross_layer: Annotated[int, Field(ge=0, le=8)] | None = None

    @classmethod
    def presets(cls) -> dict[str, Any]:
        """See `TransceiverRecipe`; the paper's FA has the scale of the released code."""
        found = super().presets()
        paper = replace(found["paper"], layer_scale=1e-6, weights=(10.0, 100.0, 1.0), fa_norm="released")
        return {**found, "paper": paper}

    def j(self, fades: bool, depth: int) -> int:
        """The layer at which CrossKD crosses over (KDD, Table IV).

        For the two stages of 32x32 images 4 over AWGN and 2 over fading, for the four of 256x256 images 5 and 4.

        Args:
            fades: whether the channel does.
            depth: `stages` of the networks.
        """
        if self.cross_layer is not None:
            return self.cross_layer
        return {2: (4, 2), 4: (5, 4)}[depth][fades]


#: Values of `Recipe` that say nothing without a teacher.
TEACHING = ("weights", "fa_norm", "leave_out", "cross_layer")

RECIPES = Recipe.presets()
