"""Training of the latent-diffusion restorer for 32x32, part by part: autoencoder, denoiser, IRControlNet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from linksim.data import load_dataset
from linksim.metrics import mse, psnr_from_mse
from linksim.models.pool import Pool
from linksim.models.spec import RefinerSpec
from linksim.models.task import Task
from linksim.nets.network import Network
from linksim.nets.precision import laid_out
from linksim.refine.diffbir.network import LATENT_SCHEDULE, MiniDenoiser, MiniVae, denoise
from linksim.refine.diffbir.recipe import LatentRecipe
from linksim.refine.diffusion import make_scheduler
from linksim.schemes.learned import learned

if TYPE_CHECKING:
    from linksim.data.training import TrainingSet
    from linksim.refine.diffbir.mini import DiffBirMini

_VALIDATION_IMAGES = 512
_VALIDATION_SEED = 2**40
_VALIDATION_TIMES = (50, 200, 400, 700)
_CALIBRATION_IMAGES = 256


class _LatentTask(Task):
    """What the three parts share.

    Args:
        owner: the refiner.
        spec: the model.
        recipe: how.
        images: the data set.
        seed, device: see `Task`.
        start: weights to start from.
        frozen: the parts that this one works with: "vae", "denoiser", "first".
    """

    recipe: LatentRecipe

    def __init__(
        self,
        owner: type[DiffBirMini],
        spec: RefinerSpec,
        recipe: LatentRecipe,
        images: TrainingSet,
        seed: int,
        device: str,
        start: nn.Module | None,
        frozen: Mapping[str, nn.Module],
    ) -> None:
        super().__init__(recipe, seed, device)
        self._owner, self._spec, self._start = owner, spec, start
        self._held_out, self._pool = images.held_out, Pool(images, device)
        self._scheduler = make_scheduler(LATENT_SCHEDULE)
        self._parts = {name: laid_out(part, device) for name, part in frozen.items()}
        if spec.first is not None:
            first = self._parts["first"]
            assert isinstance(first, Network)
            self._first = first
            whole = learned(spec.first.method).transmission(spec.first)
            self._transmission, self._validation = whole.cut(recipe.crop), whole.whole(recipe.crop)

    @property
    def _vae(self) -> MiniVae:
        vae = self._parts["vae"]
        assert isinstance(vae, MiniVae)
        return vae

    @property
    def _denoiser(self) -> MiniDenoiser:
        denoiser = self._parts["denoiser"]
        assert isinstance(denoiser, MiniDenoiser)
        return denoiser

    def identity(self) -> dict[str, Any]:
        """See `Task`."""
        return {"spec": self._spec.to_json(), "schedule": dict(LATENT_SCHEDULE)}

    def network(self) -> nn.Module:
        """See `Task`."""
        model = self._owner.network(self._spec)
        if self._start is not None:
            model.load_state_dict(self._start.state_dict())
        return model

    @property
    def validated(self) -> int:
        """See `Task`."""
        return min(_VALIDATION_IMAGES, len(self._held_out))

    def _batch(self) -> Tensor:
        (images,) = self.share(self._pool.draw((self.recipe.batch,), self.recipe.flip, self.recipe.crop).images / 255)
        return images.contiguous(memory_format=torch.channels_last)

    def _noisy(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        times = torch.randint(0, self._scheduler.config.num_train_timesteps, (len(latents),), device=latents.device)
        noise = torch.randn_like(latents)
        return self._scheduler.add_noise(latents, noise, times), times, noise

    def _noise_error(self, told: Mapping[int, list[Tensor]]) -> dict[str, float]:
        """Signal-to-noise ratio in dB of the noise that is told, at each time; higher is better."""
        return {f"noise_snr_t{t}_db": -10 * float(torch.cat(rows).mean().log10()) for t, rows in told.items()}

    def _held_out_noise(self, shape: torch.Size, index: int) -> Tensor:
        drawn = np.random.Generator(np.random.Philox(_VALIDATION_SEED + index)).standard_normal(shape, np.float32)
        return torch.from_numpy(drawn).to(self.device)


class VaeTask(_LatentTask):
    """The autoencoder: absolute error and a little divergence; its latents are scaled to unit variance at the end."""

    collapse: ClassVar[float] = 5.0

    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        """See `Task`."""
        assert isinstance(model, MiniVae)
        images = self._batch()
        found = model.vae.encode(2 * images - 1).latent_dist
        shown = (model.vae.decode(found.sample()).sample.float() + 1) / 2
        error, divergence = (shown - images).abs().mean(), found.kl().mean() / found.mean[0].numel()
        return {"mae": error, "kl": divergence, "total": error + self.recipe.kl_weight * divergence}

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """PSNR in dB of what the autoencoder gives back."""
        assert isinstance(model, MiniVae)
        images = torch.from_numpy(self._held_out[:_VALIDATION_IMAGES]).to(self.device).float() / 255
        model.scale.fill_(1.0)
        model.scale.fill_(1 / model.encode(images[:_CALIBRATION_IMAGES]).std())
        values = [psnr_from_mse(mse(part, model.decode(model.encode(part)).clamp(0, 1))) for part in images.split(64)]
        return {"psnr_db": float(torch.cat(values).mean())}


class DenoiserTask(_LatentTask):
    """The denoiser of the autoencoder's latents."""

    collapse: ClassVar[float] = 5.0

    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        """See `Task`."""
        assert isinstance(model, MiniDenoiser)
        images = self._batch()
        with torch.no_grad():
            latents = self._vae.encode(images)
        noisy, times, noise = self._noisy(latents)
        told = denoise(model.unet, None, noisy, times, model.prompt.expand(len(noisy), -1, -1))
        error = (told - noise).square().mean()
        return {"mse": error, "total": error}

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """See `_noise_error`."""
        assert isinstance(model, MiniDenoiser)
        images = torch.from_numpy(self._held_out[:_VALIDATION_IMAGES]).to(self.device).float() / 255
        found: dict[int, list[Tensor]] = {t: [] for t in _VALIDATION_TIMES}
        for index, part in enumerate(images.split(64)):
            latents = self._vae.encode(part)
            noise = self._held_out_noise(latents.shape, index)
            for t, rows in found.items():
                times = torch.full((len(part),), t, device=self.device)
                noisy = self._scheduler.add_noise(latents, noise, times)
                told = denoise(model.unet, None, noisy, times, model.prompt.expand(len(noisy), -1, -1))
                rows.append((told - noise).square().flatten(1).mean(1))
        return self._noise_error(found)


