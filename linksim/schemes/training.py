"""Training of a transceiver for the images' error: from scratch, or from another's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from linksim.models.batch import Batch
from linksim.models.fidelity import fidelity
from linksim.models.pool import Pool
from linksim.models.spec import ModelSpec
from linksim.models.task import Task
from linksim.nets.layers import Conditioned, StochasticDepth
from linksim.nets.network import Network
from linksim.nets.precision import laid_out
from linksim.schemes.recipe import TransceiverRecipe

if TYPE_CHECKING:
    from linksim.data.training import TrainingSet
    from linksim.schemes.learned import Learned


class TransceiverTask(Task):
    """A transceiver, trained for the images' error alone.

    A scheme that is trained for something else derives from this, with `losses` of its own (`Learned.training`).

    Args:
        owner: the scheme.
        spec: the model.
        recipe: how.
        images: the data set, of the model's size; the recipe may take parts of them.
        seed, device: see `Task`.
        start: the network of a model to start warm from.
        frozen: networks of the models that `Learned.parts` names.
    """

    recipe: TransceiverRecipe
    collapse: ClassVar[float] = 5.0

    def __init__(
        self,
        owner: type[Learned],
        spec: ModelSpec,
        recipe: TransceiverRecipe,
        images: TrainingSet,
        seed: int = 0,
        device: str = "cpu",
        start: Network | None = None,
        frozen: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__(recipe, seed, device)
        self.owner, self.spec, self.start = owner, spec, start
        self.transmission = owner.transmission(spec).cut(recipe.crop)
        #: On whole images, whatever the training sees of them.
        self.validation = owner.transmission(spec).whole(recipe.crop)
        self.frozen = {name: laid_out(network, device) for name, network in (frozen or {}).items()}
        self.held_out, self.pool = images.held_out, Pool(images, device)
        self.images_sha256 = images.sha256

    def identity(self) -> dict[str, Any]:
        """See `Task`."""
        return {"spec": self.spec.to_json()}

    def fresh(self) -> Network:
        """A network with fresh weights, for whole images."""
        return self.owner.network(self.spec)

    def draw(self) -> Batch:
        """This share of the draws of a step."""
        return self.transmission.draw(self.recipe, self.pool).part(self.share)

    def network(self) -> Network:
        """See `Task`."""
        network = self.fresh()
        if self.recipe.crop and isinstance(planes := getattr(network, "planes", None), nn.Parameter):
            # User planes are made for what is trained on, and begin anew beyond it.
            network.planes = nn.Parameter(planes.detach()[..., : self.recipe.crop, : self.recipe.crop].clone())
        if self.start is not None:
            (network.embed if self.embedded else network.adopt)(self.start)
        if not self.recipe.dropout:
            without_dropout(network)
        return network

    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        """See `Task`."""
        assert isinstance(model, Network)
        batch = self.draw()
        loss = fidelity(self.recipe.loss, self.transmission.images(model, batch), batch.images)
        return {self.recipe.loss: loss, "total": loss}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Mean per-image PSNR in dB at each of VALIDATION_SNRS_DB."""
        assert isinstance(model, Network)
        found = self.validation.psnr(model, self.held_out, self.device)
        return {f"psnr_{snr:g}db": value for snr, value in found.items()}

    @property
    def validated(self) -> int:
        """See `Task`."""
        return self.validation.groups(len(self.held_out)) * self.spec.users

    def compile(self, model: nn.Module) -> None:
        """See `Task`."""
        compile_networks(model, *self.frozen.values())


def without_dropout(model: nn.Module) -> None:
    """Has a network train without dropout and stochastic depth."""
    for module in model.modules():
        if isinstance(module, nn.Dropout | StochasticDepth):
            module.p = 0.0


def compile_networks(*networks: nn.Module, backend: str = "inductor") -> None:
    """Has the rows of layers compiled, which is all of a network but its complex-valued ends."""
    import torch._dynamo

    # Student, teacher and validation are ten graphs of one function; from the ninth on PyTorch would compile no more.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for network in networks:
        for module in network.modules():
            if isinstance(module, Conditioned):
                module.compile(dynamic=False, backend=backend)
