"""What a trained model is: everything that decides which weights fit where, as plain values.

Whose networks these are, and how they are trained, the scheme or refiner says that owns them (`linksim.models.owner`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from linksim.data.cifar10 import IMAGE_SHAPE
from linksim.data.images import size_of
from linksim.link.channels import channel_class
from linksim.link.config import MAX_USERS, Access, LinkConfig, PowerConvention
from linksim.link.power import equal_split, user_powers
from linksim.link.units import source_size

#: (C, H, W) of what a model is for, where it does not say.
CIFAR10_SHAPE = IMAGE_SHAPE

#: The value of `ablation` that leaves nothing out.
NO_ABLATION = "none"

#: The ablation whose weights never saw those of another scheme.
SCRATCH = "scratch"


def size_words(image_shape: tuple[int, ...]) -> str:
    """Height and width of images (C, H, W) in short: one side where both are equal.

    Example:
        >>> size_words((3, 256, 256)), size_words((3, 512, 768))
        ('256', '768x512')
    """
    _, height, width = image_shape
    return str(size_of(height, width))


def began_with(facts: Mapping[str, Any]) -> str:
    """Name of the model that a training went on from, of its card or state; empty where it began from scratch."""
    lineage = facts["lineage"]
    return str(lineage[-1]["model"]) if lineage else ""


def lineage_pairs(facts: Mapping[str, Any]) -> int:
    """Image groups (a prior's images) that a card's weights have seen, before their own training too."""
    return sum(run["pairs"] for run in (*facts["lineage"], facts))


class Spec(ABC):
    """One set of weights: a transceiver's, a diffusion prior's, a refiner's."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    @property
    @abstractmethod
    def name(self) -> str:
        """File name of the weights."""

    @property
    def unit(self) -> str:
        """What its training counts: image groups ("pairs", for two users) or "images"."""
        return "pairs"

    @property
    @abstractmethod
    def shape(self) -> tuple[object, ...]:
        """Equal for models whose weights may fit each other's networks."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that it is for."""
        return CIFAR10_SHAPE

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Plain values for a card; `spec_from_json` reads them."""


_Side = Annotated[int, Field(ge=1, le=8192)]


@dataclass(frozen=True)
class ModelSpec(Spec):
    """The weights of a transceiver.

    Args:
        method: name of the scheme, a `Learned`.
        size: "paper", "compact", half its widths, or "wide".
        channel: fading it was trained on.
        rho: channel uses over which ONE user's image spreads, over C*H*W: the system's where the users superpose, its
            N-th where each has its own.
        users: N.
        csi: side information: "none", the receiver equalises; "snr", gamma alone; "own", gamma and the user's own h;
            "all", gamma and every h.
        power: convention of the users' powers.
        image_shape: (C, H, W) of the images that it is for; it may be trained on parts of them.
        ablation: what its training leaves out, one of the scheme's `ablations`.

    Example:
        >>> ModelSpec("kd", "compact", "awgn", Fraction(1, 6)).name
        'kd_awgn_1-6_n2_own_sum_32px_compact'
    """

    method: str
    size: Literal["compact", "paper", "wide"]
    channel: str
    rho: Fraction
    users: Annotated[int, Field(ge=1, le=MAX_USERS)] = 2
    csi: Literal["none", "snr", "own", "all"] = "own"
    power: PowerConvention = "sum"
    image_shape: tuple[_Side, _Side, _Side] = CIFAR10_SHAPE
    ablation: str = NO_ABLATION

    kind: ClassVar[str] = "transceiver"

    @property
    def name(self) -> str:
        """File name of the weights."""
        ratio = f"{self.rho.numerator}-{self.rho.denominator}"
        words = [self.method, self.channel, ratio, f"n{self.users}", self.csi, self.power]
        words += [f"{size_words(self.image_shape)}px", self.size]
        return "_".join(words if self.ablation == NO_ABLATION else [*words, self.ablation])

    @property
    def shape(self) -> tuple[object, ...]:
        """See `Spec`; transceivers adopt what fits of each other."""
        return (self.kind,)

    @property
    def symbols(self) -> int:
        """Complex symbols of one user."""
        return int(self.rho * source_size(self.image_shape))

    @property
    def fades(self) -> bool:
        """Whether h differs from 1 on the channel that it is trained on."""
        return channel_class(self.channel).fades

    @property
    def side_dim(self) -> int:
        """D: where nothing fades there is nothing but gamma to tell; an equaliser is told the user's own h."""
        if not self.fades:
            return 1
        return {"none": 3, "snr": 1, "own": 3, "all": 1 + 2 * self.users}[self.csi]

    @property
    def link(self) -> LinkConfig:
        """The link that it is trained on."""
        return LinkConfig(self.channel, self.users, self.power)

    def powers(self, access: Access) -> tuple[float, ...]:
        """Power of each user over its own symbols, where the users superpose ("noma") or not ("oma")."""
        return user_powers(self.power, self.users, access, equal_split(self.users))

    def system_rho(self, access: Access) -> Fraction:
        """The system's bandwidth ratio: what `--rho` asks for.

        Example:
            >>> ModelSpec("semoma", "compact", "awgn", Fraction(1, 12)).system_rho("oma")
            Fraction(1, 6)
        """
        return self.rho * self.users if access == "oma" else self.rho

    def to_json(self) -> dict[str, Any]:
        """See `Spec`."""
        return {**asdict(self), "rho": str(self.rho), "image_shape": list(self.image_shape)}


PriorSize = Literal["small", "large"]


@dataclass(frozen=True)
class PriorSpec(Spec):
    """An unconditional diffusion prior, 1000 steps, cosine schedule, predicting the noise.

    Args:
        size: "small", 4.3 M parameters, or "large", 35 M.
        image_shape: (C, H, W) of its images.

    Example:
        >>> PriorSpec().name, PriorSpec("large", (3, 64, 64)).name
        ('prior_cifar10_32px_small', 'prior_64px_large')
    """

    size: PriorSize = "small"
    image_shape: tuple[int, int, int] = CIFAR10_SHAPE

    kind: ClassVar[str] = "prior"

    @property
    def name(self) -> str:
        """See `Spec`."""
        data = "cifar10_" if self.image_shape == CIFAR10_SHAPE else ""
        return f"prior_{data}{size_words(self.image_shape)}px_{self.size}"

    @property
    def unit(self) -> str:
        """See `Spec`."""
        return "images"

    @property
    def shape(self) -> tuple[object, ...]:
        """See `Spec`."""
        return self.kind, self.size

    def to_json(self) -> dict[str, Any]:
        """See `Spec`."""
        size = {} if self.image_shape == CIFAR10_SHAPE else {"image_shape": list(self.image_shape)}
        return {"kind": self.kind, "size": self.size, **size}


@dataclass(frozen=True)
class RefinerSpec(Spec):
    """The weights of a refiner, or of one of its parts.

    Args:
        kind: name of the refiner.
        part: which of its networks, for a refiner that has several.
        first: the first stage's model, of a network that is trained on its output.
        images: (C, H, W) of a network that is trained behind many first stages at once.

    Example:
        >>> RefinerSpec("diffbir-mini", part="vae").name, RefinerSpec("flow", images=(3, 64, 64)).name
        ('diffbir-mini_vae', 'flow_64px')
    """

    kind: str
    part: str = ""
    first: ModelSpec | None = None
    images: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if not self.kind or (not self.part and self.first is None and self.images is None):
            raise ValueError("a refiner's model is one of its parts, or stands behind one first stage or many")

    @property
    def name(self) -> str:
        """See `Spec`."""
        behind = self.first.name if self.first is not None else ""
        size = f"{size_words(self.images)}px" if self.images is not None else ""
        return "_".join(filter(None, (self.kind, self.part, behind, size)))

    @property
    def unit(self) -> str:
        """See `Spec`."""
        return "pairs" if self.first is not None or self.images is not None else "images"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """See `Spec`."""
        if self.first is not None:
            return self.first.image_shape
        return self.images or CIFAR10_SHAPE

    @property
    def shape(self) -> tuple[object, ...]:
        """See `Spec`; the first stage's size goes with the refiner's."""
        return self.kind, self.part, self.first.size if self.first is not None else None

    def to_json(self) -> dict[str, Any]:
        """See `Spec`."""
        part = {"part": self.part} if self.part else {}
        first = {"first": self.first.to_json()} if self.first is not None else {}
        images = {"images": list(self.images)} if self.images is not None else {}
        return {"kind": self.kind, **part, **first, **images}


def spec_from_json(values: Mapping[str, Any]) -> Spec:
    """The inverse of `Spec.to_json`. Raises ValueError for what is no model.

    Example:
        >>> spec_from_json({"kind": "prior", "size": "small"}) == PriorSpec("small")
        True
    """
    kind, rest = values.get("kind", ModelSpec.kind), {key: value for key, value in values.items() if key != "kind"}
    if kind == ModelSpec.kind:
        return _TRANSCEIVER.validate_python(rest)
    if kind == PriorSpec.kind:
        return _PRIOR.validate_python(rest)
    return _REFINER.validate_python(values)


_TRANSCEIVER, _PRIOR, _REFINER = TypeAdapter(ModelSpec), TypeAdapter(PriorSpec), TypeAdapter(RefinerSpec)
