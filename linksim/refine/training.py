"""Training of a refiner on what a frozen first stage shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from linksim.metrics import mse, psnr_from_mse
from linksim.models.batch import VALIDATION_SNRS_DB, Transmission
from linksim.models.pool import Pool
from linksim.models.recipe import LinkRecipe
from linksim.models.spec import RefinerSpec
from linksim.models.task import Task
from linksim.nets.network import Network
from linksim.nets.precision import laid_out
from linksim.schemes.learned import learned

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from linksim.data.training import TrainingSet
    from linksim.refine.learned import LearnedRefiner

_VALIDATION_GROUPS = 128


class RefinerTask(Task):
    """A refiner behind a frozen first stage, from scratch or from another one's weights.

    By default it is trained for the mean absolute error; for something else, derive from this (`losses`).

    Args:
        owner: the refiner.
        spec: the model.
        recipe: how.
        images: the data set.
        seed, device: see `Task`.
        start: a network to start from.
        frozen: the networks of `LearnedRefiner.parts`: "first", the first stage's.
    """

    recipe: LinkRecipe
    collapse: ClassVar[float] = 5.0

    def __init__(
        self,
        owner: type[LearnedRefiner],
        spec: RefinerSpec,
        recipe: LinkRecipe,
        images: TrainingSet,
        seed: int = 0,
        device: str = "cpu",
        start: nn.Module | None = None,
        frozen: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__(recipe, seed, device)
        assert spec.first is not None
        first = (frozen or {})["first"]
        assert isinstance(first, Network)
        self.owner, self.spec, self.start = owner, spec, start
        whole = learned(spec.first.method).transmission(spec.first)
        self.transmission, self.validation = whole.cut(recipe.crop), whole.whole(recipe.crop)
        self.first = laid_out(first, device)
        self.held_out, self.pool = images.held_out, Pool(images, device)

    def identity(self) -> dict[str, Any]:
        """See `Task`."""
        return {"spec": self.spec.to_json()}

    def network(self) -> nn.Module:
        """See `Task`."""
        network = self.owner.network(self.spec)
        if self.start is not None:
            network.load_state_dict(self.start.state_dict())
        return network

    def pairs(self) -> tuple[Tensor, Tensor]:
        """What was sent in a step and what the first stage shows of it, float32 [B * N, C, H, W] in [0, 1]."""
        batch = self.transmission.draw(self.recipe, self.pool).part(self.share)
        return batch.images.flatten(0, 1), self.transmission.shown(self.first, batch)

    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        """See `Task`."""
        sent, shown = self.pairs()
        error = (model(shown) - sent).abs().mean()
        return {"mae": error, "total": error}

    def validation_pairs(self, snr_db: float) -> Iterator[tuple[Tensor, Tensor]]:
        """What was sent and what the first stage shows, on fixed groups, fading and noise."""
        return self.validation.held_out(self.first, self.held_out[: self.validated], self.device, snr_db)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Mean PSNR in dB of the refined images at each of VALIDATION_SNRS_DB."""
        images = self.held_out[: self.validated]
        return {
            f"psnr_{snr_db:g}db": refined_psnr(self.validation, self.first, model, images, self.device, snr_db)
            for snr_db in VALIDATION_SNRS_DB
        }

    @property
    def validated(self) -> int:
        """See `Task`."""
        groups = min(_VALIDATION_GROUPS, self.validation.groups(len(self.held_out)))
        return groups * self.validation.spec.users


def refined_psnr(
    transmission: Transmission,
    first: Network,
    network: nn.Module,
    images: NDArray[np.uint8],
    device: str,
    snr_db: float,
) -> float:
    """Mean PSNR in dB of refined images, in float32, on fixed groups, fading and noise.

    Args:
        transmission: of the first stage.
        first: its network.
        network: the refiner's.
        images: uint8 [T, C, H, W].
        device: torch device.
        snr_db: gamma.
    """
    values = []
    for sent, shown in transmission.held_out(first, images, device, snr_db):
        with torch.no_grad():
            values.append(psnr_from_mse(mse(sent, network(shown).clamp(0, 1))))
    return float(torch.cat(values).mean())


def logistic(logits: Tensor, real: bool) -> Tensor:
    """The loss of a discriminator whose logits [...] are high for real images: mean, float32."""
    wanted = torch.full_like(logits, float(real), dtype=torch.float32)
    return nn.functional.binary_cross_entropy_with_logits(logits.float(), wanted)
