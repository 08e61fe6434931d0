"""Weights of the refiners: diffusion priors, and networks trained on the output of a first stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from linksim.errors import unknown
from linksim.train.spec import ModelSpec, Spec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from linksim.train.recipe import BaseRecipe
    from linksim.train.task import Task

PriorSize = Literal["small", "large"]

#: UNet2DModel's widths by level, and residual blocks a level. `large` has the widths of improved-diffusion's network for
#: CIFAR-10 but two levels of attention less, and 35 M parameters.
_WIDTHS: dict[str, tuple[tuple[int, ...], int]] = {"small": ((32, 64, 128, 128), 1), "large": ((128, 256, 256, 256), 2)}


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
    if size not in get_args(PriorSize):
        raise unknown("size of a prior", size, get_args(PriorSize))
    return PriorSpec(size)  # type: ignore[arg-type]


KINDS: dict[str, Any] = {PriorSpec.kind: PriorSpec}


def refiner_spec(name: str, first: ModelSpec) -> Spec:
    """The refiner of that name behind a first stage. Raises LinksimError."""
    raise unknown("refiner", name, [])
