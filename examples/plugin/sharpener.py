"""A refiner of one's own: network, loss and recipe; `linksim train --refiner sharpener --scheme kd` trains it."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from linksim.models.recipe import LinkRecipe, NotNegative
from linksim.models.spec import RefinerSpec
from linksim.refine.learned import LearnedRefiner
from linksim.refine.training import RefinerTask


class Residual(nn.Module):
    """Adds to an image what is missing in it; it begins by adding nothing."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1), nn.GELU(), last := nn.Conv2d(width, 3, 3, 1, 1))
        for value in last.parameters():
            nn.init.zeros_(value)

    def forward(self, images: Tensor) -> Tensor:
        return images + self.layers(images).float()


@dataclass(frozen=True)
class SharpenerRecipe(LinkRecipe):
    """How it is trained.

    Args:
        power: of the error; 1 is the absolute one, 2 the squared one.
    """

    power: NotNegative = 2.0


class SharpenerTask(RefinerTask):
    """Trained for a power of the error."""

    recipe: SharpenerRecipe

    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        sent, shown = self.pairs()
        error = (model(shown) - sent).abs().pow(self.recipe.power).mean()
        return {"error": error, "total": error}


class Sharpener(LearnedRefiner):
    """Two convolutions behind a learned scheme."""

    name: ClassVar[str] = "sharpener"
    summary: ClassVar[str] = "example plug-in: two convolutions trained on the first stage's output"
    recipe = SharpenerRecipe

    @classmethod
    def network(cls, spec: RefinerSpec) -> nn.Module:
        return Residual()

    @classmethod
    def training(cls) -> type[RefinerTask]:
        return SharpenerTask
