"""Training of the ConvNeXt transceivers: under a teacher, from the embedding (KDD paper, section IV)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from linksim.models.batch import Batch, Transmission
from linksim.models.fidelity import fidelity
from linksim.nets.network import Network
from linksim.schemes.semnoma.embedding import train_embedding
from linksim.schemes.semnoma.losses import feature_affinity_loss
from linksim.schemes.semnoma.network import Transceiver
from linksim.schemes.semnoma.recipe import TEACHING, Recipe, stages
from linksim.schemes.training import TransceiverTask


class ConvNextTask(TransceiverTask):
    """A ConvNeXt transceiver; under the frozen orthogonal `teacher` where its scheme has one.

    Args:
        See `TransceiverTask`.
    """

    recipe: Recipe

    def fresh(self) -> Network:
        """See `TransceiverTask`; with the recipe's layer scale."""
        return self.owner.network(self.spec, layer_scale=self.recipe.layer_scale)  # type: ignore[call-arg]

    def prepare(self, model: nn.Module, report: Callable[[int, int], None] | None = None) -> int:
        """See `Task`; the embedding, where it starts so."""
        if not self.embedded:
            return 0
        assert isinstance(model, Transceiver)
        assert isinstance(self.start, Transceiver)
        return train_embedding(model, self.start, self.transmission, self.recipe, self.pool, self.seed, report)

    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        """See `Task`."""
        teacher = self.frozen.get("teacher")
        if teacher is None:
            return super().losses(model)
        assert isinstance(model, Transceiver)
        assert isinstance(teacher, Transceiver)
        batch = self.draw()
        return taught_losses(self.transmission, self.recipe, model, teacher, batch)

    def settings(self) -> dict[str, Any]:
        """See `Task`; without a teacher none of what it teaches."""
        found = super().settings()
        if "teacher" not in self.frozen:
            return {key: value for key, value in found.items() if key not in TEACHING}
        return {
            **found,
            "cross_layer": self.recipe.j(self.spec.fades, stages(self.spec.image_shape)),
        }


def taught_losses(
    transmission: Transmission, recipe: Recipe, model: Transceiver, teacher: Transceiver, batch: Batch
) -> dict[str, Tensor]:
    """The losses of a batch under a teacher (KDD paper, section IV).

    The teacher sees the same images and h, with noise of its own, and sends orthogonally at P_avg (eq. 11).

    Returns:
        scalars: "mae", "mse" or "log-mse"; "fa" (eqs. 13, 14) and "crosskd" (eq. 15), as far as they are trained for;
        "total", which is minimised (eq. 17).
    """
    spec, side = transmission.spec, transmission.side(batch)
    j = recipe.j(spec.fades, len(model.shape.widths))
    features = model.received_features(transmission.received(model, batch))
    crossing = model.decode(features, side, 0, j + 1)
    parts: dict[str, Tensor] = {
        recipe.loss: fidelity(recipe.loss, model.decode(crossing, side, j + 1).float(), batch.images)
    }
    with torch.no_grad():
        teacher_symbols = transmission.encoded(teacher, batch, (1.0,) * spec.users)
        heard = batch.teacher_channel.through(teacher_symbols, batch.noise_var, batch.teacher_noise)[:, 0]
        teacher_features = teacher.received_features(heard)
    if recipe.leave_out != "fa":
        parts["fa"] = feature_affinity_loss(features.flatten(0, 1), teacher_features.flatten(0, 1), recipe.fa_norm)
    if recipe.leave_out != "crosskd":
        with torch.no_grad():
            teacher_shown = teacher.decode(teacher_features, side).float()
        parts["crosskd"] = (teacher.decode(crossing, side, j + 1).float() - teacher_shown).abs().mean()
    weights = dict(zip((recipe.loss, "fa", "crosskd"), recipe.weights, strict=True))
    return {**parts, "total": torch.stack([weights[name] * loss for name, loss in parts.items()]).sum()}
