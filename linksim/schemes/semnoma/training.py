"""Training of the ConvNeXt transceivers: under a teacher, from the embedding (KDD paper, section IV)."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from io import BytesIO
from typing import Any

import torch
from torch import Tensor, nn

from linksim.cache import keep_entry, read_entry
from linksim.devices import trains_in_bfloat16
from linksim.models.batch import Batch, Transmission
from linksim.models.fidelity import fidelity
from linksim.nets.network import Network
from linksim.paths import cache_dir
from linksim.schemes.semnoma.embedding import train_embedding
from linksim.schemes.semnoma.losses import feature_affinity_loss
from linksim.schemes.semnoma.network import Transceiver
from linksim.schemes.semnoma.recipe import TEACHING, Recipe, stages
from linksim.schemes.training import TransceiverTask
from linksim.source import source_digest
from linksim.version import DIRTY, code_version


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
        """See `Task`; the embedding, where it starts so.

        All that start alike share it: KD-SemNOMA, its ablations and SemNOMA. So it is kept in the cache folder, but
        not where linksim's own code was edited.
        """
        if not self.embedded:
            return 0
        assert isinstance(model, Transceiver)
        assert isinstance(self.start, Transceiver)
        key = self._embedding_key(model, self.start)
        kept = cache_dir() / "embeddings" / key if key else None
        if kept is not None and (known := read_entry(kept)) is not None:
            model.load_state_dict(torch.load(BytesIO(known), map_location=self.device, weights_only=True))
            return self.recipe.embed_steps * self.recipe.batch
        taken = train_embedding(model, self.start, self.transmission, self.recipe, self.pool, self.seed, report)
        if kept is not None:
            made = BytesIO()
            torch.save(model.state_dict(), made)
            keep_entry(kept, made.getvalue())
        return taken

    def _embedding_key(self, model: Transceiver, source: Transceiver) -> str:
        """Of all that an embedding depends on, what teaches afterwards apart; empty where the code is not known."""
        version, spec, recipe = code_version(), self.spec, self.recipe
        if "+" not in version or version.endswith(DIRTY):
            return ""
        facts = [version, torch.__version__, torch.device(self.device).type, trains_in_bfloat16(self.device)]
        facts += [source_digest(kind) for kind in (type(self), type(model), type(source))]
        facts += [spec.channel, str(spec.rho), spec.users, spec.csi, spec.power, spec.image_shape]
        facts += [recipe.embed_steps, recipe.batch, recipe.snr_db, recipe.flip, recipe.crop, recipe.dropout]
        found = sha256(repr([*facts, self.images_sha256, self.seed]).encode())
        for network in (model, source):
            for name, value in network.state_dict().items():
                found.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

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
        scalars: the images' error by its name; "fa" (eqs. 13, 14) and "crosskd" (eq. 15), as far as they are trained
        for; "total", which is minimised (eq. 17).
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
