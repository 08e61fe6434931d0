"""Metrics with named conventions. Importing this package imports no network library; building a metric does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from linksim import assets
from linksim.errors import unknown
from linksim.metrics.base import ImageMetric, SetMetric
from linksim.metrics.fidelity import MSE_FLOOR, Psnr, Ssim, mse, psnr_from_mse, psnr_from_mse_array
from linksim.metrics.frechet import Fid, Kid, reference_features
from linksim.metrics.perceptual import LpipsAlex, LpipsVgg

if TYPE_CHECKING:
    import torch

__all__ = [
    "METRICS",
    "MSE_FLOOR",
    "Fid",
    "ImageMetric",
    "Kid",
    "LpipsAlex",
    "LpipsVgg",
    "Psnr",
    "SetMetric",
    "Ssim",
    "conventions",
    "make_metric",
    "mse",
    "psnr_from_mse",
    "psnr_from_mse_array",
    "reference_features",
    "require",
]

METRICS: dict[str, type[ImageMetric] | type[SetMetric]] = {
    metric.name: metric for metric in (Psnr, Ssim, LpipsVgg, LpipsAlex, Fid, Kid)
}


def make_metric(name: str, device: str | torch.device = "cpu") -> ImageMetric | SetMetric:
    """The metric of that name, its weights loaded.

    Raises:
        LinksimError: unknown name, or its weights are not installed or damaged.
    """
    return _find(name)(device)


def require(names: Iterable[str]) -> None:
    """Raises LinksimError where a name is unknown or the weights that it needs are not installed."""
    for name in names:
        asset = _find(name).asset
        if asset is not None:
            assets.path(asset)


def conventions() -> dict[str, str]:
    """Each metric's name and every choice that changes its number."""
    return {name: metric.convention for name, metric in METRICS.items()}


def _find(name: str) -> type[ImageMetric] | type[SetMetric]:
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[name]
