"""Metrics with named conventions. Importing this package imports no network library; building a metric does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from linksim import assets
from linksim.columns import COLUMNS, SUFFIXES
from linksim.errors import LinksimError, shown
from linksim.metrics.base import Column, ImageMetric, Metric, SetMetric
from linksim.metrics.fidelity import MSE_FLOOR, Psnr, Ssim, mse, psnr_from_mse, psnr_from_mse_array
from linksim.metrics.frechet import Fid, Kid, reference_features
from linksim.metrics.perceptual import LPIPS, LpipsAlex, LpipsVgg
from linksim.registry import Registry

if TYPE_CHECKING:
    import torch

__all__ = [
    "LPIPS",
    "METRICS",
    "MSE_FLOOR",
    "Column",
    "Fid",
    "ImageMetric",
    "Kid",
    "LpipsAlex",
    "LpipsVgg",
    "Psnr",
    "SetMetric",
    "Ssim",
    "columns",
    "conventions",
    "make_metric",
    "mse",
    "own_columns",
    "psnr_from_mse",
    "psnr_from_mse_array",
    "reference_features",
    "register",
    "require",
]


def _check(metric: type[ImageMetric] | type[SetMetric], name: str) -> None:
    """Raises LinksimError for a class that says too little of itself, or whose column is another's."""
    if not issubclass(metric, ImageMetric | SetMetric):
        raise LinksimError(f"metric {name!r} is neither an ImageMetric nor a SetMetric")
    for attribute in ("column", "summary", "convention"):
        if not isinstance(getattr(metric, attribute, None), str):
            raise LinksimError(f"metric {name!r} has no {attribute}: give it one")
    if not isinstance(getattr(metric, "higher_is_better", None), bool):
        raise LinksimError(f"metric {name!r} has no higher_is_better: say True or False")
    if not re.fullmatch("[a-z][a-z0-9_]*", metric.column) or metric.column.endswith(SUFFIXES):
        raise LinksimError(f"metric {name!r} has column {shown(metric.column)}: use a-z, digits and '_'")
    if metric.column in COLUMNS | own_columns():
        raise LinksimError(f"metric {name!r} has column {metric.column!r}, which every table has: rename it")


#: Every metric by name; plug-ins by the entry-point group `linksim.metrics` or `register_metric`.
METRICS: Registry[ImageMetric | SetMetric] = Registry(
    "metric",
    "linksim.metrics",
    lambda: Metric,
    "ImageMetric or SetMetric",
    _check,
    builtin={metric.name: metric for metric in (Psnr, Ssim, LpipsVgg, LpipsAlex, Fid, Kid)},
)


def register(metric: type[ImageMetric] | type[SetMetric]) -> type[ImageMetric] | type[SetMetric]:
    """Adds a metric for this process; installed plug-ins use the entry-point group `linksim.metrics`.

    Worker processes cannot see it: run it with one worker. Raises LinksimError when linksim or an
    installed plug-in has the name.

    Example:
        >>> class Own(Psnr):
        ...     name, column, label = "own", "own_db", "Own metric (dB)"
        >>> register(Own).name in METRICS
        True
        >>> METRICS.unregister("own")
    """
    return METRICS.register(metric)


def own_columns() -> frozenset[str]:
    """Names of the columns of linksim's own metrics."""
    return frozenset(column.name for metric in METRICS.builtin.values() for column in metric.columns())


def columns() -> dict[str, Column]:
    """Every column of every metric that is known here, by its name, in the order of `linksim list metrics`.

    A plug-in that cannot be loaded has none.

    Example:
        >>> columns()["kid"].label
        'KID'
    """
    return {column.name: column for metric in _loaded() for column in metric.columns()}


def image_metrics() -> list[type[ImageMetric]]:
    """The metrics of single images that are known here; a plug-in that cannot be loaded is none.

    Example:
        >>> [metric.name for metric in image_metrics() if metric.pooled]
        ['psnr']
    """
    return [metric for metric in _loaded() if issubclass(metric, ImageMetric)]


def _loaded() -> Iterator[type[ImageMetric | SetMetric]]:
    for name in METRICS.names():
        with suppress(LinksimError):
            yield METRICS.find(name)


def make_metric(name: str, device: str | torch.device = "cpu") -> ImageMetric | SetMetric:
    """The metric of that name, its weights loaded: a function of images, as sweeps have it.

    Args:
        name: see `linksim list metrics`.
        device: torch device.

    Raises:
        LinksimError: unknown name, or its weights are not installed or damaged.

    Example:
        >>> import torch
        >>> psnr = make_metric("psnr")
        >>> psnr(torch.zeros(2, 3, 32, 32), torch.full((2, 3, 32, 32), 0.1))
        tensor([20., 20.])
    """
    return METRICS.find(name)(device)


def require(names: Iterable[str]) -> None:
    """Raises LinksimError where a name is unknown, two write one column, or weights are not installed."""
    writers: dict[str, str] = {}
    for name in names:
        asset, column = METRICS.find(name).asset, METRICS.find(name).column
        first = writers.setdefault(column, name)
        if first != name:
            raise LinksimError(f"metrics {first!r} and {name!r} both write the column {column!r}: take one of them")
        if asset is not None:
            assets.path(asset)


def conventions(names: Iterable[str] = ()) -> dict[str, str]:
    """Every choice that changes a metric's number, by its name: linksim's own, and those of `names`."""
    return {name: METRICS.find(name).convention for name in dict.fromkeys([*METRICS.builtin, *names])}
