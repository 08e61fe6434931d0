"""What a trained model is: everything that decides which weights fit where."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import ConfigDict, TypeAdapter

from linksim.link.channels import channel_class
from linksim.link.config import Access, LinkConfig, PowerConvention
from linksim.link.power import equal_split, user_powers
from linksim.schemes.learned import NO_ABLATION, SCRATCH
from linksim.schemes.registry import find

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from linksim.nets.network import Network
    from linksim.schemes.learned import Learned
    from linksim.train.recipe import BaseRecipe
    from linksim.train.task import Task


_GOLDEN_GROUPS = 32

#: Values of `--warm` that are no model: a start as users in separate channel uses, and none.
EMBEDDED, FROM_SCRATCH = "embedded", "none"


def began_with(facts: Mapping[str, Any]) -> str:
    """Name of the model that a training went on from, of its card or state; empty where it began from scratch."""
    lineage = facts["lineage"]
    return str(lineage[-1]["model"]) if lineage else ""


def lineage_pairs(facts: Mapping[str, Any]) -> int:
    """Image groups (a prior's images) that a card's weights have seen, before their own training too."""
    return sum(run["pairs"] for run in (*facts["lineage"], facts))


class Spec(ABC):
    """One set of weights: a transceiver's, a diffusion prior's, a refiner's.

    Class attributes:
        kind: the word in a card that says which subclass it is of.
        unit: what its training counts: image groups ("pairs", for two users) or "images".
    """

    kind: ClassVar[str]
    unit: ClassVar[str] = "pairs"
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    @property
    @abstractmethod
    def name(self) -> str:
        """File name of the weights."""

    @property
    @abstractmethod
    def words(self) -> list[str]:
        """The words of `linksim` that ask for it, all but budget and recipe."""

    @property
    def parts(self) -> dict[str, Spec]:
        """Models that its training needs, frozen."""
        return {}

    @property
    def source(self) -> Spec | None:
        """The model that it starts as, unless told otherwise."""
        return None

    @property
    @abstractmethod
    def shape(self) -> tuple[object, ...]:
        """Equal for models whose weights fit each other's networks."""

    @property
    def command(self) -> str:
        """A command that trains it."""
        return " ".join(["linksim", *self.words, "--budget", "40m"])

    def command_of(self, facts: Mapping[str, Any]) -> str:
        """The command that makes the weights of a card again.

        Args:
            facts: of the card: `recipe` (preset and changes), `steps`, `lineage`, `embedded`, `seed`.
        """
        preset, *changes = str(facts["recipe"]).split()
        own = {f"{key}={value}" for key, value in self.changes.items()}
        words = ["linksim", *self.words, "--steps", str(facts["steps"]), "--recipe", preset]
        words += [word for change in changes if change not in own for word in ("--set", change)]
        if facts.get("embedded"):
            words += ["--warm", EMBEDDED]
        elif start := began_with(facts):
            words += ["--warm", start]
        elif self.source is not None:
            words += ["--warm", FROM_SCRATCH]
        if facts.get("seed"):
            words += ["--seed", str(facts["seed"])]
        return " ".join(words)

    @abstractmethod
    def build(self) -> nn.Module:
        """A network with fresh weights. Raises LinksimError where it fits nothing."""

    @abstractmethod
    def task(self, recipe: Any, images: NDArray[np.uint8], seed: int, device: str, start: nn.Module | None) -> Task:
        """Its training.

        Args:
            recipe: of the spec's own kind.
            images: the training split, uint8 [T, C, H, W].
            seed, device: see `Task`.
            start: a model to start warm from.
        """

    @property
    @abstractmethod
    def recipe(self) -> type[BaseRecipe]:
        """The kind of recipe that its training takes."""

    @property
    def changes(self) -> Mapping[str, str]:
        """What this model changes in a recipe, as `make_recipe` takes it."""
        return {}

    def make_recipe(self, preset: str, changes: Mapping[str, str], warm: bool) -> BaseRecipe:
        """The recipe of its training: a preset, with its own changes and then those given. Raises LinksimError."""
        from linksim.train.recipe import make_recipe

        return make_recipe(preset, {**self.changes, **changes}, self.recipe, warm)

    @abstractmethod
    def golden_psnr(self, model: nn.Module) -> float:
        """A PSNR in dB on embedded images, in float32, that tells whether `model` still does what it did."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Plain values for a card."""


def spec_from_json(values: Mapping[str, Any]) -> Spec:
    """The inverse of `Spec.to_json`. Raises ValueError, or KeyError for a kind that is not known."""
    rest = {key: value for key, value in values.items() if key != "kind"}
    return _reader(values.get("kind", ModelSpec.kind)).validate_python(rest)


@functools.cache
def _reader(kind: str) -> TypeAdapter[Spec]:
    """What checks the values of a kind of model."""
    from linksim.refine.specs import KINDS

    return TypeAdapter({ModelSpec.kind: ModelSpec, **KINDS}[kind])


@dataclass(frozen=True)
class ModelSpec(Spec):
    """The weights of a transceiver.

    Args:
        method: name of the scheme, a `Learned`.
        size: "paper" or "compact", half its widths.
        channel: fading it was trained on.
        rho: channel uses over which ONE user's image spreads, over C*H*W: the system's for the two that superpose.
        users: N.
        csi: side information: "snr", gamma alone; "own", gamma and the user's own h; "all", gamma and every h.
        power: convention of the users' powers.
        image_shape: (C, H, W).
        ablation: what its training leaves out, one of the scheme's `ablations`.
    """

    method: str
    size: Literal["compact", "paper"]
    channel: str
    rho: Fraction
    users: int = 2
    csi: Literal["snr", "own", "all"] = "own"
    power: PowerConvention = "sum"
    image_shape: tuple[int, int, int] = (3, 32, 32)
    ablation: str = NO_ABLATION

    kind: ClassVar[str] = "transceiver"

    @property
    def scheme(self) -> type[Learned]:
        """The scheme's class."""
        return cast("type[Learned]", find(self.method))

    @property
    def teacher(self) -> ModelSpec | None:
        """The model that teaches this one: the same symbols a user."""
        name = self.scheme.teacher
        return replace(self, method=name, ablation=NO_ABLATION) if name else None

    @property
    def source(self) -> ModelSpec | None:
        """The orthogonal model that this one starts as: 1/N of the symbols a user, all else the same."""
        name = self.scheme.source if self.ablation != SCRATCH else None
        return replace(self, method=name, rho=self.rho / self.users, ablation=NO_ABLATION) if name else None

    @property
    def changes(self) -> Mapping[str, str]:
        """See `Spec`."""
        return self.scheme.ablations.get(self.ablation, {})

    @property
    def access(self) -> Access:
        """Whether the users superpose."""
        return self.scheme.access

    @property
    def symbols(self) -> int:
        """Complex symbols of one user."""
        channels, height, width = self.image_shape
        return int(self.rho * channels * height * width)

    @property
    def powers(self) -> tuple[float, ...]:
        """Power of each user over its own symbols."""
        return user_powers(self.power, self.users, self.access, equal_split(self.users))

    @property
    def side_dim(self) -> int:
        """D: where nothing fades there is nothing but gamma to tell."""
        return 1 if not self.fades or self.csi == "snr" else {"own": 3, "all": 1 + 2 * self.users}[self.csi]

    @property
    def fades(self) -> bool:
        """Whether h differs from 1 on the channel that it is trained on."""
        return channel_class(self.channel).fades

    @property
    def name(self) -> str:
        """File name of the weights."""
        ratio = f"{self.rho.numerator}-{self.rho.denominator}"
        words = [self.method, self.channel, ratio, f"n{self.users}", self.csi, self.power]
        words += [f"{self.image_shape[1]}px", self.size]
        return "_".join(words if self.ablation == NO_ABLATION else [*words, self.ablation])

    @property
    def words(self) -> list[str]:
        """The words of `linksim` that ask for it, all but budget and recipe."""
        words = ["train", "--scheme", self.method, "--channel", self.channel, "--rho", str(self.rho)]
        words += ["--size", self.size]
        if self.users != 2:
            words += ["--users", str(self.users)]
        if self.csi != self.scheme.Params.model_fields["csi"].default:
            words += ["--csi", self.csi]
        if self.power != "sum":
            words += ["--power", self.power]
        if self.ablation != NO_ABLATION:
            words += ["--ablation", self.ablation]
        return words

    @property
    def link(self) -> LinkConfig:
        """The link that it is trained on."""
        return LinkConfig(self.channel, self.users, self.power)

    def build(self, layer_scale: float = 1e-6) -> Network:
        """A network with fresh weights. Raises LinksimError where it does not fit the images or the symbols."""
        return self.scheme.network(self, layer_scale)

    @property
    def shape(self) -> tuple[object, ...]:
        """See `Spec`; transceivers adopt what fits of each other."""
        return (self.kind,)

    @property
    def parts(self) -> dict[str, Spec]:
        """Its teacher."""
        return {"teacher": self.teacher} if self.teacher is not None else {}

    def task(
        self, recipe: Any, images: NDArray[np.uint8], seed: int, device: str, start: nn.Module | None,
        embedded: bool = False,
    ) -> Task:  # fmt: skip
        """See `Spec`; `embedded`: the users start as those of `start`, in separate channel uses."""
        from linksim import weights
        from linksim.train.transceivers import TransceiverTask

        teacher = weights.load(self.teacher) if self.teacher is not None else None
        return TransceiverTask(
            self, recipe, images, seed, device, cast("Network | None", start), cast("Network | None", teacher),
            embedded,
        )  # fmt: skip

    @property
    def recipe(self) -> type[BaseRecipe]:
        """See `Spec`."""
        from linksim.train.recipe import Recipe

        return Recipe

    def golden_psnr(self, model: nn.Module) -> float:
        """Mean PSNR in dB at 10 dB on the first embedded images."""
        import numpy as np

        from linksim.data import load_dataset
        from linksim.nets.network import Network
        from linksim.train.transceivers import validate

        assert isinstance(model, Network)
        images = load_dataset("cifar10-mini").images[np.arange(_GOLDEN_GROUPS * self.users)]
        return validate(self, model, images, "cpu", (10.0,))[10.0]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a card."""
        return {**asdict(self), "rho": str(self.rho), "image_shape": list(self.image_shape)}
