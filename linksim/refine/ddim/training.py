"""Training of a diffusion prior: it learns to tell the noise in a noisy image (Ho et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from linksim.metrics import mse, psnr_from_mse
from linksim.models.pool import Pool
from linksim.models.spec import PriorSpec
from linksim.models.task import Task
from linksim.refine.ddim.recipe import PriorRecipe
from linksim.refine.diffusion import OWN_SCHEDULE, make_scheduler

if TYPE_CHECKING:
    from linksim.data.training import TrainingSet

#: Steps at which a prior's denoising is measured: those that a refinement goes through.
VALIDATION_STEPS = (50, 100, 200)
_VALIDATION_IMAGES, _VALIDATION_PIXELS = 512, 2**21
_VALIDATION_SEED = 2**40


class PriorTask(Task):
    """A prior, from scratch or from another one's weights.

    Args:
        spec: the model.
        make: gives a network with fresh weights.
        recipe: how.
        images: the data set.
        seed, device: see `Task`.
        start: a network to start from.
    """

    recipe: PriorRecipe
    collapse: ClassVar[float] = 5.0

    def __init__(
        self,
        spec: PriorSpec,
        make: Callable[[PriorSpec], nn.Module],
        recipe: PriorRecipe,
        images: TrainingSet,
        seed: int = 0,
        device: str = "cpu",
        start: nn.Module | None = None,
    ) -> None:
        super().__init__(recipe, seed, device)
        self._spec, self._make, self._start = spec, make, start
        self._held_out, self._pool = images.held_out, Pool(images, device)
        self._scheduler = make_scheduler(OWN_SCHEDULE)
        self._weights = min_snr(self._scheduler.alphas_cumprod).to(device)

    def identity(self) -> dict[str, Any]:
        """See `Task`."""
        return {"spec": self._spec.to_json(), "schedule": dict(OWN_SCHEDULE)}

    def network(self) -> nn.Module:
        """See `Task`."""
        model = self._make(self._spec)
        if self._start is not None:
            model.load_state_dict(self._start.state_dict())
        return model.train()

    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        """The squared error of the noise that the network tells, at random steps of the process."""
        recipe, device = self.recipe, self._pool.device
        images = self._pool.draw((recipe.batch,), recipe.flip, recipe.crop).images / 127.5 - 1
        early = torch.rand(recipe.batch, device=device) < recipe.early_share
        last = torch.where(early, recipe.early_steps, self._scheduler.config.num_train_timesteps)
        steps = (torch.rand(recipe.batch, device=device) * last).long()
        images, steps, noise = self.share(images, steps, torch.randn_like(images))
        noisy = self._scheduler.add_noise(images, noise, steps).contiguous(memory_format=torch.channels_last)
        errors = (model(noisy, steps).sample.float() - noise).square().mean((1, 2, 3))
        if recipe.weighting == "none":
            return {"mse": errors.mean(), "total": errors.mean()}
        return {"mse": errors.mean(), "total": (self._weights[steps] * errors).mean()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """PSNR in dB of the image that the network tells from a noisy one, at each of VALIDATION_STEPS."""
        found = denoising_psnr(model, self._held_out[: self.validated], self.device)
        return {f"denoised_psnr_t{step}_db": value for step, value in found.items()}

    @property
    def validated(self) -> int:
        """See `Task`."""
        _, height, width = self._spec.image_shape
        return min(_VALIDATION_IMAGES, len(self._held_out), max(8, _VALIDATION_PIXELS // (height * width)))

    def compile(self, model: nn.Module) -> None:
        """See `Task`."""
        model.compile(dynamic=False)


def min_snr(kept: Tensor, most: float = 5.0) -> Tensor:
    """Weights of the noise's squared error by step, min(SNR, `most`) / SNR (Hang et al. 2023, section 3.4).

    Args:
        kept: share of the image's power that is left at each step, [T].
        most: the SNR above which a step counts less.

    Example:
        >>> min_snr(torch.tensor([10 / 11, 0.5])).round(decimals=3).tolist()
        [0.5, 1.0]
    """
    snr = kept / (1 - kept)
    return snr.clamp_max(most) / snr


@torch.no_grad()
def denoising_psnr(
    model: nn.Module,
    images: NDArray[np.uint8],
    device: str,
    steps: Sequence[int] = VALIDATION_STEPS,
) -> dict[int, float]:
    """Mean PSNR in dB of the image predicted from a noisy one, on fixed noise, in float32."""
    scheduler = make_scheduler(OWN_SCHEDULE)
    noise = torch.from_numpy(
        np.random.Generator(np.random.Philox(_VALIDATION_SEED)).standard_normal(images.shape, dtype=np.float32)
    )
    clean = torch.tensor(images).float() / 127.5 - 1
    found: dict[int, float] = {}
    for step in steps:
        values = []
        for part in torch.arange(len(clean)).split(max(1, 64 * 32 * 32 // (images.shape[2] * images.shape[3]))):
            sent, drawn = clean[part].to(device), noise[part].to(device)
            when = torch.full((len(part),), step, device=device)
            noisy = scheduler.add_noise(sent, drawn, when)
            told = model(noisy.contiguous(memory_format=torch.channels_last), when).sample.float()
            a = float(scheduler.alphas_cumprod[step])
            shown = ((noisy - (1 - a) ** 0.5 * told) / a**0.5).clamp(-1, 1)
            values.append(psnr_from_mse(mse((sent + 1) / 2, (shown + 1) / 2)))
        found[step] = float(torch.cat(values).mean())
    return found
