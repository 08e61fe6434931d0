"""`flow`: from the posterior mean that a first stage shows to an image, by a straight flow (Ohayon et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from linksim.data.datasets import embedded_images
from linksim.errors import LinksimError
from linksim.models import weights
from linksim.models.owner import Model, Owner
from linksim.models.recipe import BaseRecipe
from linksim.models.spec import CIFAR10_SHAPE, NO_ABLATION, ModelSpec, RefinerSpec
from linksim.refine.base import ByImage, Steps
from linksim.refine.flow.recipe import STEPS, FlowRecipe
from linksim.schemes.base import Params, Scheme
from linksim.schemes.learned import transceiver

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from linksim.data.training import TrainingSet
    from linksim.link.config import Setting
    from linksim.models.task import Task
    from linksim.refine.flow.network import FlowNetwork

_GOLDEN_IMAGES, _GOLDEN_ERROR, _GOLDEN_SEED = 64, 0.1, 2**40


class FlowParams(Params):
    """Parameters of the flow."""

    steps: int = Field(STEPS, ge=1, le=1000, description="Euler steps")
    strength: Literal["auto"] | Annotated[float, Field(ge=0, le=2)] = Field(
        "auto",
        description="share of the way from the first stage's image to the flow's, over 1 past it; auto: at each level "
        "of error the one whose images were most like real ones in validation, and raised no LPIPS",
    )


class Flow(ByImage, Owner):
    """The start is the first stage's image and a little noise; Euler steps follow the velocities of a network.

    One network serves behind any scheme, the digital baseline included: it tells from an image how far off it is, and
    takes everything in that unit.
    """

    name: ClassVar[str] = "flow"
    summary: ClassVar[str] = "posterior-mean rectified flow, one network behind any scheme (Ohayon et al. 2025)"
    Params: ClassVar[type[Params]] = FlowParams
    recipe: ClassVar[type[BaseRecipe]] = FlowRecipe
    bound: ClassVar[bool] = False

    def __init__(self, setting: Setting, params: FlowParams, first: Scheme) -> None:
        super().__init__(setting, params, first)
        self._model = self.apart(setting.image_shape)
        self._model.check_images(setting.image_shape)
        self._card = weights.card(self._model)
        self._strengths = [(float(error), float(share)) for error, share in self._card.get("strengths", [])]
        # A card of before knows what the network takes an image for, and that alone.
        self._told = [float(number) for number in self._card.get("told", (0, 1, 0))]
        if params.strength == "auto" and not self._strengths:
            raise LinksimError(
                f"{self._model.name}: its card knows no strengths: give strength=1, or train it again: "
                f"{self._model.command}"
            )

    @classmethod
    def apart(cls, image_shape: tuple[int, int, int] = CIFAR10_SHAPE) -> Model:
        """See `Refiner`."""
        return Model(RefinerSpec(cls.name, images=image_shape), cls)

    @classmethod
    def models(cls, first: ModelSpec | None, params: Any) -> list[Model]:
        """See `Refiner`."""
        return [cls.apart(CIFAR10_SHAPE if first is None else first.image_shape)]

    @classmethod
    def owners(cls) -> dict[str, type[Owner]]:
        """See `Refiner`."""
        return {cls.name: cls}

    @classmethod
    def network(cls, spec: RefinerSpec) -> FlowNetwork:
        """See `Owner`."""
        from linksim.refine.flow.network import FlowNetwork

        return FlowNetwork()

    @classmethod
    def check_images(cls, spec: RefinerSpec, image_shape: tuple[int, int, int]) -> None:
        """See `Owner`: the network halves the sides twice."""
        from linksim.nets.network import check_sides

        check_sides(image_shape, 4)

    @classmethod
    def words(cls, spec: RefinerSpec) -> list[str]:
        """See `Owner`."""
        return ["train", "--refiner", cls.name]

    @classmethod
    def parts(cls, spec: RefinerSpec) -> dict[str, Model]:
        """Every transceiver of two users that has weights for such images, ablations apart."""
        found = (known for known, card in weights.transceivers().values() if weights.present(card))
        fitting = [
            known for known in found
            if (known.image_shape, known.users, known.ablation) == (spec.image_shape, 2, NO_ABLATION)
        ]  # fmt: skip
        return {known.name: transceiver(known) for known in sorted(fitting, key=lambda known: known.name)}

    @classmethod
    def task(
        cls, spec: RefinerSpec, recipe: Any, images: TrainingSet, seed: int, device: str, start: nn.Module | None,
        frozen: Mapping[str, nn.Module] | None = None,
    ) -> Task:  # fmt: skip
        """See `Owner`. Raises LinksimError where no transceiver has weights for such images."""
        from linksim.refine.flow.training import FlowTask

        firsts = cls.parts(spec)
        if not firsts:
            raise LinksimError(f"{spec.name}: no scheme has weights for such images: train one first")
        frozen = weights.load_all(firsts) if frozen is None else frozen
        return FlowTask(cls, spec, recipe, images, seed, device, start, firsts, frozen)

    @classmethod
    def golden_psnr(cls, spec: RefinerSpec, network: nn.Module) -> float:
        """PSNR in dB of embedded images that were off by white noise, after one step."""
        import numpy as np
        import torch

        from linksim.metrics import mse, psnr_from_mse
        from linksim.refine.flow.network import FlowNetwork, flow

        assert isinstance(network, FlowNetwork)
        sent = torch.tensor(embedded_images(_GOLDEN_IMAGES, spec.image_shape)).float() / 255
        draws = np.random.Generator(np.random.Philox(_GOLDEN_SEED))
        shown = sent + _GOLDEN_ERROR * torch.from_numpy(draws.standard_normal(sent.shape, dtype=np.float32))
        with torch.inference_mode():
            refined = flow(network, shown.clamp(0, 1), torch.zeros_like(sent), 1, 0.0)
        return float(psnr_from_mse(mse(sent, refined.clamp(0, 1))).mean())

    def provenance(self) -> dict[str, str]:
        """Hash of the weights; with `strength=auto` how far it goes at which error."""
        found = {"weights": " ".join(self._card["files"].values())}
        if self.params.strength != "auto":
            return found
        found["strengths"] = "/".join(f"{error:g}:{share:g}" for error, share in self._strengths)
        return found | ({"told": "/".join(map(str, self._card["told"]))} if "told" in self._card else {})

    def load(self) -> None:
        """See `Refiner`."""
        _ = self._network

    @cached_property
    def _network(self) -> FlowNetwork:
        from linksim.nets.precision import laid_out
        from linksim.refine.flow.network import FlowNetwork

        found = laid_out(weights.load(self._model, self._card), self.setting.device, self.setting.precision)
        assert isinstance(found, FlowNetwork)
        return found

    def evaluations(self, snr_db: float) -> int:
        """See `Refiner`."""
        return self.params.steps if self.params.strength else 0

    def refine_each(
        self,
        images: Tensor,
        snr_db: float,
        received_db: Sequence[float],
        draws: Sequence[np.random.Generator],
        report: Steps,
    ) -> Tensor:
        """See `Refiner.refine_each`: with `strength=auto` the SNRs say, beside the images, how far off they are."""
        import numpy as np
        import torch

        from linksim.refine.flow.network import errors_told, flow, strength_at

        if not self.params.strength:
            return images
        shape = images.shape[1:]
        noise = torch.from_numpy(np.stack([draw.standard_normal(shape, dtype=np.float32) for draw in draws])).to(images)
        level = float(self._card["settings"]["noise_level"])
        with torch.inference_mode():
            flown = flow(self._network, images, noise, self.params.steps, level, report)
            share: Tensor | float
            if self.params.strength == "auto":
                error = errors_told(self._network.level(images), torch.tensor(received_db), self._told)
                share = strength_at(error, self._strengths)[:, None, None, None]
            else:
                share = self.params.strength
        found: Tensor = images.lerp(flown, share)
        return found
