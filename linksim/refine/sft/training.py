"""Training of semantic fine-tuning, in the two parts of the GSC paper (section III-C)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from linksim.metrics import mse, psnr_from_mse
from linksim.models.batch import VALIDATION_SNRS_DB
from linksim.refine.sft.network import Diffusion, SftNetwork
from linksim.refine.sft.recipe import SftRecipe
from linksim.refine.training import RefinerTask

_DRAWS_SEED = 2**40


class SftTask(RefinerTask):
    """N1 and N2 for the mean absolute error; then N1', the denoiser and N2 for the same and for N1's Z.

    A network without a diffusion is trained for the images' error alone.
    """

    recipe: SftRecipe
    collapse: ClassVar[float] = 20.0

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._part = "images"
        self._diffusion = Diffusion(self.recipe.betas, self.recipe.predict)

    def begin(self, model: nn.Module, step: int, steps: int) -> None:
        """See `Task`."""
        assert isinstance(model, SftNetwork)
        taught = round(self.recipe.taught_share * steps)
        alone = taught + round(self.recipe.latent_share * (steps - taught))
        if not model.prior:
            return
        if step == taught:
            model.hand_over()
        self._part = "taught" if step < taught else "latent" if step < alone else "all"

    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        """See `Task`: "mae" of the images, "latent" of Z."""
        assert isinstance(model, SftNetwork)
        sent, shown = self.pairs()
        if self._part in ("images", "taught"):
            z = model.teacher(shown, sent) if model.prior else model.latent(shown, shown, self._diffusion)
            error = (model.restorer(shown, z) - sent).abs().mean()
            return {"mae": error, "latent": torch.zeros_like(error), "total": error}
        with torch.no_grad():
            wanted = model.teacher(shown, sent)
            begin = self._diffusion.noisy(wanted, torch.randn_like(wanted))
        z = self._diffusion.back(model.denoiser, model.encoder(shown), begin)
        latent = (z - wanted).abs().mean()
        if self._part == "latent":
            return {"mae": torch.zeros_like(latent), "latent": latent, "total": latent}
        error = (model.restorer(shown, z) - sent).abs().mean()
        return {"mae": error, "latent": latent, "total": error + latent}

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """At each of VALIDATION_SNRS_DB the mean PSNR in dB of refined images; and what Z is worth.

        `z_spread`: how far Z of one image lies from the mean Z, in units of Z. `own_z_db`: what the images' own Z gives
        over the mean Z for all. A Z that has collapsed has neither.
        """
        assert isinstance(model, SftNetwork)
        found: dict[str, float] = {}
        spreads, gains = [], []
        for snr_db in VALIDATION_SNRS_DB:
            draws = torch.Generator().manual_seed(_DRAWS_SEED)
            sent, shown = (torch.cat(part) for part in zip(*self.validation_pairs(snr_db), strict=True))
            noise = torch.randn(len(shown), model.latent_size, generator=draws).to(shown)
            z = torch.cat([model.latent(*part, self._diffusion) for part in zip(shown.split(64), noise.split(64),
                                                                                  strict=True)])  # fmt: skip
            own = _psnr(model, sent, shown, z)
            found[f"psnr_{snr_db:g}db"] = float(own.mean())
            gains.append(float((own - _psnr(model, sent, shown, z.mean(0, keepdim=True).expand_as(z))).mean()))
            spreads.append(float((z - z.mean(0)).square().mean().sqrt() / z.square().mean().sqrt().clamp_min(1e-9)))
        return {**found, "z_spread": sum(spreads) / len(spreads), "own_z_db": sum(gains) / len(gains)}

    def score(self, found: Mapping[str, float]) -> float:
        """Mean PSNR."""
        values = [value for name, value in found.items() if name.startswith("psnr")]
        return sum(values) / len(values)


def _psnr(model: SftNetwork, sent: Tensor, shown: Tensor, z: Tensor) -> Tensor:
    refined = [model.restorer(*part).clamp(0, 1) for part in zip(shown.split(64), z.split(64), strict=True)]
    return psnr_from_mse(mse(sent, torch.cat(refined)))


def restored(network: SftNetwork, diffusion: Diffusion) -> nn.Module:
    """All of it as a function of images alone, Z_T being zero."""

    class Whole(nn.Module):
        """Images [B, 3, H, W] to images."""

        def forward(self, shown: Tensor) -> Tensor:
            noise = torch.zeros(len(shown), network.latent_size).to(shown)
            found: Tensor = network.restorer(shown, network.latent(shown, noise, diffusion))
            return found

    return Whole()
