"""Training of a diffusion prior: it learns to tell the noise in a noisy image (Ho et al. 2020)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from linksim import assets
from linksim.metrics import Fid, Kid, mse, psnr_from_mse
from linksim.models.pool import Pool
from linksim.models.spec import CIFAR10_SHAPE, PriorSpec
from linksim.models.task import Task
from linksim.nets.precision import laid_out
from linksim.refine.ddim.recipe import PriorRecipe
from linksim.refine.diffusion import OWN_SCHEDULE, Prior, make_scheduler, sample, step_count

if TYPE_CHECKING:
    from linksim.data.training import TrainingSet

#: Steps at which a prior's denoising is measured: those that a refinement goes through.
VALIDATION_STEPS = (50, 100, 200)
_VALIDATION_IMAGES, _VALIDATION_PIXELS = 128, 2**21
#: A card's FID: DDIM steps, images at the most, and how many images a training has seen for each of these. An image
#: that is drawn takes as long as some fifteen of training, so that this is a tenth of the time.
DRAWN_STEPS, _DRAWN, _SEEN_FOR_ONE = 50, 2000, 150
#: Images that are drawn at once.
_TOGETHER = 50
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
    def decays(self) -> tuple[float, ...]:
        """See `Task`."""
        return (self.recipe.ema, *(self.recipe.more_ema if self.recipe.ema else ()))

    def measured(self, model: nn.Module, images: int) -> dict[str, Any]:
        """`drawn`: FID and KID of images drawn unconditionally; of a long training, where the asset is installed."""
        if not assets.ASSETS[Fid.asset].installed() or images < _SEEN_FOR_ONE * _DRAWN or len(self._held_out) < _DRAWN:
            return {}
        network = laid_out(copy.deepcopy(model), "cpu")
        found = drawn_quality(Prior(network, OWN_SCHEDULE), self._held_out[:_DRAWN])
        figures = {name: round(value, 4) for name, value in found.items()}
        return {"drawn": {"images": _DRAWN, "ddim_steps": DRAWN_STEPS, **figures}}

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


def drawn(prior: Prior, count: int, steps: int, shape: tuple[int, int, int] = CIFAR10_SHAPE, seed: int = 0) -> Tensor:
    """Images from noise alone, by DDIM without randomness (eta 0).

    Args:
        prior: what draws.
        count: T, images.
        steps: DDIM steps; they divide the original steps.
        shape: (C, H, W).
        seed: of the noise; that of an image does not depend on how many are drawn.

    Returns:
        float32 [T, C, H, W] in [0, 1].

    Raises:
        LinksimError: steps that do not fit.
    """
    total = int(prior.schedule["num_train_timesteps"])
    steps = step_count(total, steps, total)
    parts = []
    for start in range(0, count, _TOGETHER):
        images = range(start, min(count, start + _TOGETHER))
        noise = np.stack([
            np.random.Generator(np.random.Philox(key=[seed, image])).standard_normal(shape, np.float32)
            for image in images
        ])  # fmt: skip
        begin = torch.from_numpy(noise)
        parts.append(sample(prior, torch.full_like(begin, 0.5), partial(torch.clone, begin), total, steps, 0.0, "ddim"))
    return torch.cat(parts)


def drawn_quality(prior: Prior, images: NDArray[np.uint8], steps: int = DRAWN_STEPS) -> dict[str, float]:
    """FID and KID of as many images as are given, drawn unconditionally, against these (asset inception-fid).

    Args:
        prior: what draws.
        images: uint8 [T, C, H, W].
        steps: DDIM steps.

    Raises:
        LinksimError: the asset is missing, or steps that do not fit.
    """
    fid, kid = Fid(), Kid()
    own = fid.features(drawn(prior, len(images), steps, images.shape[1:]))
    real = np.concatenate([fid.features(torch.tensor(part).float() / 255) for part in np.array_split(images, 8)])
    return {"fid": fid.distance(real, own), "kid": kid.distance(real, own)}
