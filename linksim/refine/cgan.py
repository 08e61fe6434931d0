"""SemNOMA-CGAN: a conditional generator behind a frozen first stage (KDD paper, section VI-A2)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from linksim.errors import LinksimError
from linksim.refine.base import Refiner, Steps
from linksim.refine.specs import CganSpec
from linksim.schemes.base import Params, Scheme
from linksim.schemes.learned import Learned
from linksim.train.spec import ModelSpec, Spec

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from linksim.link.config import Setting


class Cgan(Refiner):
    """A U-Net trained on the output of the first stage with MAE, LPIPS and a PatchGAN."""

    name: ClassVar[str] = "cgan"
    summary: ClassVar[str] = "a conditional GAN trained on the first stage's output (KDD paper)"

    def __init__(self, setting: Setting, params: Params, first: Scheme) -> None:
        super().__init__(setting, params, first)
        from linksim.weights import card

        if not isinstance(first, Learned):
            raise LinksimError(f"{first.name}+cgan: it is trained on the output of a learned scheme: take one")
        self._spec = CganSpec(first.spec)
        self._card = card(self._spec)

    @classmethod
    def models(cls, first: Spec | None, params: Any) -> list[Spec]:
        """See `Refiner`."""
        return [CganSpec(first)] if isinstance(first, ModelSpec) else []

    def provenance(self) -> dict[str, str]:
        """Hash of the weights."""
        return {"weights": " ".join(self._card["files"].values())}

    def load(self) -> None:
        """See `Refiner`."""
        _ = self._generator

    @cached_property
    def _generator(self) -> nn.Module:
        from linksim.nets.precision import laid_out
        from linksim.weights import load

        return laid_out(load(self._spec, self._card), self.setting.device, self.setting.precision)

    def refine(self, images: Tensor, snr_db: float, draws: Sequence[np.random.Generator], report: Steps) -> Tensor:
        """See `Refiner.refine`."""
        import torch

        refined: Tensor = self._generator(images.contiguous(memory_format=torch.channels_last))
        report(1, 1)
        return refined
