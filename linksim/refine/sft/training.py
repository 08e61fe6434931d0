"""Training of semantic fine-tuning, in the two parts of the GSC paper (section III-C)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from linksim.metrics import mse, psnr_from_mse
from linksim.models.batch import VALIDATION_SNRS_DB
from linksim.models.fidelity import fidelity
from linksim.nets.network import Network
from linksim.refine.sft.network import Diffusion, SftNetwork
from linksim.refine.sft.recipe import SftRecipe
from linksim.refine.training import RefinerTask

_DRAWS_SEED = 2**40


class SftTask(RefinerTask):
    """N1 and N2 for the images' error; then N1', the denoiser and N2 for the same and for N1's Z.

    A network without a diffusion is trained for the images' error alone.
    """

    recipe: SftRecipe
    collapse: ClassVar[float] = 20.0

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._part = "images"
        self._diffusion = Diffusion(self.recipe.betas, self.recipe.predict)

    def network(self) -> nn.Module:
        """See `Task`; of a joint training the transceiver begins as it is, and what is behind it as its start."""
        network = self.owner.network(self.spec)
        assert isinstance(network, SftNetwork)
        if network.first is not None:
            network.first.load_state_dict(self.first.state_dict())
            network.first.requires_grad_(True)
        if self.start is not None:
            network.load_state_dict({**network.state_dict(), **self.start.state_dict()})
        return network

    def begin(self, model: nn.Module, step: int, steps: int) -> None:
        """See `Task`."""
        assert isinstance(model, SftNetwork)
        taught = round(self.recipe.taught_share * steps)
        alone = taught + round(self.recipe.latent_share * (steps - taught))
        if not model.prior:
            return
        if self.start is not None:
            # What goes on from another's weights has nothing to be taught.
            self._part = "all"
            return
        if step == taught:
            model.hand_over()
        self._part = "taught" if step < taught else "latent" if step < alone else "all"

    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        """See `Task`: the images' error by its name, "latent" of Z; of a joint training "first", the transceiver's."""
        assert isinstance(model, SftNetwork)
        sent, shown = self.pairs() if model.first is None else self._pairs_of(model.first)
        found = self._refined(model, sent, shown.clamp(0, 1))
        if model.first is not None:
            found["first"] = fidelity(self.recipe.loss, shown, sent)
            found["total"] = found["total"] + found["first"]
        return found

    def _pairs_of(self, first: nn.Module) -> tuple[Tensor, Tensor]:
        """See `pairs`; gradients reach the transceiver."""
        assert isinstance(first, Network)
        batch = self.transmission.draw(self.recipe, self.pool).part(self.share)
        return batch.images.flatten(0, 1), self.transmission.images(first, batch).float().flatten(0, 1)

    def _refined(self, model: SftNetwork, sent: Tensor, shown: Tensor) -> dict[str, Tensor]:
        if self._part in ("images", "taught"):
            z = model.teacher(shown, sent) if model.prior else model.latent(shown, shown, self._diffusion)
            error = fidelity(self.recipe.loss, model.restorer(shown, z), sent)
            return {self.recipe.loss: error, "latent": torch.zeros_like(error), "total": error}
        with torch.no_grad():
            wanted = model.teacher(shown, sent)
            begin = self._diffusion.noisy(wanted, torch.randn_like(wanted))
        z = self._diffusion.back(model.denoiser, model.encoder(shown), begin)
        latent = (z - wanted).abs().mean()
        if self._part == "latent":
            return {self.recipe.loss: torch.zeros_like(latent), "latent": latent, "total": latent}
        error = fidelity(self.recipe.loss, model.restorer(shown, z), sent)
        return {self.recipe.loss: error, "latent": latent, "total": error + latent}

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """At each of VALIDATION_SNRS_DB the mean PSNR in dB of refined images; and what Z is worth.

        `z_spread`: how far Z of one image lies from the mean Z, in units of Z. `own_z_db`: what the images' own Z gives
        over the mean Z for all. `taught_z_db`: the same for N1's Z, which knows the original: what there is to be told.
        A Z that has collapsed has none of them.
        """
        assert isinstance(model, SftNetwork)
        found: dict[str, float] = {}
        spreads, gains, taught = [], [], []
        for snr_db in VALIDATION_SNRS_DB:
            draws = torch.Generator().manual_seed(_DRAWS_SEED)
            first = self.first if model.first is None else model.first
            assert isinstance(first, Network)
            pairs = self.validation.held_out(first, self.held_out[: self.validated], self.device, snr_db)
            sent, shown = (torch.cat(part) for part in zip(*pairs, strict=True))
            noise = torch.randn(len(shown), model.latent_size, generator=draws).to(shown)
            z = torch.cat([model.latent(*part, self._diffusion) for part in zip(shown.split(64), noise.split(64),
                                                                                  strict=True)])  # fmt: skip
            own = _psnr(model, sent, shown, z)
            found[f"psnr_{snr_db:g}db"] = float(own.mean())
            gains.append(float((own - _psnr(model, sent, shown, _mean(z))).mean()))
            spreads.append(float((z - z.mean(0)).square().mean().sqrt() / z.square().mean().sqrt().clamp_min(1e-9)))
            if model.prior:
                z = torch.cat([model.teacher(*part) for part in zip(shown.split(64), sent.split(64), strict=True)])
                taught.append(float((_psnr(model, sent, shown, z) - _psnr(model, sent, shown, _mean(z))).mean()))
        values = {"z_spread": spreads, "own_z_db": gains, "taught_z_db": taught}
        return found | {name: sum(each) / len(each) for name, each in values.items() if each}

    def score(self, found: Mapping[str, float]) -> float:
        """Mean PSNR."""
        values = [value for name, value in found.items() if name.startswith("psnr")]
        return sum(values) / len(values)


def _mean(z: Tensor) -> Tensor:
    """The mean Z in place of each image's own."""
    return z.mean(0, keepdim=True).expand_as(z)


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
