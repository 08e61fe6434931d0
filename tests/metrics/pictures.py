"""Images to measure."""

import numpy as np
import torch

from linksim.data import load_dataset


def photos(count: int, start: int = 0) -> torch.Tensor:
    """CIFAR-10 images, float32 [count, 3, 32, 32] in [0, 1]."""
    return torch.from_numpy(load_dataset("cifar10-mini").images[np.arange(start, start + count)]).float() / 255


def noisy(images: torch.Tensor, deviation: float = 0.1, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return (images + deviation * noise).clamp(0, 1)


def smooth(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Smooth random images of any size, float32 [count, 3, height, width] in [0, 1]."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
