"""What the training loop trains: networks, the losses of a step, a score. Everything else is the loop's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from linksim.models.recipe import BaseRecipe

#: Of the 32 bits of a seed that torch's generator on a CPU reads, the half that numbers the steps of a stream.
_HALF = 2**31
#: The odd number next to the golden section of 2^32: its multiples are far apart, so that no two seeds share a step.
_GOLDEN = 0x9E3779B1


def draw_seed(seed: int, step: int, stream: Literal[0, 1] = 0) -> int:
    """What torch's generator is seeded with for the draws of a step; that of the next step is one more.

    A CPU's generator reads the low 32 bits alone, so a run's own seed has to be in them.

    Args:
        seed: of the run.
        step: its number.
        stream: 0: the steps of the training, 1: those of what is prepared before.

    Example:
        >>> draw_seed(0, 7), draw_seed(0, 7, stream=1) - 2**31
        (7, 7)
        >>> draw_seed(1, 0)
        506952113
    """
    return (seed * _GOLDEN + step) % _HALF + stream * _HALF


@dataclass(frozen=True)
class Share:
    """The part of a step's batch that is worked on at once: where memory is short, or several devices share a step.

    A step's draws are those of the whole batch, whoever works on which part.

    Args:
        index: number of the part.
        of: parts.

    Example:
        >>> Share(1, 3).rows(9)
        slice(3, 6, None)
    """

    index: int = 0
    of: int = 1

    def rows(self, count: int) -> slice:
        """The part's rows of `count`."""
        return slice(self.index * count // self.of, (self.index + 1) * count // self.of)

    def __call__(self, *drawn: Tensor) -> tuple[Tensor, ...]:
        """The part of what a step has drawn, by the first dimension; what is drawn afterwards is the part's own."""
        self.begin()
        return tuple(part[self.rows(len(part))] for part in drawn)

    def begin(self) -> None:
        """Has what is drawn from here on, dropout say, differ from part to part."""
        if self.index:
            torch.manual_seed((torch.initial_seed() + self.index * _GOLDEN) % (2 * _HALF))


class Task(ABC):
    """One kind of training.

    Args:
        recipe: how.
        seed: of every draw.
        device: torch device.

    Class attributes:
        collapse: a mean validation this far below the best is no noise, and ends the run; in the validation's unit.
    """

    collapse: ClassVar[float]

    def __init__(self, recipe: BaseRecipe, seed: int = 0, device: str = "cpu") -> None:
        self.recipe, self.seed, self.device = recipe, seed, device
        #: Hashes of the weights of every frozen model that takes part, by its part.
        self.parts: Mapping[str, list[str]] = {}
        #: What of a step's batch `losses` works on; a task takes it of all that it draws.
        self.share = Share()
        #: Whether the start is orthogonal, and users that superpose begin as its users in separate channel uses.
        self.embedded = False

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What a checkpoint belongs to, beside the recipe and the seed, as plain values."""

    @abstractmethod
    def network(self) -> nn.Module:
        """Everything that is trained, with fresh weights or those of a warm start."""

    @abstractmethod
    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        """The losses of one step, with the one that is minimised as "total"; draws are from torch's own generator."""

    @abstractmethod
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Named figures on held-out images; the weights with the highest `score` of them are kept, or see `last`."""

    @property
    def decays(self) -> tuple[float, ...]:
        """Of the averaged weights that are validated, one average each; the best are kept."""
        return (self.recipe.ema,)

    @property
    def last(self) -> bool:
        """Whether the weights of the end are kept: where no figure on held-out images tells all that is trained for."""
        return False

    def prepare(self, model: nn.Module, report: Callable[[int, int], None] | None = None) -> int:
        """What comes before the first step of a new run; returns the image groups that it took.

        Args:
            report: told its own steps, done and in all.
        """
        return 0

    def begin(self, model: nn.Module, step: int, steps: int) -> None:  # noqa: B027
        """Told before each step which of how many it is: for a training of several parts."""

    def compile(self, model: nn.Module) -> None:  # noqa: B027
        """Has what is worth it compiled; on a GPU."""

    @property
    @abstractmethod
    def validated(self) -> int:
        """Images that a validation is on."""

    def clipped(self, model: nn.Module) -> list[list[nn.Parameter]]:
        """Parameters whose gradients are clipped together."""
        return [list(model.parameters())]

    def settings(self) -> dict[str, Any]:
        """What a card says of the recipe's values."""
        return asdict(self.recipe)

    def measured(self, model: nn.Module, images: int) -> dict[str, Any]:
        """What else the card tells, measured with the best weights.

        Args:
            model: the network with these weights.
            images: image groups (a prior's images) that the training has seen, which says what may be spent on it.
        """
        return {}

    def shipped(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of the state of what was trained, the part that is kept as weights."""
        return state

    def score(self, found: Mapping[str, float]) -> float:
        """The figure that weights are compared by."""
        return sum(found.values()) / len(found)
