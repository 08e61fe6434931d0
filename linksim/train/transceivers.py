"""Training of the transceivers: the draws of a step, the losses, the validation (KDD paper, section IV)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from linksim.errors import LinksimError
from linksim.link.draws import FreshDraws, KeyedDraws
from linksim.link.realisation import Realisation, realise
from linksim.link.units import noise_variance
from linksim.metrics import mse, psnr_from_mse
from linksim.nets.layers import Conditioned
from linksim.nets.network import Network, side_information
from linksim.nets.transceiver import Transceiver
from linksim.train.embedding import train_embedding
from linksim.train.losses import feature_affinity_loss
from linksim.train.recipe import TEACHING, LinkRecipe, Recipe
from linksim.train.spec import ModelSpec
from linksim.train.task import VALIDATION, Task, draw_images, split

VALIDATION_SNRS_DB = (0.0, 10.0, 20.0)
_VALIDATION_GROUPS = 256
_VALIDATION_SEED = 2**40

#: Added to an image's MSE in "log-mse": from 50 dB on, an image is as good as it need be.
_LEAST_MSE = 1e-5


class TransceiverTask(Task):
    """A transceiver, from scratch, from a model to start warm from, or under a teacher.

    Args:
        spec: the model.
        recipe: how.
        images: the training split, uint8 [T, C, H, W]; its last VALIDATION images are for validation.
        seed, device: see `Task`.
        start: the network of a model to start warm from.
        embedded: `start` is orthogonal, and the users start as its users in separate channel uses.
        teacher: for a scheme that has one, the frozen orthogonal model.

    Raises:
        LinksimError: no teacher where one is needed.
    """

    recipe: Recipe
    collapse: ClassVar[float] = 5.0

    def __init__(
        self,
        spec: ModelSpec,
        recipe: Recipe,
        images: NDArray[np.uint8],
        seed: int = 0,
        device: str = "cpu",
        start: Network | None = None,
        teacher: Network | None = None,
        embedded: bool = False,
    ) -> None:
        super().__init__(recipe, seed, device)
        if spec.teacher is not None and teacher is None:
            raise LinksimError(f"{spec.method} learns from a teacher: train it first: {spec.teacher.command}")
        if teacher is not None:
            teacher = teacher.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self._spec, self._start, self._teacher, self._embedded = spec, start, teacher, embedded
        pool, self._held_out = split(images)
        self._pool = torch.from_numpy(np.ascontiguousarray(pool)).to(device)

    def identity(self) -> dict[str, Any]:
        """See `Task`."""
        return {"spec": self._spec.to_json()}

    def network(self) -> Network:
        """See `Task`."""
        model = self._spec.build(self.recipe.layer_scale)
        if self._start is not None:
            (model.embed if self._embedded else model.adopt)(self._start)
        if not self.recipe.dropout:
            without_dropout(model)
        return model

    def prepare(self, model: nn.Module) -> int:
        """The embedding, where it starts so."""
        if not self._embedded:
            return 0
        assert isinstance(model, Transceiver)
        assert isinstance(self._start, Transceiver)
        return train_embedding(model, self._start, self._spec, self.recipe, self._pool, self.seed)

    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        """See `Task`."""
        assert isinstance(model, Network)
        batch = draw_batch(self._spec, self.recipe, self._pool)
        return model_losses(self._spec, self.recipe, model, self._teacher, batch)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Mean per-image PSNR in dB at each of VALIDATION_SNRS_DB."""
        assert isinstance(model, Network)
        found = validate(self._spec, model, self._held_out, self.device)
        return {f"psnr_{snr:g}db": value for snr, value in found.items()}

    @property
    def validated(self) -> int:
        """See `Task`."""
        return validation_groups(self._spec) * self._spec.users

    def settings(self) -> dict[str, Any]:
        """See `Task`; without a teacher none of what it teaches."""
        found = super().settings()
        if self._spec.teacher is None:
            return {key: value for key, value in found.items() if key not in TEACHING}
        return {**found, "cross_layer": self.recipe.j(self._spec.fades)}

    def compile(self, model: nn.Module) -> None:
        """See `Task`."""
        compile_networks(model, self._teacher)


def without_dropout(model: nn.Module) -> None:
    """Has a network train without dropout and stochastic depth."""
    for module in model.modules():
        if isinstance(module, nn.Dropout | StochasticDepth):
            module.p = 0.0


def compile_networks(*networks: nn.Module | None, backend: str = "inductor") -> None:
    """Has the rows of layers compiled, which is all of a network but its complex-valued ends."""
    for network in networks:
        for module in network.modules() if network is not None else ():
            if isinstance(module, Conditioned):
                module.compile(dynamic=False, backend=backend)


@dataclass(frozen=True)
class Batch:
    """One step's draws.

    Args:
        images: float32 [B, N, C, H, W] in [0, 1].
        snr_db: gamma, [B].
        channel: of both student and teacher.
        teacher_channel: the same fading, seen by orthogonal users.
        noise: unit noise of the student, complex [B, 1, k] or [B, 1, N, k].
        teacher_noise: of the teacher, complex [B, 1, N, k].
    """

    images: Tensor
    snr_db: Tensor
    channel: Realisation
    teacher_channel: Realisation
    noise: Tensor
    teacher_noise: Tensor

    @property
    def h(self) -> Tensor:
        """Coefficients, complex [B, N]."""
        return self.channel.h[:, 0, :, 0]

    @property
    def noise_var(self) -> Tensor:
        """sigma^2 per complex symbol, [B]."""
        return 10 ** (-self.snr_db / 10)


