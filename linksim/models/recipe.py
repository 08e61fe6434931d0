"""How a model is trained: every choice of the loop as one typed value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from linksim.errors import LinksimError, unknown

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
NotNegative = Annotated[float, Field(ge=0, le=1e6)]
Decibel = Annotated[float, Field(ge=-200, le=200)]


@dataclass(frozen=True)
class BaseRecipe:
    """Choices of every training run.

    Args:
        name: of the preset.
        optimizer: "adamw", or "muon" for matrices and AdamW for the rest (`linksim.nets.optimizers`).
        learning_rate: at its peak.
        weight_decay: decoupled, as AdamW's.
        batch: image groups (a prior's images) a step.
        accumulate: parts in which a step's batch goes through the networks, one after the other, where memory is short.
        warmup: share of the steps in which the learning rate rises.
        schedule: after the warm-up "constant"; "cosine" down to a hundredth; or "wsd" (warm-up, stable, decay):
            constant, and over the last steps straight down to a hundredth.
        fall: share of the steps over which the rate of "wsd" falls.
        ema: decay of the averaged weights that are validated and kept; 0 keeps the last weights.
        clip: largest norm of the gradient; 0 does not clip.
        flip: mirror images at random.
        crop: side in pixels of the parts of images that it is trained on, cut at random; 0 takes them whole.
    """

    name: str = "fast"
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 1e-4
    batch: Annotated[int, Field(ge=1, le=4096)] = 16
    accumulate: Annotated[int, Field(ge=1, le=4096)] = 1
    warmup: Share = 0.03
    schedule: Literal["constant", "cosine", "wsd"] = "cosine"
    fall: Share = 0.2
    ema: Share = 0.999
    clip: NotNegative = 1.0
    flip: bool = True
    crop: Annotated[int, Field(ge=0, le=2**16)] = 0

    @classmethod
    def presets(cls) -> dict[str, Any]:
        """Presets by name: `fast`, and `paper`, AdamW 1e-4 in batches of 32 groups at a constant rate (KDD paper,
        section VI-A3), for the steps that are asked for: its stop after ten epochs without improvement is not there."""
        paper = cls(
            "paper", "adamw", learning_rate=1e-4, batch=32, warmup=0.0, schedule="constant", ema=0.0, clip=0.0,
            flip=False,
        )  # fmt: skip
        return {"fast": cls(), "paper": paper}

    @classmethod
    def chosen(cls, name: str, warm: bool) -> str:
        """The preset that `name` means for a training that starts `warm` or from scratch."""
        return name

    @property
    def words(self) -> str:
        """The preset's name and what was changed in it, as `--recipe` and `--set` ask for it."""
        preset = self.presets()[self.name]
        changes = [f"{f.name}={_text(value)}" for f in fields(self) if (value := getattr(self, f.name)) !=
                   getattr(preset, f.name)]  # fmt: skip
        return " ".join([self.name, *changes])

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step `step` of `steps`."""
        rise = self.warmup * steps
        if step < rise:
            return self.learning_rate * (step + 1) / (rise + 1)
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "wsd":
            left = (steps - step) / max(1.0, self.fall * steps)
            return self.learning_rate * min(1.0, max(0.01, left))
        done = (step - rise) / max(1.0, steps - rise)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


@dataclass(frozen=True)
class LinkRecipe(BaseRecipe):
    """Choices of a training over the link.

    Args:
        snr_db: gamma is drawn uniformly from this range for each group.
    """

    snr_db: tuple[Decibel, Decibel] = (0.0, 20.0)


R = TypeVar("R", bound=BaseRecipe)


def make_recipe(name: str, changes: Mapping[str, str], kind: type[R], warm: bool = False) -> R:
    """A preset of `kind` with some of its values changed, given as text; `warm`: for a training that starts so.

    Raises:
        LinksimError: an unknown name or a value out of range.

    Example:
        >>> make_recipe("fast", {"batch": "32"}, LinkRecipe).words
        'fast batch=32'
    """
    presets, name = kind.presets(), kind.chosen(name, warm)
    if name not in presets:
        raise unknown("recipe", name, ["fast", *presets])
    found: R = changed(presets[name], changes)
    return found


def recipe_of(kind: type[R], values: Mapping[str, Any]) -> R:
    """A recipe from the plain values of a checkpoint; those that the kind has no more are left out.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> recipe_of(BaseRecipe, {"batch": 8, "gone": 1}).batch
        8
    """
    known = {field.name for field in fields(kind)}
    return TypeAdapter(kind).validate_python({key: value for key, value in values.items() if key in known})


def changed(recipe: R, changes: Mapping[str, str]) -> R:
    """A recipe with some of its values changed, given as text. Raises LinksimError."""
    known = [field.name for field in fields(recipe) if field.name != "name"]
    values: dict[str, Any] = {}
    for key, text in changes.items():
        if key not in known:
            raise unknown("recipe value", key, known)
        default = getattr(recipe, key)
        values[key] = text.split("/") if isinstance(default, tuple) else text
        if isinstance(default, tuple) and len(values[key]) != len(default):
            raise LinksimError(f"--set {key}={text}: write {len(default)} values, like {_text(default)}")
    try:
        recipe = TypeAdapter(type(recipe)).validate_python({**asdict(recipe), **values})
    except ValidationError as error:
        first = error.errors()[0]
        raise LinksimError(f"--set {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if recipe.batch % recipe.accumulate:
        raise LinksimError(f"--set accumulate={recipe.accumulate}: a batch of {recipe.batch} has no such equal parts")
    if not any(getattr(recipe, "weights", (1.0,))):
        raise LinksimError("--set weights: all are zero, and nothing would be trained")
    low, high = snr_db = getattr(recipe, "snr_db", (0.0, 0.0))
    if low > high:
        raise LinksimError(f"--set snr_db={_text(snr_db)}: write the lower end first")
    return recipe


def _text(value: object) -> str:
    return "/".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)
