"""SemNOMA-CGAN: a conditional generator behind a frozen first stage (KDD paper, section VI-A2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from linksim.models.recipe import BaseRecipe
from linksim.models.spec import RefinerSpec
from linksim.refine.cgan.recipe import CganRecipe
from linksim.refine.learned import LearnedRefiner

if TYPE_CHECKING:
    from linksim.refine.cgan.network import Generator
    from linksim.refine.training import RefinerTask

#: Channels of the generator at full resolution, by the size of the first stage.
_WIDTHS = {"compact": 32, "paper": 64}


class Cgan(LearnedRefiner):
    """A U-Net trained on the output of the first stage with MAE, LPIPS and a PatchGAN."""

    name: ClassVar[str] = "cgan"
    summary: ClassVar[str] = "a conditional GAN trained on the first stage's output (KDD paper)"
    recipe: ClassVar[type[BaseRecipe]] = CganRecipe

    @classmethod
    def width(cls, spec: RefinerSpec) -> int:
        """Channels of the generator at full resolution."""
        assert spec.first is not None
        return _WIDTHS[spec.first.size]

    @classmethod
    def network(cls, spec: RefinerSpec) -> Generator:
        """See `LearnedRefiner`."""
        from linksim.refine.cgan.network import Generator

        return Generator(cls.width(spec))

    @classmethod
    def training(cls) -> type[RefinerTask]:
        """See `LearnedRefiner`."""
        from linksim.refine.cgan.training import CganTask

        return CganTask
