"""LPIPS, learned perceptual distances (Zhang et al. 2018), from the lpips package."""

from __future__ import annotations

import hashlib
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from linksim import assets
from linksim.errors import LinksimError
from linksim.metrics.base import ImageMetric

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

_ALEXNET = "1e79dbde62a13caeaf6d1d6491a66ee816a833dfa42fb3532b5a74ed1cda2da2"


class _Lpips(ImageMetric):
    """LPIPS version 0.1 over one backbone.

    The package holds the heads; the backbone's features are shipped or an asset, so that nothing is downloaded.
    """

    higher_is_better = False
    backbone: ClassVar[str]

    #: Channels of the layers that are compared.
    widths: ClassVar[tuple[int, ...]]

    def __init__(self, device: str | torch.device = "cpu") -> None:
        super().__init__(device)
        tensors = self.features()
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
        self._network = network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)

    @classmethod
    @abstractmethod
    def features(cls) -> Mapping[str, NDArray[np.float32]]:
        """The backbone's convolutions under torchvision's names. Raises LinksimError where they are not whole."""

    def loss(self, reference: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """The distance [B] of images [B, 3, H, W] in [0, 1], with its gradient: for training."""
        import torch

        pair = (part.contiguous(memory_format=torch.channels_last) for part in (reference, image))
        found: torch.Tensor = self._network(*pair, normalize=True).flatten()
        return found

    def compared(
        self, reference: torch.Tensor, image: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
        """`loss`, and the five layers' features [B, C, H', W'] of either, of unit norm over the channels."""
        import torch

        layers = [self._layers(images) for images in (reference, image)]
        parts = [head((a - b) ** 2).mean((1, 2, 3)) for head, a, b in zip(self._network.lins, *layers, strict=True)]
        return torch.stack(parts).sum(0), layers[0], layers[1]

    def averages(self, images: torch.Tensor) -> torch.Tensor:
        """Means over an image [B, 3, H, W] in [0, 1] of those features, of mean square 1 each: [B, D]."""
        import torch

        return torch.cat([layer.mean((2, 3)) * layer.shape[1] ** 0.5 for layer in self._layers(images)], 1)

    def _layers(self, images: torch.Tensor) -> list[torch.Tensor]:
        import torch
        from lpips import normalize_tensor

        scaled = self._network.scaling_layer(2 * images.contiguous(memory_format=torch.channels_last) - 1)
        return [normalize_tensor(layer) for layer in self._network.net(scaled)]

    def measure(self, reference: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """See `ImageMetric`."""
        import torch

        with torch.inference_mode():
            return self.loss(reference, image)


class LpipsVgg(_Lpips):
    """LPIPS over VGG16, the one that `lpips` means here."""

    name = "lpips"
    column = "lpips_vgg"
    label = "LPIPS (VGG16)"
    summary = "learned perceptual distance over VGG16 (needs the asset vgg16)"
    convention = "mean of per-image LPIPS 0.1 over VGG16 of the lpips package, images mapped to [-1, 1], not resized"
    asset = "vgg16"
    backbone = "vgg"
    widths = (64, 128, 256, 512, 512)
    min_side = 16

    @classmethod
    def features(cls) -> Mapping[str, NDArray[np.float32]]:
        """See `_Lpips`."""
        return assets.load_weights("vgg16")


class LpipsAlex(_Lpips):
    """LPIPS over AlexNet, whose features come with the package in half precision: one number for everybody."""

    name = "lpips-alex"
    column = "lpips_alex"
    label = "LPIPS (AlexNet)"
    summary = "learned perceptual distance over AlexNet (its weights come along)"
    convention = (
        "mean of per-image LPIPS 0.1 over AlexNet (features rounded to half precision) of the lpips package, images "
        "mapped to [-1, 1], not resized"
    )
    backbone = "alex"
    widths = (64, 192, 384, 256, 256)
    min_side = 31

    @classmethod
    def features(cls) -> Mapping[str, NDArray[np.float32]]:
        """See `_Lpips`."""
        from safetensors.numpy import load

        path = Path(__file__).parent / "alexnet_features.safetensors"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise LinksimError(f"{path}: {error.strerror}: install linksim again") from None
        if hashlib.sha256(data).hexdigest() != _ALEXNET:
            raise LinksimError(f"{path} is damaged (its SHA-256 is another): install linksim again")
        return {name: value.astype(np.float32) for name, value in load(data).items()}


#: By backbone, as recipes name them.
LPIPS: Mapping[str, type[_Lpips]] = {"vgg": LpipsVgg, "alex": LpipsAlex}
