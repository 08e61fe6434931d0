"""Weights of the refiners: diffusion priors, and networks trained on the output of a first stage."""

from __future__ import annotations

from collections.abc import Callable
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
    def shape(self) -> tuple[object, ...]:
        """See `Spec`."""
        return self.kind, self.size

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

        return denoising_psnr(model, load_dataset("cifar10-mini").images[:64], "cpu", (100,))[100]

    def to_json(self) -> dict[str, Any]:
        """See `Spec`."""
        return {"kind": self.kind, **asdict(self)}


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
    def shape(self) -> tuple[object, ...]:
        """See `Spec`."""
        return self.kind, self.width

    @property
    def words(self) -> list[str]:
        """See `Spec`."""
        return ["train", "--refiner", "cgan", *self.first.words[1:]]

    def build(self) -> nn.Module:
        """See `Spec`."""
        from linksim.nets.cgan import Generator

        return Generator(self.width)

    @property
    def parts(self) -> dict[str, Spec]:
        """The first stage."""
        return {"first": self.first}

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


MiniPart = Literal["vae", "denoiser", "control"]


@dataclass(frozen=True)
class MiniSpec(Spec):
    """A part of the latent-diffusion restorer for 32x32 (`diffbir-mini`).

    Args:
        part: "vae", the autoencoder; "denoiser", of its latents; "control", IRControlNet behind a first stage.
        first: the first stage's model, for "control".
    """

    part: MiniPart
    first: ModelSpec | None = None
    kind: ClassVar[str] = "diffbir-mini"

    def __post_init__(self) -> None:
        if (self.part == "control") != (self.first is not None):
            raise ValueError("the part of diffbir-mini with a first stage is control, and it alone")

    @property
    def unit(self) -> str:  # type: ignore[override]
        """See `Spec`."""
        return "images" if self.first is None else "pairs"

    @property
    def name(self) -> str:
        """See `Spec`."""
        return f"diffbir-mini_{self.part}" + (f"_{self.first.name}" if self.first is not None else "")

    @property
    def shape(self) -> tuple[object, ...]:
        """See `Spec`."""
        return self.kind, self.part

    @property
    def words(self) -> list[str]:
        """See `Spec`."""
        if self.first is None:
            return ["train", "--prior", f"diffbir-mini-{self.part}"]
        return ["train", "--refiner", "diffbir-mini", *self.first.words[1:]]

    @property
    def parts(self) -> dict[str, Spec]:
        """What it is trained with, frozen."""
        if self.part == "vae":
            return {}
        if self.first is None:
            return {"vae": MiniSpec("vae")}
        return {"vae": MiniSpec("vae"), "denoiser": MiniSpec("denoiser"), "first": self.first}

    def build(self) -> nn.Module:
        """See `Spec`."""
        from linksim.nets.latent import MiniDenoiser, MiniVae, mini_control

        return {"vae": MiniVae, "denoiser": MiniDenoiser, "control": mini_control}[self.part]()

    @property
    def recipe(self) -> type[BaseRecipe]:
        """See `Spec`."""
        from linksim.train.recipe import LatentRecipe

        return LatentRecipe

    def task(self, recipe: Any, images: NDArray[np.uint8], seed: int, device: str, start: nn.Module | None) -> Task:
        """See `Spec`."""
        from linksim import weights
        from linksim.train.latent import ControlTask, DenoiserTask, VaeTask

        kinds: dict[str, Any] = {"vae": VaeTask, "denoiser": DenoiserTask, "control": ControlTask}
        parts = {name: weights.load(spec) for name, spec in self.parts.items()}
        task: Task = kinds[self.part](self, recipe, images, seed, device, start, parts)
        return task

    def golden_psnr(self, model: nn.Module) -> float:
        """PSNR in dB of what comes of the first embedded images, in float32.

        The autoencoder's own; for the others that of the latents after one step of denoising.
        """
        from linksim import weights
        from linksim.train.latent import golden_psnr

        return golden_psnr(self, model, {name: weights.load(spec) for name, spec in self.parts.items()})

    def to_json(self) -> dict[str, Any]:
        """See `Spec`."""
        first = {"first": self.first.to_json()} if self.first is not None else {}
        return {"kind": self.kind, "part": self.part, **first}


KINDS: dict[str, Any] = {spec.kind: spec for spec in (PriorSpec, CganSpec, MiniSpec)}

#: What `linksim train --prior` trains.
PRIORS: dict[str, Spec] = {
    "small": PriorSpec("small"),
    "large": PriorSpec("large"),
    "diffbir-mini-vae": MiniSpec("vae"),
    "diffbir-mini-denoiser": MiniSpec("denoiser"),
}

#: Refiners that are trained on the output of a first stage.
TRAINED: dict[str, Callable[[ModelSpec], Spec]] = {
    "cgan": CganSpec,
    "diffbir-mini": lambda first: MiniSpec("control", first),
}


def refiner_spec(name: str, first: ModelSpec) -> Spec:
    """The refiner of that name behind a first stage. Raises LinksimError."""
    if name not in TRAINED:
        raise unknown("refiner to train", name, TRAINED)
    return TRAINED[name](first)
