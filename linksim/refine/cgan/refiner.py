"""SemNOMA-CGAN: a conditional generator behind a frozen first stage (KDD paper, section VI-A2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from linksim.errors import LinksimError
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
    def check_images(cls, spec: RefinerSpec, image_shape: tuple[int, int, int]) -> None:
        """See `LearnedRefiner`: the generator halves the sides three times, and patches have 24 pixels at the least."""
        from linksim.nets.network import check_sides

        super().check_images(spec, image_shape)
        check_sides(image_shape, 8)
        if min(image_shape[1:]) < 24:
            raise LinksimError(f"{cls.name} takes images, and parts, of 24x24 and more: take larger ones")

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
