"""A metric of one's own: gradient magnitude similarity deviation (Xue et al., 2014)."""

from typing import ClassVar

import torch
from torch.nn.functional import avg_pool2d, conv2d

from linksim import ImageMetric

#: Keeps the similarity of flat regions from being 0 / 0, for a data range of 255.
FLOOR = 170.0


class Gmsd(ImageMetric):
    """How unevenly the gradients of an image differ from those of its reference; 0 where they are the same."""

    name: ClassVar[str] = "gmsd"
    column: ClassVar[str] = "gmsd"
    label: ClassVar[str] = "GMSD"
    higher_is_better: ClassVar[bool] = False
    summary: ClassVar[str] = "example plug-in: gradient magnitude similarity deviation"
    convention: ClassVar[str] = "luma, halved by averaging 2x2 pixels, Prewitt gradients, c = 170 for a range of 255"
    min_side: ClassVar[int] = 8

    def measure(self, reference: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        there, here = self.gradient(reference), self.gradient(image)
        similarity = (2 * there * here + FLOOR) / (there.square() + here.square() + FLOOR)
        return similarity.flatten(1).std(dim=1, correction=0)

    @staticmethod
    def gradient(images: torch.Tensor) -> torch.Tensor:
        """Magnitudes of the gradients, [B, 1, H / 2 - 2, W / 2 - 2]."""
        weights = torch.tensor([0.299, 0.587, 0.114]).to(images)
        luma = avg_pool2d(255 * (images * weights[:, None, None]).sum(dim=1, keepdim=True), 2)
        across = torch.tensor([[1.0, 0.0, -1.0]] * 3).to(images) / 3
        return conv2d(luma, torch.stack([across, across.T])[:, None]).square().sum(dim=1, keepdim=True).sqrt()