def draw_batch(spec: ModelSpec, recipe: LinkRecipe, pool: Tensor) -> Batch:
    """The draws of a step, from torch's own generator."""
    images = draw_images(pool, (recipe.batch, spec.users), recipe.flip) / 255
    low, high = recipe.snr_db
    snr_db = low + (high - low) * torch.rand(recipe.batch, device=pool.device)
    channel = realise(spec.link, FreshDraws(recipe.batch, pool.device), spec.symbols, spec.access)
    apart = replace(channel, access="oma")
    return Batch(images, snr_db, channel, apart, channel.noise(spec.symbols), apart.noise(spec.symbols))


def model_losses(
    spec: ModelSpec, recipe: Recipe, model: Network, teacher: Network | None, batch: Batch
) -> dict[str, Tensor]:
    """The losses of a batch (KDD paper, section IV).

    The teacher sees the same images and h, with noise of its own, and sends orthogonally at P_avg (eq. 11).

    Returns:
        scalars: "mae", "mse" or "log-mse"; with a teacher "fa" (eqs. 13, 14) and "crosskd" (eq. 15), as far as they
        are trained for; "total", which is minimised (eq. 17).
    """
    side = side_information(batch.snr_db, batch.h, spec.side_dim)
    symbols = model.encode(batch.images, side, spec.powers)
    received = batch.channel.through(symbols, batch.noise_var, batch.noise)[:, 0]
    if teacher is None:
        fidelity = _fidelity(recipe, model.receive(received, side), batch.images)
        return {recipe.loss: fidelity, "total": fidelity}
    assert isinstance(model, Transceiver)
    assert isinstance(teacher, Transceiver)
    j = recipe.j(spec.fades)
    features = model.received_features(received)
    crossing = model.decode(features, side, 0, j + 1)
    parts: dict[str, Tensor] = {
        recipe.loss: _fidelity(recipe, model.decode(crossing, side, j + 1).float(), batch.images)
    }
    with torch.no_grad():
        teacher_symbols = teacher.encode(batch.images, side, (1.0,) * spec.users)
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


def _fidelity(recipe: Recipe, shown: Tensor, images: Tensor) -> Tensor:
    error = shown - images
    if recipe.loss == "mae":
        return error.abs().mean()
    if recipe.loss == "mse":
        return error.square().mean()
    return 0.1 * (error.square().flatten(2).mean(2) + _LEAST_MSE).log().mean()


def validation_groups(spec: ModelSpec, images: int = VALIDATION) -> int:
    """Image groups that a validation is on."""
    return min(_VALIDATION_GROUPS, images // spec.users)


@torch.no_grad()
def shown_by(spec: ModelSpec, model: Network, batch: Batch) -> Tensor:
    """What a frozen transceiver shows of a batch, float32 [B * N, C, H, W] in [0, 1]."""
    side = side_information(batch.snr_db, batch.h, spec.side_dim)
    symbols = model.encode(batch.images, side, spec.powers)
    received = batch.channel.through(symbols, batch.noise_var, batch.noise)[:, 0]
    return model.receive(received, side).float().clamp(0, 1).flatten(0, 1)


@torch.no_grad()
def validation_pass(
    spec: ModelSpec, model: Network, images: NDArray[np.uint8], device: str, snr_db: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """What was sent and what is shown, float32 [M, C, H, W] in [0, 1], on fixed groups, fading and noise."""
    model.eval()
    groups = validation_groups(spec, len(images))
    chosen = torch.tensor(images[: groups * spec.users]).unflatten(0, (spec.users, groups)).transpose(0, 1)
    for part in torch.arange(groups).split(64):
        channel = realise(spec.link, KeyedDraws(_VALIDATION_SEED, part.tolist(), device), spec.symbols, spec.access)
        sent = chosen[part].to(device).float() / 255
        gamma = torch.full((len(part),), snr_db, device=device)
        side = side_information(gamma, channel.h[:, 0, :, 0], spec.side_dim)
        symbols = model.encode(sent, side, spec.powers)
        received = channel.through(symbols, torch.full_like(gamma, noise_variance(snr_db)))[:, 0]
        shown = model.receive(received, side).float().clamp(0, 1)
        yield sent.flatten(0, 1), shown.flatten(0, 1)


def validate(
    spec: ModelSpec,
    model: Network,
    images: NDArray[np.uint8],
    device: str,
    snrs_db: Sequence[float] = VALIDATION_SNRS_DB,
) -> dict[float, float]:
    """Mean per-image PSNR in dB at each SNR, on fixed groups, fading and noise, in float32."""
    return {
        snr_db: float(
            torch.cat(
                [psnr_from_mse(mse(*pair)) for pair in validation_pass(spec, model, images, device, snr_db)]
            ).mean()
        )
        for snr_db in snrs_db
    }
