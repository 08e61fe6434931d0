"""One unit of a sweep, as a pure function; everything else in the engine arranges calls of it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from linksim.cache import array_from_bytes, array_to_bytes, read_entry, write_entry
from linksim.data import Grouping, ImageSet
from linksim.engine.context import FIRST, Context, columns_path, fact_name, features_path, open_data, setting_of
from linksim.engine.plan import Unit
from linksim.engine.transfer import Clock, Transferred, one_thread, transfer
from linksim.engine.variants import plug_ins
from linksim.errors import LinksimError
from linksim.metrics import METRICS, ImageMetric, SetMetric, mse
from linksim.refine.base import Steps, silent
from linksim.schemes.base import Received, System

#: Data sets that came to this process from another machine, by their fingerprint.
DELIVERED: dict[str, ImageSet] = {}


@functools.lru_cache(maxsize=2)
def dataset_of(context: Context) -> ImageSet:
    """The data set of a sweep. Raises LinksimError where it is no longer the one that the sweep began with."""
    config = context.config
    if context.data_hash in DELIVERED:
        return DELIVERED[context.data_hash]
    data = open_data(config, context.base)
    if data.fingerprint != context.data_hash:
        raise LinksimError(f"{config.dataset} has changed since the sweep began: run the same command again")
    return data


@functools.lru_cache(maxsize=32)
def _system(context: Context, point_but_snr: tuple[Any, ...]) -> System:
    variant, channel, rho = point_but_snr
    system = variant.build(setting_of(context.config, dataset_of(context), channel, rho, context.device))
    known = dict(context.facts)
    for key, value in (system.provenance() | plug_ins(type(system))).items():
        if str(value) != known.get(fact_name(variant.label, channel, rho, str(key)), str(value)):
            raise LinksimError(f"{key} of {variant.label} changed since the sweep began: run the same command again")
    found: System = system
    return found


@functools.lru_cache(maxsize=16)
def _metric(kind: type[ImageMetric] | type[SetMetric], device: str) -> ImageMetric | SetMetric:
    # By the class: one that is registered again has the name of the one before.
    return kind(device)


def simulate(context: Context, unit: Unit, report: Steps = silent) -> tuple[torch.Tensor, Transferred]:
    """Sends the images of one unit, float32 [B, N, C, H, W] in [0, 1], and receives them.

    Args:
        report: told the steps of a refinement, done and in all.

    Raises:
        LinksimError: see `transfer`.
    """
    config, point = context.config, unit.point
    data = dataset_of(context)
    clock = Clock()
    groups = range(unit.start, unit.stop)
    indices = Grouping(len(data), config.users).indices(np.arange(unit.start, unit.stop))
    pixels = data.images[indices.ravel()].reshape(*indices.shape, *data.image_shape)
    images = torch.from_numpy(np.ascontiguousarray(pixels)).to(context.device).float() / 255
    system = _system(context, (point.variant, point.channel, point.rho))
    clock.lap("load")
    done = transfer(system, images, [point.snr_db] * len(groups), config.seed, groups, report)
    return images, replace(done, seconds={**done.seconds, "load": done.seconds["load"] + clock.laps["load"]})


def evaluate_unit(context: Context, unit: Unit, report: Steps = silent) -> dict[str, Any]:
    """Simulates one unit and measures it.

    Args:
        report: told the steps of a refinement, done and in all.

    Returns:
        A record for the journal: the unit's key; per-image columns of each stage, each [groups, users] nested lists;
        the audit's measures; block counts; seconds by stage of the work.

    Raises:
        LinksimError: see `simulate`.
    """
    with one_thread(), torch.inference_mode():
        images, done = simulate(context, unit, report)
        # A scheme that changed the default type must not change the metrics.
        torch.set_default_dtype(torch.float32)
        clock, columns = Clock(), {}
        for stage, shown in done.stages.items():
            columns[stage] = _measure(context, images, shown)
            clock.lap("metrics" if stage == FIRST else "refined_metrics")
    received = done.stages[FIRST]
    return {
        "sweep": context.sweep,
        "point": unit.point.key,
        "start": unit.start,
        "stop": unit.stop,
        "stages": columns,
        "refinement": done.refinement,
        "lost": received.lost.tolist() if received.lost is not None else None,
        "blocks": received.blocks,
        "block_errors": received.block_errors,
        "block_clusters": None if received.block_clusters is None else [list(pair) for pair in received.block_clusters],
        "tx_power": done.tx_power,
        "allowed_power": done.allowed_power,
        "channel_uses": done.channel_uses,
        "user_uses": done.user_uses,
        "split": done.split,
        "power_note": done.power_note,
        "seconds": {**done.seconds, **clock.laps},
    }


def _measure(context: Context, images: torch.Tensor, received: Received) -> dict[str, Any]:
    """Per-image columns of one stage; features of set metrics go to files of their own, which `features` names."""
    batch = images.shape[:2]
    reference = images.flatten(0, 1)
    shown = received.images.to(reference).clamp(0, 1).flatten(0, 1)
    if context.config.pixels == "uint8":
        shown = (shown * 255).round() / 255
    columns: dict[str, Any] = {"mse": mse(reference, shown).double().reshape(batch).tolist()}
    metrics = [_metric(METRICS.find(name), context.device) for name in context.config.metrics]
    of_images = [metric for metric in metrics if isinstance(metric, ImageMetric)]
    of_sets = [metric for metric in metrics if isinstance(metric, SetMetric)]
    if of_sets:
        looks = _digest(shown)
        files = {of_set.name: features_path(context.features_dir, looks, of_set) for of_set in of_sets}
        columns["features"] = {name: path.name for name, path in files.items()}
        for of_set in of_sets:
            if read_entry(path := files[of_set.name]) is None:
                write_entry(path, array_to_bytes(np.asarray(of_set.features(shown.clone()), np.float32)))
        # Beside what takes longest: a first stage that stands before several refiners is measured once.
        kept = columns_path(context.features_dir, _digest(reference), looks, of_images)
        if (known := read_entry(kept)) is None:
            known = array_to_bytes(_columns(of_images, reference, shown))
            write_entry(kept, known)
        values = array_from_bytes(known)
    else:
        values = _columns(of_images, reference, shown)
    for metric, column in zip(of_images, values, strict=True):
        columns[metric.column] = column.reshape(batch).tolist()
    return columns


def _columns(metrics: Sequence[ImageMetric], reference: torch.Tensor, shown: torch.Tensor) -> NDArray[np.float64]:
    """Values of each metric for each image, [metrics, images]."""
    found = [metric(reference.clone(), shown.clone()).double().cpu().numpy() for metric in metrics]
    return np.array(found).reshape(len(found), len(shown))


def _digest(images: torch.Tensor) -> str:
    return hashlib.sha256(images.cpu().numpy().tobytes()).hexdigest()[:32]
