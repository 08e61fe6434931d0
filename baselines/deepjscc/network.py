"""DeepJSCC's networks (Bourtsoulatze, Kurka, Gündüz: IEEE Trans. Cogn. Commun. Netw. 5(3), 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from linksim.nets.orthogonal import OrthogonalNetwork

#: Pixels a side of what a feature at the channel stands for.
STRIDE = 4

_KERNEL = 5
_FILTERS = (16, 32, 32, 32)


class _Row(nn.Sequential):
    """Layers in a row; the one at `place` sees gamma as one more map, where there is one."""

    def __init__(self, layers: Sequence[nn.Module], place: int) -> None:
        super().__init__(*layers)
        self.place = place

    def forward(self, x: Tensor, gamma: Tensor | None) -> Tensor:  # type: ignore[override]
        for index, layer in enumerate(self):
            if index == self.place and gamma is not None:
                x = torch.cat([x, gamma.to(x)[..., None, None].expand(-1, -1, *x.shape[2:])], dim=1)
            x = layer(x)
        return x


class ConvNetwork(OrthogonalNetwork):
    """Convolutions 5x5 with PReLU, the first two of stride 2; their mirror, and a sigmoid.

    Args:
        image_shape, maps, side_dim, told: see `OrthogonalNetwork`.

    Example:
        >>> network = ConvNetwork((3, 32, 32), maps=16, side_dim=1, told=False)
        >>> sum(value.numel() for value in network.parameters())
        156252
    """

    def __init__(self, image_shape: tuple[int, int, int], maps: int, side_dim: int, told: bool) -> None:
        super().__init__(image_shape, STRIDE, maps, side_dim, told)
        colours, sides = image_shape[0], (2, 2, 1, 1, 1)
        widths = [colours, *_FILTERS, maps]
        down: list[nn.Module] = []
        for index, stride in enumerate(sides):
            inputs = widths[index] + (told and index == 4)
            down += [nn.Conv2d(inputs, widths[index + 1], _KERNEL, stride, _KERNEL // 2), nn.PReLU()]
        up: list[nn.Module] = []
        for index, stride in reversed(list(enumerate(sides))):
            inputs = widths[index + 1] + (told and index == 4)
            up += [
                nn.ConvTranspose2d(inputs, widths[index], _KERNEL, stride, _KERNEL // 2, stride - 1),
                nn.PReLU() if index else nn.Sigmoid(),
            ]
        self.encoder, self.decoder = _Row(down, len(down) - 2), _Row(up, 0)
