"""What every metric says of itself, and the two kinds: of one image, and of a set of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from linksim.errors import LinksimError
from linksim.link.units import off_scale

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class Column(NamedTuple):
    """A column of numbers in a table.

    Args:
        name: of the column.
        label: what a figure's axis calls it.
        digits: behind the point, where a reader sees it.
        higher_is_better: direction of the number.
    """

    name: str
    label: str
    digits: int
    higher_is_better: bool = True


class Metric(ABC):
    """A number for how good received images are.

    Attributes:
        name: what `--metrics` takes.
        column: its column in the tables.
        higher_is_better: direction of the number.
        summary: one line for `linksim list metrics`.
        convention: every choice that changes the number, for a run's provenance.
        asset: the weights that it needs (`linksim assets`); None where it needs none.
        label: what a figure's axis calls it; the column's name where it is empty.
        digits: behind the point, where a reader sees it.
        of_a_set: whether one number belongs to a set of images rather than to one image.
    """

    name: ClassVar[str]
    column: ClassVar[str]
    higher_is_better: ClassVar[bool]
    summary: ClassVar[str]
    convention: ClassVar[str]
    asset: ClassVar[str | None] = None
    label: ClassVar[str] = ""
    digits: ClassVar[int] = 4
    of_a_set: ClassVar[bool]

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = device

    @classmethod
    def columns(cls) -> list[Column]:
        """Every column that it gives to the table of curve points.

        Example:
            >>> from linksim.metrics import Psnr
            >>> [column.name for column in Psnr.columns()]
            ['psnr_db', 'psnr_pooled_db']
        """
        return [Column(cls.column, cls.label or cls.column, cls.digits, cls.higher_is_better)]


class ImageMetric(Metric):
    """A metric of one image against its reference.

    Attributes:
        min_side: smallest height and width in pixels for which it is defined.
        pooled: a second column, of the metric over the images of a group's users together; None: there is none.

    Example:
        >>> import torch
        >>> class Brightness(ImageMetric):
        ...     name = column = "brightness"
        ...     def measure(self, reference, image):
        ...         return (reference - image).mean((1, 2, 3)).abs()
        >>> Brightness()(torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.25))
        tensor([0.2500, 0.2500])
    """

    of_a_set = False
    min_side: ClassVar[int] = 1
    pooled: ClassVar[Column | None] = None

    @classmethod
    def columns(cls) -> list[Column]:
        """See `Metric`; what is pooled comes behind the mean of single images."""
        return super().columns() + ([cls.pooled] if cls.pooled is not None else [])

    @classmethod
    def of_pooled(cls, mean_squared_error: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of a metric with `pooled`: its value for each group [T], from the MSE over all images of a group [T]."""
        raise NotImplementedError

    def __call__(self, reference: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """The metric of each image.

        Args:
            reference: what was sent, float32 [B, C, H, W] in [0, 1].
            image: what was received, the same shape and range.

        Returns:
            float [B], on the metric's device.

        Raises:
            LinksimError: two different shapes, no floats, values far from [0, 1], or images smaller than the metric is
                defined for.
        """
        for images in (reference, image):
            _check(self.name, images)
        if reference.shape != image.shape:
            raise LinksimError(f"{self.name} of {list(reference.shape)} and {list(image.shape)}: give two of one shape")
        if min(reference.shape[-2:]) < self.min_side:
            raise LinksimError(
                f"{self.name} needs images of {self.min_side}x{self.min_side} or more, "
                f"these are {reference.shape[-1]}x{reference.shape[-2]}: take it out of --metrics"
            )
        measured = self.measure(reference.to(self.device), image.to(self.device))
        if tuple(measured.shape) != (len(reference),) or not bool(measured.isfinite().all()):
            raise LinksimError(
                f"metric {self.name!r} gave values of shape {list(measured.shape)}: "
                f"[{len(reference)}] finite ones are wanted"
            )
        return measured

    @abstractmethod
    def measure(self, reference: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """The metric of checked images, each float32 [B, C, H, W] in [0, 1] on the metric's device.

        Returns:
            float [B], one finite value an image.
        """


def _check(name: str, images: torch.Tensor) -> None:
    """Raises LinksimError for what a metric takes for no images: uint8, or values to 255."""
    import torch

    if not isinstance(images, torch.Tensor):
        raise LinksimError(f"{name} of a {type(images).__name__}: give float32 [B, C, H, W] in [0, 1]")
    if not images.is_floating_point() or images.ndim != 4:
        raise LinksimError(f"{name} of {images.dtype} {list(images.shape)}: give float32 [B, C, H, W] in [0, 1]")
    if found := off_scale(images):
        raise LinksimError(f"{name} of {found}: give float32 [B, C, H, W] in [0, 1]")


class SetMetric(Metric):
    """A metric of two sets of images, from features of each image.

    Attributes:
        features_name: what its features are called; metrics of one name, `identity` and code share them.
        MIN_IMAGES: with fewer images a sweep is refused.
        FLAG_BELOW: with fewer images the row carries a note.
        estimate: what a sweep takes that has changed since there were results, in words; such results are of another
            identity than those of before. Empty where nothing has.

    Example:
        >>> import linksim, torch
        >>> kid = linksim.metric("kid")  # doctest: +SKIP
        >>> kid(torch.rand(100, 3, 32, 32), torch.rand(100, 3, 32, 32))  # doctest: +SKIP
        0.0002
    """

    of_a_set = True
    features_name: ClassVar[str]
    MIN_IMAGES: ClassVar[int]
    FLAG_BELOW: ClassVar[int]
    estimate: ClassVar[str] = ""

    @abstractmethod
    def features(self, images: torch.Tensor) -> NDArray[np.float32]:
        """Features [B, D] of images, float32 [B, C, H, W] in [0, 1]."""

    @abstractmethod
    def distance(self, reference_features: NDArray[np.float32], features: NDArray[np.float32]) -> float:
        """The metric of two sets, from their features [T, D] and [T', D]."""

    def paired_distance(self, reference_features: NDArray[np.float32], features: NDArray[np.float32]) -> float:
        """The metric of sent and received images, from their features [T, D] each, an image and its copy in one row.

        That is what a sweep measures. It is `distance` but for metrics that take pairs of images.
        """
        return self.distance(reference_features, features)

    def __call__(self, reference: torch.Tensor, images: torch.Tensor) -> float:
        """The metric of two sets of images, float32 [T, C, H, W] and [T', C, H, W] in [0, 1].

        Raises:
            LinksimError: too few images for a number that means anything, no floats, or values far from [0, 1].
        """
        for found in (reference, images):
            _check(self.name, found)
            self.check_count(len(found))
        return self.distance(self.features(reference), self.features(images))

    @abstractmethod
    def identity(self) -> str:
        """What fixes the features of an image: network, weights, resizing, rounding."""

    @classmethod
    def check_count(cls, n_images: int) -> None:
        """Raises LinksimError where `n_images` are too few for a number that means anything."""
        if n_images < cls.MIN_IMAGES:
            raise LinksimError(
                f"{cls.name} of {n_images} images means nothing: take {cls.MIN_IMAGES} or more, "
                "or leave it out of --metrics"
            )

    @classmethod
    def note(cls, n_images: int) -> str:
        """What a reader of a row with `n_images` has to know; empty where there is nothing."""
        return f"biased: fewer than {cls.FLAG_BELOW} images" if n_images < cls.FLAG_BELOW else ""
