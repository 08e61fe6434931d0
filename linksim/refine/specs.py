"""Weights of the refiners: diffusion priors, and networks trained on the output of a first stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from linksim.errors import unknown
from linksim.train.spec import ModelSpec, Spec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from linksim.nets.network import Network
    from linksim.train.recipe import BaseRecipe
    from linksim.train.task import Task

PriorSize = Literal["small", "large"]
PRIOR_SIZES: tuple[str, ...] = get_args(PriorSize)

#: UNet2DModel's widths by level, and residual blocks a level. `large` is close to improved-diffusion's network for
#: CIFAR-10, with less attention and 35 M parameters.
_WIDTHS: dict[str, tuple[tuple[int, ...], int]] = {"small": ((32, 64, 128, 128), 1), "large": ((128, 224, 256, 256), 2)}


@dataclass(frozen=True)
class PriorSpec(Spec):
    """An unconditional diffusion prior over CIFAR-10, 1000 steps, cosine schedule, predicting the noise.

    Args:
        size: "small", 4.3 M parameters, or "large", 35 M.
    """

    size: PriorSize = "small"
    kind: ClassVar[str] = "prior"
    unit: ClassVar[str] = "images"

    @property
    def name(self) -> str:
        """See `Spec`."""
        return f"prior_cifar10_32px_{self.size}"

    @property
    def words(self) -> list[str]:
        """See `Spec`."""
        return ["train", "--prior", self.size]

    def build(self) -> nn.Module:
        """See `Spec`."""
        from diffusers import UNet2DModel

        widths, blocks = _WIDTHS[self.size]
        levels = len(widths)
        return UNet2DModel(
            sample_size=32,
            block_out_channels=widths,
            layers_per_block=blocks,
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=("UpBlock2D",) * levels,
            attention_head_dim=32,
            norm_num_groups=8,
            resnet_time_scale_shift="scale_shift",
        )

    @property
    def recipe(self) -> type[BaseRecipe]:
        """See `Spec`."""
        from linksim.train.recipe import PriorRecipe

        return PriorRecipe

    def task(self, recipe: Any, images: NDArray[np.uint8], seed: int, device: str, start: nn.Module | None) -> Task:
        """See `Spec`."""
        from linksim.train.priors import PriorTask

        return PriorTask(self, recipe, images, seed, device, start)

    def golden_psnr(self, model: nn.Module) -> float:
        """PSNR in dB of the denoised images at step 100, on embedded images."""
        from linksim.data import load_dataset
        from linksim.train.priors import denoising_psnr

        return denoising_psnr(model, load_dataset("cifar10-mini").images[:64], "cpu", (100,), exact=True)[100]

    def to_json(self) -> dict[str, Any]:
        """See `Spec`."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PriorSpec:
        """The inverse of `to_json`."""
        return prior_spec(values["size"])


def prior_spec(size: str) -> PriorSpec:
    """The prior of a size. Raises LinksimError."""
    if size not in PRIOR_SIZES:
        raise unknown("size of a prior", size, PRIOR_SIZES)
    return PriorSpec(size)  # type: ignore[arg-type]


#: Channels of the generator at full resolution, by the size of the first stage.
_GENERATOR_WIDTHS = {"compact": 32, "paper": 64}


@dataclass(frozen=True)
class CganSpec(Spec):
    """The generator of SemNOMA-CGAN.

    Args:
        first: the frozen first stage's model.
    """

    first: ModelSpec
    kind: ClassVar[str] = "cgan"

    @property
    def name(self) -> str:
        """See `Spec`."""
        return f"cgan_{self.first.name}"

    @property
    def width(self) -> int:
        """Channels of the generator at full resolution."""
        return _GENERATOR_WIDTHS[self.first.size]

    @property
    def words(self) -> list[str]:
        """See `Spec`."""
        return ["train", "--refiner", "cgan", *self.first.words[1:]]

    def build(self) -> nn.Module:
        """See `Spec`."""
        from linksim.nets.cgan import Generator

        return Generator(self.width)

    def ready(self) -> None:
        """See `Spec`."""
        from linksim import weights

        weights.card(self.first)

    @property
    def recipe(self) -> type[BaseRecipe]:
        """See `Spec`."""
        from linksim.train.recipe import CganRecipe

        return CganRecipe

    def task(self, recipe: Any, images: NDArray[np.uint8], seed: int, device: str, start: nn.Module | None) -> Task:
        """See `Spec`."""
        from linksim.train.adversarial import CganTask

        return CganTask(self, recipe, images, self._first(), seed, device, start)

    def golden_psnr(self, model: nn.Module) -> float:
        """Mean PSNR in dB of the refined images at 10 dB on the first embedded images."""
        from linksim.data import load_dataset
        from linksim.train.adversarial import golden_psnr

        images = load_dataset("cifar10-mini").images[: 32 * self.first.users]
        return golden_psnr(self, model, self._first(), images)

    def _first(self) -> Network:
        from linksim import weights
        from linksim.nets.network import Network

        network = weights.load(self.first)
        assert isinstance(network, Network)
        return network

    def to_json(self) -> dict[str, Any]:
        """See `Spec`."""
        return {"kind": self.kind, "first": self.first.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CganSpec:
        """The inverse of `to_json`."""
        return cls(ModelSpec.from_json(values["first"]))


KINDS: dict[str, Any] = {spec.kind: spec for spec in (PriorSpec, CganSpec)}

#: Refiners that are trained on the output of a first stage.
TRAINED: dict[str, Callable[[ModelSpec], Spec]] = {"cgan": CganSpec}


def refiner_spec(name: str, first: ModelSpec) -> Spec:
    """The refiner of that name behind a first stage. Raises LinksimError."""
    if name not in TRAINED:
        raise unknown("refiner to train", name, TRAINED)
    return TRAINED[name](first)
