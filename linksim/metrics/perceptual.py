"""LPIPS, learned perceptual distances (Zhang et al. 2018), from the lpips package."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, ClassVar

from linksim import assets
from linksim.metrics.base import ImageMetric

if TYPE_CHECKING:
    import torch


class _Lpips(ImageMetric):
    """LPIPS version 0.1 over one backbone.

    The package holds the heads; the backbone's features come from the asset, so that nothing is downloaded.
    """

    higher_is_better = False
    backbone: ClassVar[str]
    asset: ClassVar[str]

    def __init__(self, device: str | torch.device = "cpu") -> None:
        super().__init__(device)
        tensors = assets.load_weights(self.asset)
        import lpips
        import torch

        # The package draws random weights first, which are overwritten here: nobody's random stream may feel it.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            network = lpips.LPIPS(net=self.backbone, version="0.1", pnet_rand=True, verbose=False)
        # Its parameters are called slice1.0.weight, ...: the number is the layer's in torchvision's `features`.
        state = {}
        for name in network.net.state_dict():
            _, layer, leaf = name.split(".")
            state[name] = torch.from_numpy(tensors[f"features.{layer}.{leaf}"])
        network.net.load_state_dict(state)
        self._network = network.eval().requires_grad_(False).to(device)

    def _measure(self, reference: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        import torch

        with torch.inference_mode():
            return self._network(reference, image, normalize=True).flatten()


class LpipsVgg(_Lpips):
    """LPIPS over VGG16, the one that `lpips` means here."""

    name = "lpips"
    column = "lpips_vgg"
    summary = "learned perceptual distance over VGG16 (needs the asset vgg16)"
    convention = "mean of per-image LPIPS 0.1 over VGG16 of the lpips package, images mapped to [-1, 1], not resized"
    asset = "vgg16"
    backbone = "vgg"
    min_side = 16


class LpipsAlex(_Lpips):
    """LPIPS over AlexNet."""

    name = "lpips-alex"
    column = "lpips_alex"
    summary = "learned perceptual distance over AlexNet (needs the asset alexnet)"
    convention = "mean of per-image LPIPS 0.1 over AlexNet of the lpips package, images mapped to [-1, 1], not resized"
    asset = "alexnet"
    backbone = "alex"
    min_side = 31
