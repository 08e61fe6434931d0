"""The error of images that networks are trained for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

ImageLoss = Literal["mae", "mse", "log-mse"]

#: Added to an image's MSE in "log-mse": from 50 dB on, an image is as good as it need be.
_LEAST_MSE = 1e-5


def fidelity(loss: ImageLoss, shown: Tensor, images: Tensor) -> Tensor:
    """The error of shown images [..., C, H, W], a scalar.

    Args:
        loss: "mae", "mse", or "log-mse", which is 0.1 mean log(MSE + 1e-5) over images: what a mean of PSNRs asks for.
        shown: images.
        images: the originals.

    Example:
        >>> import torch
        >>> float(fidelity("mse", torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)))
        1.0
    """
    error = shown - images
    if loss == "mae":
        return error.abs().mean()
    if loss == "mse":
        return error.square().mean()
    return 0.1 * (error.square().flatten(-3).mean(-1) + _LEAST_MSE).log().mean()
