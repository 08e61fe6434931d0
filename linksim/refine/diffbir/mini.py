"""A latent-diffusion restorer in DiffBIR's structure (Lin et al. 2024), trained here for 32x32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from linksim.data.images import pixels
from linksim.errors import LinksimError
from linksim.link.config import Setting
from linksim.models import weights
from linksim.models.owner import Model
from linksim.models.recipe import BaseRecipe
from linksim.models.spec import CIFAR10_SHAPE, ModelSpec, RefinerSpec
from linksim.refine.base import Steps
from linksim.refine.diffbir.recipe import LatentRecipe
from linksim.refine.diffbir.restorer import Restorer, check_steps, noise_of, recoloured, restore
from linksim.refine.learned import LearnedRefiner
from linksim.schemes.base import Params, Scheme

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from linksim.data.training import TrainingSet
    from linksim.models.task import Task

VAE, DENOISER, CONTROL = "vae", "denoiser", "control"


class MiniParams(Params):
    """Parameters of the restorer for 32x32."""

    steps: int = Field(50, ge=1, le=1000, description="steps of the diffusion, from pure noise")
    eta: float = Field(1.0, ge=0, le=1, description="randomness: 1 as DDPM, 0 none")
    colours: Literal["wavelet", "none"] = Field("wavelet", description="wavelet: coarse colours of the first stage")


class DiffBirMini(LearnedRefiner):
    """A latent-diffusion restorer in DiffBIR's structure, trained here for 32x32: no number of DiffBIR's own.

    Its parts: "vae", the autoencoder; "denoiser", of its latents; "control", IRControlNet behind a first stage.
    """

    name: ClassVar[str] = "diffbir-mini"
    summary: ClassVar[str] = "a small latent-diffusion restorer in DiffBIR's structure, trained here for 32x32"
    Params: ClassVar[type[Params]] = MiniParams
    recipe: ClassVar[type[BaseRecipe]] = LatentRecipe

    def __init__(self, setting: Setting, params: MiniParams, first: Scheme) -> None:
        check_steps(params.steps)
        super().__init__(setting, params, first)

    @classmethod
    def behind(cls, first: ModelSpec, params: Any = None) -> RefinerSpec:
        """See `LearnedRefiner`."""
        if first.image_shape != CIFAR10_SHAPE:
            raise LinksimError(f"{cls.name} is for images of 32x32, not {pixels(first.image_shape)}: take diffbir")
        return RefinerSpec(cls.name, CONTROL, first)

    @classmethod
    def priors(cls, image_shape: tuple[int, int, int] = CIFAR10_SHAPE) -> dict[str, Model]:
        """See `Refiner`: the autoencoder and the denoiser; for 32x32 alone."""
        if image_shape != CIFAR10_SHAPE:
            return {}
        return {f"{cls.name}-{part}": Model(RefinerSpec(cls.name, part), cls) for part in (VAE, DENOISER)}

    @classmethod
    def models(cls, first: ModelSpec | None, params: Any) -> list[Model]:
        """See `Refiner`."""
        return [*cls.priors().values(), *super().models(first, params)] if first is not None else []

    @classmethod
    def network(cls, spec: RefinerSpec) -> nn.Module:
        """See `Owner`."""
        from linksim.refine.diffbir.network import MiniDenoiser, MiniVae, mini_control

        found: nn.Module = {VAE: MiniVae, DENOISER: MiniDenoiser, CONTROL: mini_control}[spec.part]()
        return found

    @classmethod
    def words(cls, spec: RefinerSpec) -> list[str]:
        """See `Owner`."""
        return super().words(spec) if spec.part == CONTROL else ["train", "--prior", f"{cls.name}-{spec.part}"]

    @classmethod
    def parts(cls, spec: RefinerSpec) -> dict[str, Model]:
        """What each part is trained with, frozen."""
        needed = {VAE: [], DENOISER: [VAE], CONTROL: [VAE, DENOISER]}[spec.part]
        return {**{part: Model(RefinerSpec(cls.name, part), cls) for part in needed}, **super().parts(spec)}

    @classmethod
    def task(
        cls, spec: RefinerSpec, recipe: Any, images: TrainingSet, seed: int, device: str, start: nn.Module | None,
        frozen: Mapping[str, nn.Module] | None = None,
    ) -> Task:  # fmt: skip
        """See `Owner`."""
        from linksim.refine.diffbir.training import ControlTask, DenoiserTask, VaeTask

        kind: Any = {VAE: VaeTask, DENOISER: DenoiserTask, CONTROL: ControlTask}[spec.part]
        frozen = weights.load_all(cls.parts(spec)) if frozen is None else frozen
        task: Task = kind(cls, spec, recipe, images, seed, device, start, frozen)
        return task

    @classmethod
    def golden_psnr(cls, spec: RefinerSpec, network: nn.Module) -> float:
        """PSNR in dB of what comes of the first embedded images, in float32.

        The autoencoder's own; for the others that of the latents after one step of denoising.
        """
        from linksim.refine.diffbir.training import golden_psnr

        return golden_psnr(spec, network, weights.load_all(cls.parts(spec)))

    def provenance(self) -> dict[str, str]:
        """Hash of the weights of each part."""
        return {
            model.spec.part: " ".join(card["files"].values())  # type: ignore[attr-defined]
            for model, card in zip(self._models, self._cards, strict=True)
        }

    def evaluations(self, snr_db: float) -> int:
        """See `Refiner`."""
        return int(self.params.steps)

    def load(self) -> None:
        """See `Refiner`."""
        _ = self._restorer

    @cached_property
    def _restorer(self) -> Restorer:
        import torch

        from linksim.refine.diffbir.network import LATENT_SCHEDULE, MiniDenoiser, MiniVae, denoise

        vae, denoiser, control = self.trained
        assert isinstance(vae, MiniVae)
        assert isinstance(denoiser, MiniDenoiser)

        def told(x: Tensor, time: int, hint: Tensor) -> Tensor:
            times = torch.full((len(x),), time, device=x.device)
            return denoise(denoiser.unet, control, x, times, denoiser.prompt.expand(len(x), -1, -1), hint)

        return Restorer(vae.encode, vae.decode, told, LATENT_SCHEDULE)

    def refine(self, images: Tensor, snr_db: float, draws: Sequence[np.random.Generator], report: Steps) -> Tensor:
        """See `Refiner.refine`."""
        params = self.params
        shown = restore(self._restorer, images, noise_of(draws, images), params.steps, params.eta, report)
        return recoloured(shown, images) if params.colours == "wavelet" else shown
