"""Training of SemNOMA-CGAN: the first stage frozen, generator and discriminator side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from linksim.metrics import LPIPS, mse, psnr_from_mse
from linksim.models.batch import VALIDATION_SNRS_DB
from linksim.refine.cgan.network import Discriminator, Generator
from linksim.refine.cgan.recipe import CganRecipe
from linksim.refine.training import RefinerTask, logistic


class Pair(nn.Module):
    """What is trained together."""

    def __init__(self, generator: Generator, width: int) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, Discriminator(width)


class CganTask(RefinerTask):
    """A generator behind a frozen first stage, from scratch or from another generator.

    One optimiser serves both networks: each loss reaches the parameters of its own network alone.

    Args:
        See `RefinerTask`.

    Raises:
        LinksimError: the weights of LPIPS are not there.
    """

    recipe: CganRecipe
    collapse: ClassVar[float] = 0.2

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lpips = LPIPS[self.recipe.lpips](self.device)

    def network(self) -> Pair:
        """See `Task`."""
        generator = self.owner.network(self.spec)
        assert isinstance(generator, Generator)
        pair = Pair(generator, generator.width)
        if self.start is not None:
            pair.generator.load_state_dict(self.start.state_dict())
        return pair

    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        """MAE, LPIPS and the adversarial loss of the generator, weighted, and the discriminator's own loss."""
        assert isinstance(model, Pair)
        real, shown = self.pairs()
        refined = model.generator(shown)
        model.discriminator.requires_grad_(False)
        fooled = logistic(model.discriminator(shown, refined), True)
        model.discriminator.requires_grad_(True)
        told = logistic(model.discriminator(shown, real), True) + logistic(
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
        for snr_db in VALIDATION_SNRS_DB:
            distances, values = [], []
            for sent, shown in self.validation_pairs(snr_db):
                with torch.no_grad():
                    refined = model.generator(shown).clamp(0, 1)
                distances.append(self._lpips(sent, refined))
                values.append(psnr_from_mse(mse(sent, refined)))
            found[f"{self._lpips.column}_{snr_db:g}db"] = float(torch.cat(distances).mean())
            found[f"psnr_{snr_db:g}db"] = float(torch.cat(values).mean())
        return found

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
