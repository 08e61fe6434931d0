"""The error of images that networks are trained for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

ImageLoss = Literal["mae", "mse", "log-mse"]

#: Where the images of users that send together are known as such.
GroupLoss = Literal["mae", "mse", "log-mse", "log-pooled-mse"]

#: Added to an MSE before its logarithm: from 50 dB on, an image is as good as it need be.
_LEAST_MSE = 1e-5


def fidelity(loss: GroupLoss, shown: Tensor, images: Tensor) -> Tensor:
    """The error of shown images [..., C, H, W], a scalar.

    Args:
        loss: "mae", "mse"; "log-mse", which is 0.1 mean log(MSE + 1e-5) over images: what a mean of PSNRs asks for; or
            "log-pooled-mse", the same with the MSE of a group's users together, as `psnr_pooled_db` has it.
        shown: images; for "log-pooled-mse" [..., N, C, H, W].
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
    first = -4 if loss == "log-pooled-mse" else -3
    return 0.1 * (error.square().flatten(first).mean(-1) + _LEAST_MSE).log().mean()
