"""Who a model belongs to: the scheme or refiner that builds its network, trains it and runs it."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from linksim.data.training import CIFAR10
from linksim.models.recipe import BaseRecipe, make_recipe
from linksim.models.spec import Spec, began_with, size_words

if TYPE_CHECKING:
    from torch import nn

    from linksim.data.training import TrainingSet
    from linksim.models.task import Task

#: Values of `--warm` that are no model: a start as users in separate channel uses, and none.
EMBEDDED, FROM_SCRATCH = "embedded", "none"


class Owner(ABC):
    """What a scheme or refiner with trained weights says of its models, each given as its plain `Spec`.

    Class attributes:
        recipe: the kind of recipe that its trainings take.
        bound: whether its networks work only with those weights of `parts` that they were trained with, as a generator
            behind its first stage; else the parts are of the training alone, as a teacher.
    """

    recipe: ClassVar[type[BaseRecipe]] = BaseRecipe
    bound: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def network(cls, spec: Any) -> nn.Module:
        """A network with fresh weights. Raises LinksimError where it fits nothing."""

    @classmethod
    @abstractmethod
    def words(cls, spec: Any) -> list[str]:
        """The words of `linksim` that ask for the model, all but budget and recipe."""

    @classmethod
    @abstractmethod
    def task(
        cls, spec: Any, recipe: Any, images: TrainingSet, seed: int, device: str, start: nn.Module | None,
        frozen: Mapping[str, nn.Module] | None = None,
    ) -> Task:  # fmt: skip
        """The training of a model.

        Args:
            spec: the model.
            recipe: of the owner's own kind.
            images: the data set.
            seed, device: see `Task`.
            start: a network to start warm from.
            frozen: the networks of `parts`; None loads their weights.
        """

    @classmethod
    @abstractmethod
    def golden_psnr(cls, spec: Any, network: nn.Module) -> float:
        """A PSNR in dB on embedded images, in float32, that tells whether a network still does what it did."""

    @classmethod
    def parts(cls, spec: Any) -> dict[str, Model]:
        """Models that a training needs, frozen."""
        return {}

    @classmethod
    def begins_as(cls, spec: Any) -> Model | None:
        """The model that a training starts as, unless told otherwise."""
        return None

    @classmethod  # noqa: B027
    def check_images(cls, spec: Any, image_shape: tuple[int, int, int]) -> None:
        """Raises LinksimError where its networks do not take images, or parts of images, of this shape (C, H, W)."""

    @classmethod
    def serves(cls, trained: Any, wanted: Any) -> bool:
        """Whether the weights of one model serve where another is wanted, on images of another size."""
        return False

    @classmethod
    def starts_from(cls, trained: Any, wanted: Any) -> bool:
        """Whether a training of the one model can start from the weights of the other: networks of one shape."""
        return bool(trained.shape == wanted.shape)

    @classmethod
    def changes(cls, spec: Any) -> Mapping[str, str]:
        """What a model changes in a recipe, as `make_recipe` takes it."""
        return {}


def data_words(spec: Spec, dataset: str | None = None, validation: str | None = None) -> list[str]:
    """The words of `linksim train` that say what a model is trained on, where that is not CIFAR-10.

    Args:
        spec: the model.
        dataset, validation: as its card names them; where nothing is known, a folder is asked for.

    Example:
        >>> from fractions import Fraction
        >>> from linksim.models.spec import ModelSpec
        >>> data_words(ModelSpec("kd", "paper", "awgn", Fraction(1, 48), image_shape=(3, 256, 256)))
        ['--dataset', 'folder:DIR', '--image-size', '256']
    """
    size = size_words(spec.image_shape)
    if size == "32" and dataset in (None, CIFAR10):
        return []
    words = ["--dataset", dataset or "folder:DIR", "--image-size", size]
    return [*words, "--validation", validation] if validation else words


@dataclass(frozen=True)
class Model:
    """A model and whose it is.

    Args:
        spec: the model, a plain value.
        owner: the scheme or refiner.
    """

    spec: Spec
    owner: type[Owner]

    @property
    def name(self) -> str:
        """File name of the weights."""
        return self.spec.name

    @property
    def words(self) -> list[str]:
        """See `Owner.words`."""
        return self.owner.words(self.spec)

    @property
    def parts(self) -> dict[str, Model]:
        """See `Owner.parts`."""
        return self.owner.parts(self.spec)

    @property
    def begins_as(self) -> Model | None:
        """See `Owner.begins_as`."""
        return self.owner.begins_as(self.spec)

    @property
    def command(self) -> str:
        """A command that trains it."""
        return self.command_on(data_words(self.spec))

    def command_on(self, data: Iterable[str]) -> str:
        """A command that trains it on the images that words of `linksim train` say."""
        return " ".join(["linksim", *self.words, *map(shlex.quote, data), "--budget", "40m"])

    def command_of(self, facts: Mapping[str, Any]) -> str:
        """The command that makes the weights of a card again.

        Args:
            facts: of the card: `recipe` (preset and changes), `steps`, `lineage`, `embedded`, `seed`, `dataset`.
        """
        preset, *changes = str(facts["recipe"]).split()
        own = {f"{key}={value}" for key, value in self.owner.changes(self.spec).items()}
        words = ["linksim", *self.words, *data_words(self.spec, facts.get("dataset"), facts.get("validated_on"))]
        words += ["--steps", str(facts["steps"]), "--recipe", preset]
        words += [word for change in changes if change not in own for word in ("--set", change)]
        if facts.get("embedded"):
            words += ["--warm", EMBEDDED]
        elif start := began_with(facts):
            words += ["--warm", start]
        elif self.begins_as is not None:
            words += ["--warm", FROM_SCRATCH]
        if facts.get("seed"):
            words += ["--seed", str(facts["seed"])]
        return " ".join(words)

    def make_recipe(self, preset: str, changes: Mapping[str, str], warm: bool) -> BaseRecipe:
        """The recipe of its training: a preset, with its own changes and then those given. Raises LinksimError."""
        return make_recipe(preset, {**self.owner.changes(self.spec), **changes}, self.owner.recipe, warm)

    def check_images(self, image_shape: tuple[int, int, int]) -> None:
        """See `Owner.check_images`."""
        self.owner.check_images(self.spec, image_shape)

    def build(self) -> nn.Module:
        """See `Owner.network`."""
        return self.owner.network(self.spec)

    def task(
        self, recipe: Any, images: TrainingSet, seed: int, device: str, start: nn.Module | None,
        frozen: Mapping[str, nn.Module] | None = None,
    ) -> Task:  # fmt: skip
        """See `Owner.task`."""
        return self.owner.task(self.spec, recipe, images, seed, device, start, frozen)

    def golden_psnr(self, network: nn.Module) -> float:
        """See `Owner.golden_psnr`."""
        return self.owner.golden_psnr(self.spec, network)
