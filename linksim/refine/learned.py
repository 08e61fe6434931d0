"""Refiners with weights of their own, trained on the output of a learned scheme."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

from linksim.data.datasets import embedded_images
from linksim.errors import LinksimError
from linksim.models import weights
from linksim.models.owner import Model, Owner
from linksim.models.recipe import BaseRecipe, LinkRecipe
from linksim.models.spec import ModelSpec, RefinerSpec
from linksim.refine.base import Refiner, Steps
from linksim.schemes.base import Params, Scheme
from linksim.schemes.learned import Learned, learned, transceiver

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from linksim.data.training import TrainingSet
    from linksim.link.config import Setting
    from linksim.models.task import Task
    from linksim.nets.network import Network
    from linksim.refine.training import RefinerTask

#: Embedded image groups that a golden PSNR is of.
_GOLDEN_GROUPS = 32


class LearnedRefiner(Refiner, Owner):
    """A network behind a learned scheme.

    `linksim train --refiner NAME --scheme FIRST` trains any subclass that the registry knows, with the first stage
    frozen: by default for the mean absolute error, else as its own `recipe` and `training` say. Images go through the
    network once, unless `refine` says otherwise.

    Class attributes:
        recipe: the kind of recipe that its training takes.
    """

    recipe: ClassVar[type[BaseRecipe]] = LinkRecipe

    def __init__(self, setting: Setting, params: Params, first: Scheme) -> None:
        super().__init__(setting, params, first)
        if not isinstance(first, Learned):
            raise LinksimError(f"{first.name}+{self.name}: it is trained on the output of a learned scheme: take one")
        self._models = self.models(first.spec, params)
        self._cards = [weights.card(model) for model in self._models]

    @classmethod
    @abstractmethod
    def network(cls, spec: RefinerSpec) -> nn.Module:
        """A network with fresh weights: images float32 [M, C, H, W] in [0, 1] to images of the same shape."""

    @classmethod
    def training(cls) -> type[RefinerTask]:
        """How it is trained: a class of tasks, built as `RefinerTask` is."""
        from linksim.refine.training import RefinerTask

        return RefinerTask

    @classmethod
    def behind(cls, first: ModelSpec, params: Any = None) -> RefinerSpec:
        """The model that is trained on the output of a first stage.

        Args:
            first: the first stage's.
            params: of the class's own `Params`, where more than one model stands behind a first stage; None: defaults.
        """
        return RefinerSpec(cls.name, first=first)

    @classmethod
    def models(cls, first: ModelSpec | None, params: Any) -> list[Model]:
        """See `Refiner`."""
        return [Model(cls.behind(first, params), cls)] if first is not None else []

    @classmethod
    def owners(cls) -> dict[str, type[Owner]]:
        """See `Refiner`."""
        return {cls.name: cls}

    @classmethod
    def words(cls, spec: RefinerSpec) -> list[str]:
        """See `Owner`."""
        assert spec.first is not None
        return ["train", "--refiner", cls.name, *transceiver(spec.first).words[1:]]

    @classmethod
    def parts(cls, spec: RefinerSpec) -> dict[str, Model]:
        """The first stage."""
        return {"first": transceiver(spec.first)} if spec.first is not None else {}

    @classmethod
    def check_images(cls, spec: RefinerSpec, image_shape: tuple[int, int, int]) -> None:
        """See `Owner`: the first stage's word; a network of strides has one of its own."""
        if spec.first is not None:
            transceiver(spec.first).check_images(image_shape)

    @classmethod
    def task(
        cls, spec: RefinerSpec, recipe: Any, images: TrainingSet, seed: int, device: str, start: nn.Module | None,
        frozen: Mapping[str, nn.Module] | None = None,
    ) -> Task:  # fmt: skip
        """See `Owner`."""
        frozen = weights.load_all(cls.parts(spec)) if frozen is None else frozen
        return cls.training()(cls, spec, recipe, images, seed, device, start, frozen)

    @classmethod
    def golden_psnr(cls, spec: RefinerSpec, network: nn.Module) -> float:
        """Mean PSNR in dB of refined images at 10 dB, on the first embedded images."""
        assert spec.first is not None
        return golden_behind(spec, cast("Network", weights.load(transceiver(spec.first))), network)

    def provenance(self) -> dict[str, str]:
        """Hash of the weights."""
        return {"weights": " ".join(self._cards[-1]["files"].values())}

    def load(self) -> None:
        """See `Refiner`."""
        _ = self.trained

    @cached_property
    def trained(self) -> list[nn.Module]:
        """The networks of `models`, laid out for evaluation."""
        from linksim.nets.precision import laid_out

        loaded = (weights.load(model, card) for model, card in zip(self._models, self._cards, strict=True))
        return [laid_out(network, self.setting.device, self.setting.precision) for network in loaded]

    def refine(self, images: Tensor, snr_db: float, draws: Sequence[np.random.Generator], report: Steps) -> Tensor:
        """See `Refiner.refine`."""
        import torch

        refined: Tensor = self.trained[-1](images.contiguous(memory_format=torch.channels_last))
        report(1, 1)
        return refined


def golden_behind(spec: RefinerSpec, first: Network, network: nn.Module) -> float:
    """Mean PSNR in dB of refined images at 10 dB, on the first embedded images.

    Args:
        spec: the refiner's model.
        first: the first stage's network.
        network: images float32 [M, C, H, W] to images.
    """
    from linksim.refine.training import refined_psnr

    assert spec.first is not None
    transmission = learned(spec.first.method).transmission(spec.first)
    images = embedded_images(_GOLDEN_GROUPS * spec.first.users, spec.first.image_shape, spec.first.users)
    return refined_psnr(transmission, first, network, images, "cpu", 10.0)
