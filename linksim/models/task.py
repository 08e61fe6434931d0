"""What the training loop trains: networks, the losses of a step, a score. Everything else is the loop's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from linksim.data.cifar10 import VALIDATION
from linksim.models.recipe import BaseRecipe


def draw_images(pool: Tensor, shape: tuple[int, ...], flip: bool) -> Tensor:
    """Images of a pool [T, C, H, W] at random, float32 [*shape, C, H, W] in the pool's range; `flip`: half mirrored."""
    images = pool[torch.randint(len(pool), shape, device=pool.device)].float()
    if flip:
        mirrored = torch.rand(*shape, 1, 1, 1, device=pool.device) < 0.5
        images = torch.where(mirrored, images.flip(-1), images)
    return images


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
        """Named figures on held-out images; the best weights are those with the highest `score` of them."""

    def prepare(self, model: nn.Module) -> int:
        """What comes before the first step of a new run; returns the image groups that it took."""
        return 0

    def compile(self, model: nn.Module) -> None:  # noqa: B027
        """Has what is worth it compiled; on a GPU."""

    @property
    def validated(self) -> int:
        """Images that a validation is on."""
        return VALIDATION

    def clipped(self, model: nn.Module) -> list[list[nn.Parameter]]:
        """Parameters whose gradients are clipped together."""
        return [list(model.parameters())]

    def settings(self) -> dict[str, Any]:
        """What a card says of the recipe's values."""
        return asdict(self.recipe)

    def shipped(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of the state of what was trained, the part that is kept as weights."""
        return state

    def score(self, found: Mapping[str, float]) -> float:
        """The figure that decides which weights are kept."""
        return sum(found.values()) / len(found)


def split(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The images to train on and those for validation."""
    return images[: len(images) - VALIDATION], images[len(images) - VALIDATION :]
