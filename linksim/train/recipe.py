"""How a model is trained: every choice of the loop as one typed value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from linksim.train.losses import FaNorm


@dataclass(frozen=True)
class Recipe:
    """Choices of a training run.

    Args:
        name: of the preset.
        learning_rate: AdamW's, at its peak.
        weight_decay: AdamW's.
        batch: image groups a step.
        warmup: share of the steps in which the learning rate rises; 0 keeps it constant throughout.
        schedule: "constant", or "cosine" down to a hundredth after the warm-up.
        ema: decay of the averaged weights that are validated and kept; 0 keeps the last weights.
        clip: largest norm of the gradient; 0 does not clip.
        loss: "mae" (the paper) or "mse".
        layer_scale: start of the ConvNeXt blocks' layer scale.
        flip: mirror images at random.
        snr_db: gamma is drawn uniformly from this range for each group.
        weights: of MAE, FA and CrossKD (eq. 17).
        fa_norm: scale of FA.
        cross_layer: j, the decoder layer whose output crosses over to the teacher.
    """

    name: str = "fast"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    batch: int = 32
    warmup: float = 0.03
    schedule: Literal["constant", "cosine"] = "cosine"
    ema: float = 0.999
    clip: float = 1.0
    loss: Literal["mae", "mse"] = "mae"
    layer_scale: float = 0.1
    flip: bool = True
    snr_db: tuple[float, float] = (0.0, 20.0)
    weights: tuple[float, float, float] = (10.0, 100.0, 1.0)
    fa_norm: FaNorm = "released"
    cross_layer: int = 4

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step `step` of `steps`."""
        rise = self.warmup * steps
        if step < rise:
            return self.learning_rate * (step + 1) / (rise + 1)
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - rise) / max(1.0, steps - rise)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


#: Presets by name. `paper`: AdamW 1e-4, batches of 32 groups, constant rate (KDD paper, section VI-A3).
RECIPES = {
    "fast": Recipe(),
    "paper": Recipe(
        "paper", learning_rate=1e-4, warmup=0.0, schedule="constant", ema=0.0, clip=0.0, layer_scale=1e-6, flip=False
    ),
}
