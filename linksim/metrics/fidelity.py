"""PSNR and SSIM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from linksim.metrics.base import Column, ImageMetric

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

# A perfect image has no finite PSNR; the floor gives it 100 dB, so that means over images stay finite.
MSE_FLOOR = 1e-10


def mse(reference: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Mean squared error [B] over C, H and W of two [B, C, H, W] in [0, 1]."""
    return (reference - image).square().flatten(1).mean(1)


def psnr_from_mse(mean_squared_error: torch.Tensor) -> torch.Tensor:
    """PSNR in dB for a peak of 1; at most 100 dB (`MSE_FLOOR`)."""
    return -10 * mean_squared_error.clamp_min(MSE_FLOOR).log10()


def psnr_from_mse_array(mean_squared_error: NDArray[Any]) -> NDArray[np.float64]:
    """The same for an array."""
    return -10 * np.log10(np.maximum(np.asarray(mean_squared_error, np.float64), MSE_FLOOR))


class Psnr(ImageMetric):
    """PSNR of each image, over its C*H*W values. The mean of these is the table's `psnr_db`."""

    name = "psnr"
    column = "psnr_db"
    label = "PSNR (dB)"
    digits = 2
    pooled = Column("psnr_pooled_db", "PSNR, pooled over users (dB)", 2)
    higher_is_better = True
    summary = "peak signal-to-noise ratio in dB, mean of per-image values"
    convention = "mean of per-image, per-user PSNR over RGB, peak 1, at most 100 dB (MSE floor 1e-10)"

    @classmethod
    def of_pooled(cls, mean_squared_error: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `ImageMetric`."""
        return psnr_from_mse_array(mean_squared_error)

    def measure(self, reference: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """See `ImageMetric`."""
        return psnr_from_mse(mse(reference, image))


class Ssim(ImageMetric):
    """SSIM of each image (Wang et al. 2004), the mean over its channels and over the windows that lie inside it.

    Libraries disagree at the border, and one changed its mind between two versions: with mirrored borders the number is
    some 0.001 off at 32x32. Windows inside the image alone are the original's choice, scikit-image's and TensorFlow's.
    The window is separable, so filtering is two products with a band matrix: some twenty times faster at 32x32 than a
    depthwise convolution on one thread.
    """

    name = "ssim"
    column = "ssim"
    label = "SSIM"
    higher_is_better = True
    summary = "structural similarity over RGB, mean of per-image values"
    convention = (
        "mean of per-image SSIM over RGB, 11x11 Gaussian window of sigma 1.5, K 0.01 and 0.03, data range 1, "
        "population covariance, windows inside the image alone"
    )
    WINDOW = 11
    SIGMA = 1.5
    C1 = 0.01**2
    C2 = 0.03**2
    min_side = WINDOW

    def measure(self, reference: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """See `ImageMetric`."""
        import torch

        # A variance here is the small difference of two large numbers: in single precision flat bright images were 4e-4
        # off, and above 1.
        x, y = reference.double(), image.double()
        rows, columns = (self._band(side).to(x) for side in x.shape[-2:])
        products = (x, y, x * x, y * y, x * y)
        mean_x, mean_y, xx, yy, xy = rows @ (torch.stack(products) @ columns.T)
        mean_xy, mean_xx, mean_yy = mean_x * mean_y, mean_x * mean_x, mean_y * mean_y
        luminance = (2 * mean_xy + self.C1) / (mean_xx + mean_yy + self.C1)
        structure = (2 * (xy - mean_xy) + self.C2) / (xx - mean_xx + yy - mean_yy + self.C2)
        found: torch.Tensor = (luminance * structure).flatten(1).mean(1).clamp_max(1).to(reference.dtype)
        return found

    def _band(self, side: int) -> torch.Tensor:
        """[side - 10, side]: row i holds the window's weights at columns i to i + 10."""
        import torch

        offsets = torch.arange(self.WINDOW, dtype=torch.float64) - self.WINDOW // 2
        weights = torch.exp(-offsets.square() / (2 * self.SIGMA**2))
        count = side - self.WINDOW + 1
        band = torch.zeros(count, side, dtype=torch.float64)
        rows = torch.arange(count)[:, None]
        band[rows, rows + torch.arange(self.WINDOW)] = weights / weights.sum()
        return band
