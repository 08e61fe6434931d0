"""How a model is trained: every choice of the loop as one typed value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from linksim.errors import LinksimError, unknown
from linksim.train.losses import FaNorm

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
NotNegative = Annotated[float, Field(ge=0, le=1e6)]
Decibel = Annotated[float, Field(ge=-200, le=200)]


@dataclass(frozen=True)
class Recipe:
    """Choices of a training run.

    Args:
        name: of the preset.
        learning_rate: AdamW's, at its peak.
        weight_decay: AdamW's.
        batch: image groups a step.
        warmup: share of the steps in which the learning rate rises.
        schedule: "constant", or "cosine" down to a hundredth after the warm-up.
        ema: decay of the averaged weights that are validated and kept; 0 keeps the last weights.
        clip: largest norm of the gradient; 0 does not clip.
        loss: "mae" (the paper) or "mse".
        layer_scale: start of the ConvNeXt blocks' layer scale.
        flip: mirror images at random.
        snr_db: gamma is drawn uniformly from this range for each group.
        weights: of MAE, FA and CrossKD (eq. 17).
        fa_norm: scale of FA.
        cross_layer: j, the decoder layer whose output crosses over to the teacher; None takes the best of Table IV.
    """

    name: str = "fast"
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 1e-4
    batch: Annotated[int, Field(ge=1, le=4096)] = 16
    warmup: Share = 0.03
    schedule: Literal["constant", "cosine"] = "cosine"
    ema: Share = 0.999
    clip: NotNegative = 1.0
    loss: Literal["mae", "mse"] = "mae"
    layer_scale: Positive = 0.1
    flip: bool = True
    snr_db: tuple[Decibel, Decibel] = (0.0, 20.0)
    weights: tuple[NotNegative, NotNegative, NotNegative] = (10.0, 100.0, 1.0)
    fa_norm: FaNorm = "released"
    cross_layer: Annotated[int, Field(ge=0, le=8)] | None = None

    @property
    def words(self) -> str:
        """The preset's name and what was changed in it, as `--recipe` and `--set` ask for it."""
        preset = RECIPES[self.name]
        changes = [f"{f.name}={_text(value)}" for f in fields(self) if (value := getattr(self, f.name)) !=
                   getattr(preset, f.name)]  # fmt: skip
        return " ".join([self.name, *changes])

    def j(self, channel: str) -> int:
        """The layer at which CrossKD crosses over: for 32x32 images 4 over AWGN, 2 over fading (KDD, Table IV)."""
        if self.cross_layer is not None:
            return self.cross_layer
        return 4 if channel == "awgn" else 2

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step `step` of `steps`."""
        rise = self.warmup * steps
        if step < rise:
            return self.learning_rate * (step + 1) / (rise + 1)
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - rise) / max(1.0, steps - rise)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


#: Presets by name. `fast`: see `results/recipes`. `paper`: AdamW 1e-4, batches of 32 groups, constant rate (KDD paper,
#: section VI-A3), for the steps that are asked for: its stop after ten epochs without improvement is not there.
RECIPES = {
    "fast": Recipe(),
    "paper": Recipe(
        "paper",
        learning_rate=1e-4,
        batch=32,
        warmup=0.0,
        schedule="constant",
        ema=0.0,
        clip=0.0,
        layer_scale=1e-6,
        flip=False,
    ),
}


def make_recipe(name: str, changes: Mapping[str, str]) -> Recipe:
    """A preset with some of its values changed, given as text. Raises LinksimError."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    known = [field.name for field in fields(Recipe) if field.name != "name"]
    values: dict[str, Any] = {}
    for key, text in changes.items():
        if key not in known:
            raise unknown("recipe value", key, known)
        values[key] = text.split("/") if isinstance(getattr(RECIPES[name], key), tuple) else text
    try:
        recipe = TypeAdapter(Recipe).validate_python({**asdict(RECIPES[name]), **values})
    except ValidationError as error:
        first = error.errors()[0]
        raise LinksimError(f"--set {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if recipe.snr_db[0] > recipe.snr_db[1]:
        raise LinksimError(f"--set snr_db={_text(recipe.snr_db)}: write the lower end first")
    return recipe


def _text(value: object) -> str:
    return "/".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)
