"""What a refiner is: a second stage behind any scheme."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from linksim.errors import LinksimError
from linksim.link.draws import Stream, generator
from linksim.link.units import off_scale
from linksim.models.spec import CIFAR10_SHAPE
from linksim.schemes.base import Params, check_images

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from linksim.link.config import Setting, SideInfo
    from linksim.models.owner import Model, Owner
    from linksim.models.spec import ModelSpec
    from linksim.schemes.base import Scheme

#: Told the steps done and the steps in all while a batch is refined.
Steps = Callable[[int, int], None]


def silent(done: int, steps: int) -> None:
    """Where nobody looks at the steps."""


class Refiner(ABC):
    """A stage that takes a scheme's images and gives others of the same shape.

    Class attributes:
        name: behind the `+` in `--scheme`, and in the table's column `stage`.
        summary: one line for `linksim list refiners`.
        title: what figures and printed tables call it; empty: its name.
        Params: its parameters; they stand beside the scheme's own (`--scheme kd+ddim:start=40`).

    Example:
        >>> import linksim
        >>> class Darker(Refiner):
        ...     name, summary = "darker", "half of every value"
        ...     def refine(self, images, snr_db, draws, report):
        ...         return images / 2
        >>> linksim.register_refiner(Darker).name
        'darker'
        >>> linksim.unregister(Darker)
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    title: ClassVar[str] = ""
    Params: ClassVar[type[Params]] = Params

    def __init__(self, setting: Setting, params: Any, first: Scheme) -> None:
        """Raises LinksimError where it cannot work behind `first` in `setting`; heavy things wait for the first use.

        Args:
            setting: what a scheme may know beforehand.
            params: of the class's own `Params`.
            first: the scheme whose images it takes.
        """
        self.setting, self.params, self.first = setting, params, first
        self._at_once: int | None = None

    @classmethod
    def models(cls, first: ModelSpec | None, params: Any) -> list[Model]:
        """The models that it needs behind a first stage of the model `first` (None: it has no weights)."""
        return []

    @classmethod
    def assets(cls, params: Any) -> list[str]:
        """The assets (`linksim assets`) that it needs."""
        return []

    @classmethod
    def priors(cls, image_shape: tuple[int, int, int] = CIFAR10_SHAPE) -> dict[str, Model]:
        """Its models that are trained on images (C, H, W) alone, by what `linksim train --prior` calls them."""
        return {}

    @classmethod
    def apart(cls, image_shape: tuple[int, int, int] = CIFAR10_SHAPE) -> Model | None:
        """Its model for images (C, H, W) that is trained behind many first stages at once, and serves behind any."""
        return None

    @classmethod
    def owners(cls) -> dict[str, type[Owner]]:
        """Who owns its models, by their `kind`."""
        return {}

    def provenance(self) -> dict[str, str]:
        """What a result depends on beyond the sweep's own settings: weights' hashes."""
        return {}

    def load(self) -> None:  # noqa: B027
        """Loads what is heavy, so that the time of a refinement is that of its steps."""

    def evaluations(self, snr_db: float) -> int:
        """Evaluations of the network for one image: the table's `refine_steps`."""
        return 1

    def facts(self, snr_db: float) -> Mapping[str, float]:
        """Numbers that a row of the table shall say of the refinement at an SNR: `key` is the column `refine_key`."""
        return {}

    @abstractmethod
    def refine(self, images: Tensor, snr_db: float, draws: Sequence[np.random.Generator], report: Steps) -> Tensor:
        """Refines images.

        Args:
            images: float32 [M, C, H, W] in [0, 1].
            snr_db: gamma.
            draws: a random generator for each image, at its beginning.
            report: called after each step.

        Returns:
            float32 [M, C, H, W] in [0, 1].
        """

    def refine_each(
        self,
        images: Tensor,
        snr_db: float,
        received_db: Sequence[float],
        draws: Sequence[np.random.Generator],
        report: Steps,
    ) -> Tensor:
        """Refines images received at SNRs of their own, dB [M]; unless overridden, all alike (see `refine`)."""
        return self.refine(images, snr_db, draws, report)

    def __call__(self, images: Tensor, side: SideInfo, report: Steps = silent) -> Tensor:
        """Refines the images [B, N, C, H, W] of all users as one batch, or as one for each SNR of the groups.

        Networks compute in the setting's precision. Where a GPU's memory does not hold the images, half of them go at
        once, and then half of that. Random draws are keyed by image, so that this changes no image but for rounding.

        Raises:
            LinksimError: not even one image fits, or what comes back is no image.
        """
        import torch

        from linksim.nets.precision import evaluated_in

        snrs_db = side.snr_db.tolist()
        if len(set(snrs_db)) > 1:
            whole = torch.empty_like(images, dtype=torch.float32)
            for snr in dict.fromkeys(snrs_db):
                rows = [row for row, other in enumerate(snrs_db) if other == snr]
                whole[rows] = self(images[rows], side.part(rows), report)
            return whole
        flat = images.flatten(0, 1)
        seed, groups = side.draws
        keys = [(group, user) for group in groups for user in range(images.shape[1])]
        snr_db, received_db = snrs_db[0], side.received_db.flatten().tolist()
        size = min(self._at_once or len(flat), len(flat))
        parts: list[Tensor] = []
        start = 0
        while start < len(flat):
            part = slice(start, start + size)
            try:
                draws = [generator(seed, Stream.REFINER, group, user) for group, user in keys[part]]
                # A copy: what ran out of memory half-way may have changed its images, and they are taken once more.
                with evaluated_in(self.setting.precision, self.setting.device):
                    refined = self.refine_each(flat[part].clone(), snr_db, received_db[part], draws, report)
                parts.append(self._checked(refined, flat[part]).clone())
            except torch.OutOfMemoryError:
                if size == 1:
                    raise LinksimError(
                        f"{self.name}: the memory of {self.setting.device} does not hold one image: what is done is "
                        "kept; free some of it, or leave --device out"
                    ) from None
                size = -(-size // 2)
                self._at_once = size
                warnings.warn(f"{self.name}: out of memory on {self.setting.device}: {size} images at once from here "
                              "on", stacklevel=2)  # fmt: skip
                continue
            start += size
        found: Tensor = torch.cat(parts).unflatten(0, images.shape[:2])
        return found

    def _checked(self, refined: Any, images: Tensor) -> Tensor:
        """What `refine` returned, within [0, 1]. Raises LinksimError for what is no image."""
        source = f"refiner {self.name!r}"
        whole = check_images(refined, images.shape, source)
        if found := off_scale(whole):
            raise LinksimError(f"{source} returned {found}: floats in [0, 1] are wanted")
        return whole.float().clamp(0, 1)


class ByImage(Refiner):
    """A refiner that takes every image by the SNR at which it was received: `refine_each` is what a class has."""

    def refine(self, images: Tensor, snr_db: float, draws: Sequence[np.random.Generator], report: Steps) -> Tensor:
        """See `Refiner.refine`: all are received at the channel's SNR."""
        return self.refine_each(images, snr_db, [snr_db] * len(images), draws, report)

    @abstractmethod
    def refine_each(
        self,
        images: Tensor,
        snr_db: float,
        received_db: Sequence[float],
        draws: Sequence[np.random.Generator],
        report: Steps,
    ) -> Tensor:
        """See `Refiner.refine_each`."""
