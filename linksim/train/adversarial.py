"""Training of SemNOMA-CGAN: the first stage frozen, generator and discriminator side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from linksim.metrics import LpipsAlex, LpipsVgg, mse, psnr_from_mse
from linksim.nets.cgan import Generator, Pair
from linksim.nets.network import Network
from linksim.nets.precision import laid_out
from linksim.train.recipe import CganRecipe
from linksim.train.task import Task, split
from linksim.train.transceivers import VALIDATION_SNRS_DB, draw_batch, shown_by, validation_pass

if TYPE_CHECKING:
    from linksim.refine.specs import CganSpec

_VALIDATION_GROUPS = 128


class CganTask(Task):
    """A generator behind a frozen first stage, from scratch or from another generator.

    One optimiser serves both networks: each loss reaches the parameters of its own network alone.

    Args:
        spec: the model.
        recipe: how.
        images: the training split, uint8 [T, C, H, W].
        first: the first stage's network.
        seed, device: see `Task`.
        start: a generator to start from.

    Raises:
        LinksimError: the weights of LPIPS are not there.
    """

    recipe: CganRecipe
    collapse: ClassVar[float] = 0.2

    def __init__(
        self,
        spec: CganSpec,
        recipe: CganRecipe,
        images: NDArray[np.uint8],
        first: Network,
        seed: int = 0,
        device: str = "cpu",
        start: nn.Module | None = None,
    ) -> None:
        super().__init__(recipe, seed, device)
        self._spec, self._start = spec, start
        self._lpips = {"vgg": LpipsVgg, "alex": LpipsAlex}[recipe.lpips](device)
        self._first = laid_out(first, device)
        pool, self._held_out = split(images)
        self._pool = torch.from_numpy(np.ascontiguousarray(pool)).to(device)

    def identity(self) -> dict[str, Any]:
        """See `Task`."""
        return {"spec": self._spec.to_json()}

    def network(self) -> Pair:
        """See `Task`."""
        pair = Pair(self._spec.width)
        if self._start is not None:
            pair.generator.load_state_dict(self._start.state_dict())
        return pair

    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        """MAE, LPIPS and the adversarial loss of the generator, weighted, and the discriminator's own loss."""
        assert isinstance(model, Pair)
        batch = draw_batch(self._spec.first, self.recipe, self._pool)
        real = batch.images.flatten(0, 1)
        shown = shown_by(self._spec.first, self._first, batch)
        refined = model.generator(shown)
        model.discriminator.requires_grad_(False)
        fooled = _logistic(model.discriminator(shown, refined), True)
        model.discriminator.requires_grad_(True)
        told = _logistic(model.discriminator(shown, real), True) + _logistic(
            model.discriminator(shown, refined.detach()), False
        )
        mae = (refined - real).abs().mean()
        lpips = self._lpips.loss(real, refined).mean()
        own = sum(weight * loss for weight, loss in zip(self.recipe.weights, (mae, lpips, fooled), strict=True))
        return {"mae": mae, "lpips": lpips, "adversarial": fooled, "discriminator": told, "total": own + told / 2}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Mean LPIPS and PSNR of the refined images at each of VALIDATION_SNRS_DB."""
        assert isinstance(model, Pair)
        found: dict[str, float] = {}
        images = self._held_out[: _VALIDATION_GROUPS * self._spec.first.users]
        for snr_db in VALIDATION_SNRS_DB:
            distances, values = [], []
            for sent, shown in validation_pass(self._spec.first, self._first, images, self.device, snr_db):
                with torch.no_grad():
                    refined = model.generator(shown).clamp(0, 1)
                distances.append(self._lpips(sent, refined))
                values.append(psnr_from_mse(mse(sent, refined)))
            found[f"{self._lpips.column}_{snr_db:g}db"] = float(torch.cat(distances).mean())
            found[f"psnr_{snr_db:g}db"] = float(torch.cat(values).mean())
        return found

    @property
    def validated(self) -> int:
        """See `Task`."""
        return _VALIDATION_GROUPS * self._spec.first.users

    def clipped(self, model: nn.Module) -> list[list[nn.Parameter]]:
        """The two networks apart."""
        assert isinstance(model, Pair)
        return [list(model.generator.parameters()), list(model.discriminator.parameters())]

    def score(self, found: Mapping[str, float]) -> float:
        """Mean LPIPS, negative."""
        return -float(np.mean([value for name, value in found.items() if name.startswith("lpips")]))

    def shipped(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The generator."""
        own = "generator."
        return {name.removeprefix(own): value for name, value in state.items() if name.startswith(own)}


def _logistic(logits: Tensor, real: bool) -> Tensor:
    wanted = torch.full_like(logits, float(real), dtype=torch.float32)
    return nn.functional.binary_cross_entropy_with_logits(logits.float(), wanted)


def golden_psnr(spec: CganSpec, generator: nn.Module, first: Network, images: NDArray[np.uint8]) -> float:
    """Mean PSNR in dB of refined images at 10 dB, in float32."""
    assert isinstance(generator, Generator)
    values = []
    for sent, shown in validation_pass(spec.first, first, images, "cpu", 10.0):
        with torch.no_grad():
            values.append(psnr_from_mse(mse(sent, generator(shown).clamp(0, 1))))
    return float(torch.cat(values).mean())
