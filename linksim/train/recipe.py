"""How a model is trained: every choice of the loop as one typed value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from linksim.errors import LinksimError, unknown
from linksim.train.losses import FaNorm
from linksim.train.optimizers import Name

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
NotNegative = Annotated[float, Field(ge=0, le=1e6)]
Decibel = Annotated[float, Field(ge=-200, le=200)]


@dataclass(frozen=True)
class BaseRecipe:
    """Choices of every training run.

    Args:
        name: of the preset.
        optimizer: "adamw", or "muon" for matrices and AdamW for the rest (`linksim.train.optimizers`).
        learning_rate: at its peak.
        weight_decay: decoupled, as AdamW's.
        batch: image groups (a prior's images) a step.
        warmup: share of the steps in which the learning rate rises.
        schedule: after the warm-up "constant"; "cosine" down to a hundredth; or "wsd" (warm-up, stable, decay):
            constant, and over the last steps straight down to a hundredth.
        fall: share of the steps over which the rate of "wsd" falls.
        ema: decay of the averaged weights that are validated and kept; 0 keeps the last weights.
        clip: largest norm of the gradient; 0 does not clip.
        flip: mirror images at random.
    """

    name: str = "fast"
    optimizer: Name = "adamw"
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 1e-4
    batch: Annotated[int, Field(ge=1, le=4096)] = 16
    warmup: Share = 0.03
    schedule: Literal["constant", "cosine", "wsd"] = "cosine"
    fall: Share = 0.2
    ema: Share = 0.999
    clip: NotNegative = 1.0
    flip: bool = True

    @classmethod
    def presets(cls) -> dict[str, Any]:
        """Presets by name: `fast`, and `paper`, AdamW 1e-4 in batches of 32 groups at a constant rate (KDD paper,
        section VI-A3), for the steps that are asked for: its stop after ten epochs without improvement is not there."""
        paper = cls(
            "paper", learning_rate=1e-4, batch=32, warmup=0.0, schedule="constant", ema=0.0, clip=0.0, flip=False
        )
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


@dataclass(frozen=True)
class Recipe(LinkRecipe):
    """How a transceiver is trained.

    Args:
        loss: of the images: "mae" (the paper), "mse", or "log-mse", which is 0.1 mean log(MSE + 1e-5) over images: what
            a mean of PSNRs asks for.
        dropout: the AF-Modules' dropout and the stochastic depth of the ConvNeXt blocks, as in the paper.
        layer_scale: start of the ConvNeXt blocks' layer scale.
        embed_steps: steps of the embedding, where a model starts so (`linksim.train.embedding`).
        weights: of MAE, FA and CrossKD (eq. 17).
        fa_norm: scale of FA: "mean" (eq. 14), or "released", that of the released code, which the paper's weight of 100
            belongs to.
        leave_out: the part of eq. 17 that is not trained for (Table V).
        cross_layer: j, the decoder layer whose output crosses over to the teacher; None takes the best of Table IV.
    """

    loss: Literal["mae", "mse", "log-mse"] = "mae"
    dropout: bool = True
    layer_scale: Positive = 0.1
    embed_steps: Annotated[int, Field(ge=1, le=100_000)] = 150
    weights: tuple[NotNegative, NotNegative, NotNegative] = (10.0, 1.0, 1.0)
    fa_norm: FaNorm = "mean"
    leave_out: Literal["none", "fa", "crosskd"] = "none"
    cross_layer: Annotated[int, Field(ge=0, le=8)] | None = None

    @classmethod
    def presets(cls) -> dict[str, Any]:
        """See `RECIPES`."""
        paper = replace(super().presets()["paper"], layer_scale=1e-6, weights=(10.0, 100.0, 1.0), fa_norm="released")
        adamw = cls("adamw", schedule="wsd")
        own = replace(adamw, name="scratch", batch=8, loss="log-mse", dropout=False)
        scratch = replace(own, optimizer="muon", learning_rate=2e-3)
        finetune = replace(own, name="finetune", learning_rate=4e-4, fall=0.5)
        return {"scratch": scratch, "finetune": finetune, "adamw": adamw, "paper": paper}

    @classmethod
    def chosen(cls, name: str, warm: bool) -> str:
        """`fast` is a preset for each kind of start."""
        return ("finetune" if warm else "scratch") if name == "fast" else name

    def j(self, fades: bool) -> int:
        """The layer at which CrossKD crosses over: for 32x32 images 4 over AWGN, 2 over fading (KDD, Table IV)."""
        if self.cross_layer is not None:
            return self.cross_layer
        return 2 if fades else 4


#: Values of `Recipe` that say nothing without a teacher.
TEACHING = ("weights", "fa_norm", "leave_out", "cross_layer")


@dataclass(frozen=True)
class PriorRecipe(BaseRecipe):
    """How a diffusion prior is trained.

    Args:
        early_steps: a refinement starts at a step T' of some tens to two hundred of the thousand, so that steps below
            this one are trained more often.
        early_share: share of the images that is drawn below `early_steps`; the others are drawn from all steps.
    """

    weight_decay: NotNegative = 0.0
    batch: Annotated[int, Field(ge=1, le=4096)] = 32
    early_steps: Annotated[int, Field(ge=1, le=1000)] = 250
    early_share: Annotated[float, Field(ge=0, le=1)] = 0.75


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


@dataclass(frozen=True)
class LatentRecipe(LinkRecipe):
    """How a part of the latent-diffusion restorer is trained.

    Args:
        kl_weight: of the divergence, in the autoencoder's loss.
    """

    snr_db: tuple[Decibel, Decibel] = (-5.0, 20.0)
    weight_decay: NotNegative = 0.0
    kl_weight: NotNegative = 1e-6


#: Presets of a transceiver's training by name. `fast` is `scratch` or, of a model that starts warm, `finetune`, the
#: winners of the searches in `results/recipes`; `adamw` is what was `fast` before them.
RECIPES = Recipe.presets()


R = TypeVar("R", bound=BaseRecipe)


def make_recipe(name: str, changes: Mapping[str, str], kind: type[R], warm: bool = False) -> R:
    """A preset of `kind` with some of its values changed, given as text; `warm`: for a training that starts so.

    Raises:
        LinksimError: an unknown name or a value out of range.

    Example:
        >>> make_recipe("fast", {"batch": "16"}, Recipe, warm=True).words
        'finetune batch=16'
    """
    presets, name = kind.presets(), kind.chosen(name, warm)
    if name not in presets:
        raise unknown("recipe", name, ["fast", *presets])
    return changed(presets[name], changes)


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
    if not any(getattr(recipe, "weights", (1.0,))):
        raise LinksimError("--set weights: all are zero, and nothing would be trained")
    low, high = snr_db = getattr(recipe, "snr_db", (0.0, 0.0))
    if low > high:
        raise LinksimError(f"--set snr_db={_text(snr_db)}: write the lower end first")
    return recipe


def _text(value: object) -> str:
    return "/".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)