class ControlTask(_LatentTask):
    """IRControlNet: the denoiser frozen, the first stage's images as hints."""

    collapse: ClassVar[float] = 5.0

    def network(self) -> nn.Module:
        """IRControlNet begins as a copy of the denoiser's encoder; what it hears of the hint begins with zeros."""
        model = super().network()
        if self._start is None:
            there = self._denoiser.unet.state_dict()
            own = model.state_dict()
            own |= {name: value for name, value in there.items() if name in own and name != "conv_in.weight"}
            wide = torch.zeros_like(own["conv_in.weight"])
            wide[:, : there["conv_in.weight"].shape[1]] = there["conv_in.weight"]
            model.load_state_dict({**own, "conv_in.weight": wide})
        return model

    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        """See `Task`."""
        vae, denoiser = self._vae, self._denoiser
        batch = self._transmission.draw(self.recipe, self._pool).part(self.share)
        with torch.no_grad():
            hint = vae.encode(self._transmission.shown(self._first, batch))
            latents = vae.encode(batch.images.flatten(0, 1))
        noisy, times, noise = self._noisy(latents)
        prompt = denoiser.prompt.expand(len(noisy), -1, -1)
        error = (denoise(denoiser.unet, model, noisy, times, prompt, hint) - noise).square().mean()
        return {"mse": error, "total": error}

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """See `_noise_error`; at 10 dB."""
        found: dict[int, list[Tensor]] = {t: [] for t in _VALIDATION_TIMES}
        vae, denoiser = self._vae, self._denoiser
        for index, (sent, shown) in enumerate(self._pairs()):
            latents, hint = vae.encode(sent), vae.encode(shown)
            noise = self._held_out_noise(latents.shape, index)
            prompt = denoiser.prompt.expand(len(latents), -1, -1)
            for t, rows in found.items():
                times = torch.full((len(sent),), t, device=self.device)
                noisy = self._scheduler.add_noise(latents, noise, times)
                told = denoise(denoiser.unet, model, noisy, times, prompt, hint)
                rows.append((told - noise).square().flatten(1).mean(1))
        return self._noise_error(found)

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        images = self._held_out[:_VALIDATION_IMAGES]
        return self._validation.held_out(self._first, images, self.device, 10.0)


@torch.no_grad()
def golden_psnr(spec: RefinerSpec, model: nn.Module, parts: Mapping[str, nn.Module]) -> float:
    """See `DiffBirMini.golden_psnr`."""
    images = torch.tensor(load_dataset("cifar10-mini").images[:64]).float() / 255
    if isinstance(model, MiniVae):
        return float(psnr_from_mse(mse(images, model.decode(model.encode(images)).clamp(0, 1))).mean())
    vae, denoiser, control = parts["vae"], parts.get("denoiser", model), None
    assert isinstance(vae, MiniVae)
    assert isinstance(denoiser, MiniDenoiser)
    if spec.first is not None:
        control = model
    latents, times = vae.encode(images), torch.full((len(images),), 100)
    noise = torch.from_numpy(
        np.random.Generator(np.random.Philox(_VALIDATION_SEED)).standard_normal(latents.shape, np.float32)
    )
    scheduler = make_scheduler(LATENT_SCHEDULE)
    noisy = scheduler.add_noise(latents, noise, times)
    told = denoise(denoiser.unet, control, noisy, times, denoiser.prompt.expand(len(noisy), -1, -1), latents)
    a = float(scheduler.alphas_cumprod[100])
    shown = (noisy - (1 - a) ** 0.5 * told) / a**0.5
    return float(psnr_from_mse(mse(images, vae.decode(shown).clamp(0, 1))).mean())
