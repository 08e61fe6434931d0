"""Training of `flow`: straight lines from what frozen first stages show to what was sent."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from linksim.metrics import LPIPS, LpipsAlex, mse, psnr_from_mse
from linksim.models.batch import VALIDATION_SNRS_DB
from linksim.models.pool import Pool
from linksim.models.spec import ModelSpec, RefinerSpec
from linksim.models.task import Task
from linksim.nets.network import Network
from linksim.nets.precision import laid_out
from linksim.refine.flow.network import Critic, FlowNetwork, errors_told, flow, strengths_of, told_of
from linksim.refine.flow.recipe import STEPS, FlowRecipe
from linksim.refine.training import logistic
from linksim.schemes.learned import learned

if TYPE_CHECKING:
    from linksim.data.training import TrainingSet
    from linksim.models.owner import Model, Owner

_VALIDATION_GROUPS = 8
_VALIDATION_SEED = 2**40

#: A level is learned beside the flow, by less than what the flow itself weighs.
_LEVEL_WEIGHT = 0.1

#: Of an image without error.
_LEAST_MSE = 1e-6

#: Where `strengths` are measured, and which there are.
_MEASURED_SNRS_DB = (-5.0, 0.0, 5.0, 10.0, 15.0, 20.0)
_SHARES = tuple(part / 4 for part in range(9))


class Contest(nn.Module):
    """What is trained together: a flow, and a critic of where it points to."""

    def __init__(self, network: FlowNetwork, widths: Sequence[int]) -> None:
        super().__init__()
        self.flow, self.critic = network, Critic(widths)


class FlowTask(Task):
    """One flow behind many frozen first stages, a random one a step.

    Args:
        owner: builds the network.
        spec: the model.
        recipe: how.
        images: the data set.
        seed, device: see `Task`.
        start: a network to start from.
        firsts: the first stages' models.
        frozen: their networks.
    """

    recipe: FlowRecipe
    collapse: ClassVar[float] = 5.0

    def __init__(
        self, owner: type[Owner], spec: RefinerSpec, recipe: FlowRecipe, images: TrainingSet, seed: int, device: str,
        start: nn.Module | None, firsts: Mapping[str, Model], frozen: Mapping[str, nn.Module],
    ) -> None:  # fmt: skip
        super().__init__(recipe, seed, device)
        self._owner, self._spec, self._start = owner, spec, start
        self._firsts = []
        for name, model in firsts.items():
            network = frozen[name]
            assert isinstance(network, Network)
            assert isinstance(model.spec, ModelSpec)
            whole = learned(model.spec.method).transmission(model.spec)
            self._firsts.append((whole, laid_out(network, device)))
        self._held_out, self._pool = images.held_out, Pool(images, device)
        self._lpips = LpipsAlex(device)
        self._taught = None
        if recipe.perceptual or recipe.adversarial:
            self._taught = self._lpips if recipe.lpips == "alex" else LPIPS[recipe.lpips](device)

    def identity(self) -> dict[str, Any]:
        """See `Task`."""
        return {"spec": self._spec.to_json()}

    def network(self) -> nn.Module:
        """See `Task`."""
        network = self._owner.network(self._spec)
        assert isinstance(network, FlowNetwork)
        if self._start is not None:
            network.load_state_dict(self._start.state_dict())
        if self._taught is None or not self.recipe.adversarial:
            return network
        return Contest(network, self._taught.widths)

    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        """The squared error of the velocity, in units of the first stage's error, and that of the error's logarithm.

        With them LPIPS of where the velocity points to, what the critic says of that, and the critic's own loss.
        """
        transmission, first = self._firsts[int(torch.randint(len(self._firsts), ()))]
        transmission = transmission.cut(self.recipe.crop)
        batch = transmission.draw(self.recipe, self._pool).part(self.share)
        return self._losses(model, batch.images.flatten(0, 1), transmission.shown(first, batch))

    def _losses(
        self, model: nn.Module, sent: Tensor, shown: Tensor, draws: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        model, critic = _parts(model)
        level = model.level(shown)
        scale = level.detach().exp()[:, None, None, None]
        noise = torch.randn(shown.shape, generator=draws).to(shown)
        # Half of them at 0, where one step begins and ends.
        time = (2 * torch.rand(len(shown), generator=draws) - 1).clamp_min(0).to(shown)
        begin = shown + self.recipe.noise_level * scale * noise
        line, way = sent - begin, time[:, None, None, None]
        x = begin + way * line
        told = model(x, shown, time, level.detach())
        error = (told - line / scale).square().mean()
        off = (level - mse(sent, shown).clamp_min(_LEAST_MSE).sqrt().log()).abs().mean()
        found = {"velocity": error, "level": off, "total": error + _LEVEL_WEIGHT * off}
        if self._taught is not None:
            # Half of the images: VGG16 takes longer than everything else.
            half = slice(math.ceil(len(sent) / 2))
            end = (x + (1 - way) * scale * told)[half]
            distance, real, ours = self._taught.compared(sent[half], end)
            found["lpips"] = distance.mean()
            found["total"] = found["total"] + self.recipe.perceptual * found["lpips"]
            if critic is not None and draws is None:
                critic.requires_grad_(False)
                fooled = _judged(critic, ours, True)
                critic.requires_grad_(True)
                judged = _judged(critic, real, True) + _judged(critic, [layer.detach() for layer in ours], False)
                found |= {"adversarial": fooled, "critic": judged}
                found["total"] = found["total"] + self.recipe.adversarial * fooled + judged / 2
        return found

    def shown_at(self, snr_db: float, apart: bool = False) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """What was sent, what every first stage shows, and the SNRs at which it is received.

        Of the same images behind each first stage, or `apart` of others.
        """
        for place, (transmission, first) in enumerate(self._firsts):
            begin = place * self.validated if apart else 0
            held_out = np.take(self._held_out, range(begin, begin + self.validated), 0, mode="wrap")
            whole = transmission.whole(self.recipe.crop)
            yield from whole.held_out_each(first, held_out, self.device, snr_db)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """At each of VALIDATION_SNRS_DB the loss, negative, on fixed draws; LPIPS and PSNR after one step."""
        network, _ = _parts(model)
        found: dict[str, float] = {}
        for snr_db in VALIDATION_SNRS_DB:
            draws = torch.Generator().manual_seed(_VALIDATION_SEED)
            losses, distances, values = [], [], []
            for sent, shown, _ in self.shown_at(snr_db):
                losses.append(self._losses(model, sent, shown, draws)["total"])
                noise = torch.randn(shown.shape, generator=draws).to(shown)
                refined = flow(network, shown, noise, 1, self.recipe.noise_level).clamp(0, 1)
                distances.append(self._lpips(sent, refined))
                values.append(psnr_from_mse(mse(sent, refined)))
            found[f"fit_{snr_db:g}db"] = -float(torch.stack(losses).mean())
            found[f"lpips_{snr_db:g}db"] = float(torch.cat(distances).mean())
            found[f"psnr_{snr_db:g}db"] = float(torch.cat(values).mean())
        return found

    @torch.no_grad()
    def measured(self, model: nn.Module, images: int) -> dict[str, Any]:
        """`strengths`: how far to go at which error (`strengths_of`), on held-out images; `told`: what tells the error.

        LPIPS over AlexNet may not rise; features are those of the LPIPS that was taught, their means over an image.
        """
        network = laid_out(copy.deepcopy(model), self.device)
        assert isinstance(network, FlowNetwork)
        judge = self._taught or self._lpips
        draws = torch.Generator().manual_seed(_VALIDATION_SEED)
        rows: list[tuple[Tensor, ...]] = []
        for snr_db in _MEASURED_SNRS_DB:
            for sent, shown, received_db in self.shown_at(snr_db, apart=True):
                noise = torch.randn(shown.shape, generator=draws).to(shown)
                flown = flow(network, shown, noise, STEPS, self.recipe.noise_level)
                gone = [shown.lerp(flown, share).clamp(0, 1) for share in _SHARES]
                rows.append((
                    network.level(shown),
                    received_db,
                    mse(sent, shown).clamp_min(_LEAST_MSE).sqrt(),
                    torch.stack([self._lpips(sent, images) for images in gone], 1),
                    judge.averages(sent),
                    torch.stack([judge.averages(images) for images in gone], 1),
                ))  # fmt: skip
        columns = (torch.cat(column).cpu() for column in zip(*rows, strict=True))
        level, received, error, distances, of_sent, of_gone = columns
        told = told_of(level, received, error)
        known = errors_told(level, received, told)
        return {"told": told, "strengths": strengths_of(known, distances, of_sent, of_gone, _SHARES)}

    def clipped(self, model: nn.Module) -> list[list[nn.Parameter]]:
        """Flow and critic apart."""
        return [list(part.parameters()) for part in _parts(model) if part is not None]

    def shipped(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The flow."""
        own = "flow."
        return {name.removeprefix(own): value for name, value in state.items() if name.startswith(own)} or state

    def score(self, found: Mapping[str, float]) -> float:
        """Mean LPIPS (AlexNet), negative: whatever the weights of the loss are, it compares."""
        distances = [value for name, value in found.items() if name.startswith("lpips")]
        return -sum(distances) / len(distances)

    @property
    def last(self) -> bool:
        """With a critic the end is kept: LPIPS on a few held-out images does not tell what a critic has given."""
        return self.recipe.adversarial > 0

    @property
    def validated(self) -> int:
        """See `Task`."""
        groups = min(_VALIDATION_GROUPS, *(whole.groups(len(self._held_out)) for whole, _ in self._firsts))
        return groups * 2


def _parts(model: nn.Module) -> tuple[FlowNetwork, Critic | None]:
    if isinstance(model, Contest):
        return model.flow, model.critic
    assert isinstance(model, FlowNetwork)
    return model, None


def _judged(critic: Critic, layers: Sequence[Tensor], real: bool) -> Tensor:
    """The logistic loss, a mean over the layers, whatever their sizes."""
    return torch.stack([logistic(logits, real) for logits in critic(layers)]).mean()
