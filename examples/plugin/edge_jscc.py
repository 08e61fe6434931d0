"""A learned scheme of one's own: network, loss and recipe; `linksim train --scheme edge-jscc` trains it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from linksim import LinksimError
from linksim.link.power import normalise
from linksim.models.recipe import NotNegative
from linksim.models.spec import ModelSpec
from linksim.nets.network import Network, to_features, to_symbols, with_planes
from linksim.schemes.learned import Learned
from linksim.schemes.recipe import TransceiverRecipe
from linksim.schemes.training import TransceiverTask

WIDTHS = {"compact": 32, "paper": 64}


class EdgeNetwork(Network):
    """Two convolutions an end; users superpose, and the receiver shows the images of all of them."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec.users, spec.side_dim)
        channels, height, width = self.image_shape = spec.image_shape
        maps, left = divmod(2 * spec.symbols, height * width // 16)
        if left or height % 4 or width % 4:
            raise LinksimError(f"{spec.symbols} symbols give no whole number of maps: take a multiple of 1/96 for rho")
        filters = WIDTHS[spec.size]
        self.feature_shape = maps, height // 4, width // 4
        self.planes = nn.Parameter(torch.randn(spec.users, 1, height, width))
        self.encoder = nn.Sequential(
            nn.Conv2d(channels + 1, filters, 4, 2, 1), nn.GELU(), nn.Conv2d(filters, maps, 4, 2, 1)
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(maps, filters, 4, 2, 1),
            nn.GELU(),
            nn.ConvTranspose2d(filters, channels * spec.users, 4, 2, 1),
            nn.Sigmoid(),
        )

    def encode(self, images: Tensor, side: Tensor, powers: tuple[float, ...]) -> Tensor:
        features = self.encoder(with_planes(images, self.planes)).unflatten(0, images.shape[:2])
        return normalise(to_symbols(features), powers)

    def receive(self, received: Tensor, side: Tensor) -> Tensor:
        shown = self.decoder(to_features(received, self.feature_shape)).float()
        return shown.unflatten(1, (self.users, self.image_shape[0]))


@dataclass(frozen=True)
class EdgeRecipe(TransceiverRecipe):
    """How it is trained.

    Args:
        edges: weight of the error of neighbouring pixels' differences.
    """

    edges: NotNegative = 1.0


class EdgeTask(TransceiverTask):
    """Trained for the absolute error of the images and of their edges."""

    recipe: EdgeRecipe

    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        assert isinstance(model, Network)
        batch = self.draw()
        error = self.transmission.images(model, batch) - batch.images
        mae, edges = error.abs().mean(), error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return {"mae": mae, "edges": edges, "total": mae + self.recipe.edges * edges}


class EdgeJscc(Learned):
    """A small transceiver that is trained for edges too."""

    name: ClassVar[str] = "edge-jscc"
    summary: ClassVar[str] = "example plug-in: a small learned scheme with a loss of its own"
    recipe = EdgeRecipe

    @classmethod
    def network(cls, spec: ModelSpec) -> Network:
        return EdgeNetwork(spec)

    @classmethod
    def training(cls) -> type[TransceiverTask]:
        return EdgeTask
