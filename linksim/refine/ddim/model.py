"""The diffusion priors that are trained here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from linksim.data.datasets import embedded_images
from linksim.errors import unknown
from linksim.models.owner import Model, Owner
from linksim.models.recipe import BaseRecipe
from linksim.models.spec import CIFAR10_SHAPE, PriorSize, PriorSpec
from linksim.refine.ddim.recipe import PriorRecipe

if TYPE_CHECKING:
    from torch import nn

    from linksim.data.training import TrainingSet
    from linksim.models.task import Task

PRIOR_SIZES: tuple[str, ...] = get_args(PriorSize)

#: UNet2DModel's widths by level, and residual blocks a level. `large` is close to improved-diffusion's network for
#: CIFAR-10, with less attention and 35 M parameters.
_WIDTHS: dict[str, tuple[tuple[int, ...], int]] = {"small": ((32, 64, 128, 128), 1), "large": ((128, 224, 256, 256), 2)}


def unet(widths: tuple[int, ...], blocks: int, sides: tuple[int, ...]) -> nn.Module:
    """A network that tells the noise in noisy images, with fresh weights.

    Args:
        widths: channels by level, the first at full resolution; multiples of 32.
        blocks: residual blocks a level.
        sides: (H, W) of the images.

    Example:
        >>> sum(value.numel() for value in unet((32, 64), 1, (32, 32)).parameters())
        705731
    """
    from diffusers import UNet2DModel

    levels = len(widths)
    found: nn.Module = UNet2DModel(
        sample_size=sides,
        block_out_channels=widths,
        layers_per_block=blocks,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        attention_head_dim=32,
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
    )
    return found


class OwnPrior(Owner):
    """What is trained as `linksim train --prior small` and run as `ddim:prior=small`."""

    recipe: ClassVar[type[BaseRecipe]] = PriorRecipe

    @classmethod
    def network(cls, spec: PriorSpec) -> nn.Module:
        """See `Owner`."""
        return unet(*_WIDTHS[spec.size], spec.image_shape[1:])

    @classmethod
    def check_images(cls, spec: PriorSpec, image_shape: tuple[int, int, int]) -> None:
        """See `Owner`: the network halves the sides at each level but the first."""
        from linksim.nets.network import check_sides

        check_sides(image_shape, 2 ** (len(_WIDTHS[spec.size][0]) - 1))

    @classmethod
    def words(cls, spec: PriorSpec) -> list[str]:
        """See `Owner`."""
        return ["train", "--prior", spec.size]

    @classmethod
    def task(
        cls, spec: PriorSpec, recipe: Any, images: TrainingSet, seed: int, device: str, start: nn.Module | None,
        frozen: Mapping[str, nn.Module] | None = None,
    ) -> Task:  # fmt: skip
        """See `Owner`."""
        from linksim.refine.ddim.training import PriorTask

        return PriorTask(spec, cls.network, recipe, images, seed, device, start)

    @classmethod
    def golden_psnr(cls, spec: PriorSpec, network: nn.Module) -> float:
        """PSNR in dB of the denoised images at step 100, on embedded images."""
        from linksim.refine.ddim.training import denoising_psnr

        return denoising_psnr(network, embedded_images(64, spec.image_shape), "cpu", (100,))[100]


def prior(size: str, image_shape: tuple[int, int, int] = CIFAR10_SHAPE) -> Model:
    """The prior of a size for images (C, H, W). Raises LinksimError."""
    if size not in PRIOR_SIZES:
        raise unknown("size of a prior", size, PRIOR_SIZES)
    return Model(PriorSpec(size, image_shape), OwnPrior)  # type: ignore[arg-type]
