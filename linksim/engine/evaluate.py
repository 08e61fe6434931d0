"""One unit of a sweep, as a pure function; everything else in the engine arranges calls of it."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from linksim.cache import array_to_bytes, read_entry, write_entry
from linksim.data import Grouping, ImageSet
from linksim.engine.audit import allowed_power, audit_symbols, power_note
from linksim.engine.context import FIRST, Context, fact_name, features_path, open_data, setting_of
from linksim.engine.plan import Unit
from linksim.engine.variants import plug_ins
from linksim.errors import LinksimError
from linksim.link.config import SideInfo
from linksim.link.draws import KeyedDraws
from linksim.link.realisation import realise
from linksim.link.units import noise_variance
from linksim.metrics import ImageMetric, SetMetric, make_metric, mse
from linksim.refine.base import Steps, silent
from linksim.refine.behind import Refined
from linksim.schemes.base import Received, Reference, Scheme, System, check_images

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
        if str(value) != known.get(fact_name(variant, channel, rho, str(key)), str(value)):
            raise LinksimError(f"{key} of {variant.label} changed since the sweep began: run the same command again")
    found: System = system
    return found


@functools.lru_cache(maxsize=16)
def _metric(name: str, device: str) -> ImageMetric | SetMetric:
    return make_metric(name, device)


@contextmanager
def one_thread() -> Iterator[None]:
    """Units run on one thread each on a CPU: the same sums in the same order with any number of workers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def _checked(received: object, shape: torch.Size, system: System) -> Received:
    def refuse(what: str) -> LinksimError:
        return LinksimError(f"scheme {system.name!r} returned {what}")

    if not isinstance(received, Received):
        raise refuse(f"{type(received).__name__}: return linksim.Received with a tensor of images")
    check_images(received.images, shape, f"scheme {system.name!r}")
    lost = received.lost
    if lost is not None and not isinstance(lost, torch.Tensor):
        raise refuse(f"`lost` of type {type(lost).__name__}: return a tensor of bool {list(shape[:2])}")
    if lost is not None and (lost.shape != shape[:2] or lost.dtype != torch.bool):
        raise refuse(f"`lost` of shape {list(lost.shape)} and type {lost.dtype}, bool {list(shape[:2])} is wanted")
    counts = (received.blocks, received.block_errors)
    if not all(isinstance(count, int) for count in counts) or not 0 <= received.block_errors <= received.blocks:
        raise refuse(
            f"{received.block_errors} errors in {received.blocks} blocks: give whole numbers, errors at most blocks"
        )
    clusters = received.block_clusters
    if clusters is not None and not _add_up(clusters, counts):
        raise refuse(
            f"`block_clusters` that do not add up to {received.block_errors} errors in {received.blocks} blocks: give "
            "one (blocks, block errors) for each run of image groups, in whole numbers"
        )
    return _copy(received)


def _copy(received: Received) -> Received:
    """The same, which no plug-in can reach any more."""
    lost = received.lost.clone() if received.lost is not None else None
    clusters = None if received.block_clusters is None else tuple(received.block_clusters)
    return replace(received, images=received.images.clone(), lost=lost, block_clusters=clusters)


def _add_up(clusters: object, counts: tuple[int, int]) -> bool:
    """Whether `clusters` are pairs of (blocks, block errors) in whole numbers that sum to `counts`."""
    try:
        pairs = [(blocks, errors) for blocks, errors in clusters]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return False
    whole = all(isinstance(count, int) for pair in pairs for count in pair)
    return (
        whole
        and all(0 <= errors <= blocks for blocks, errors in pairs)
        and counts
        == (
            sum(blocks for blocks, _ in pairs),
            sum(errors for _, errors in pairs),
        )
    )


@dataclass(frozen=True)
class Simulated:
    """One unit as it was sent and received.

    Args:
        images: what was sent, float32 [B, N, C, H, W] in [0, 1].
        stages: what each stage shows, the first before the refined.
        tx_power: as measured; None for a bound.
        allowed_power: what the link allows in its place; None for a bound.
        channel_uses: of the system, for one group.
        user_uses: in which one user sends.
        split: shares of the power.
        power_note: what the row must say of the power.
        refinement: `steps`, evaluations of the refiner's network for an image, and what else the refiner says of
            itself; empty without a refiner.
        seconds: by stage of the work.
    """

    images: torch.Tensor
    stages: dict[str, Received]
    tx_power: float | None
    allowed_power: float | None
    channel_uses: int
    user_uses: int
    split: str
    power_note: str
    refinement: dict[str, float]
    seconds: dict[str, float]


def simulate(context: Context, unit: Unit, report: Steps = silent) -> Simulated:
    """Sends the images of one unit and receives them.

    Args:
        report: told the steps of a refinement, done and in all.

    Raises:
        LinksimError: the audit stopped the scheme, or it broke its contract. What a plug-in raises passes through.
    """
    config, point, device = context.config, unit.point, context.device
    data = dataset_of(context)
    groups = range(unit.start, unit.stop)
    clock = _Clock()
    indices = Grouping(len(data), config.users).indices(np.arange(unit.start, unit.stop))
    pixels = data.images[indices.ravel()].reshape(*indices.shape, *data.image_shape)
    images = torch.from_numpy(np.ascontiguousarray(pixels)).to(device).float() / 255
    link = config.link(point.channel)
    system = _system(context, (point.variant, point.channel, point.rho))
    if not isinstance(system, Scheme | Reference):
        raise LinksimError(f"scheme {system.name!r} is neither a Scheme nor a Reference")
    channel = realise(link, KeyedDraws(config.seed, groups, device), system.symbols_per_user, system.access)
    snr_db = torch.full((len(groups),), point.snr_db, device=device)
    noise_var = torch.full_like(snr_db, noise_variance(point.snr_db))
    estimate = channel.estimate(link.csi_error_var)
    draws = (config.seed, tuple(groups))

    def told() -> SideInfo:
        """Side information for one call. What a plug-in is handed is a copy: whatever it does to it stays its own."""
        return SideInfo(snr_db.clone(), noise_var.clone(), estimate.clone(), draws)

    clock.lap("load")
    note, split = "", ""
    if isinstance(system, Reference):
        received = _checked(system.evaluate(images.clone(), told()), images.shape, system)
        tx_power, allowed = None, None
        uses = user_uses = system.setting.channel_uses
        clock.lap("reference")
    else:
        sent = system.transmit(images.clone(), told())
        if not isinstance(sent, torch.Tensor):
            raise LinksimError(f"scheme {system.name!r} sent a {type(sent).__name__} in place of a tensor of symbols")
        # What is audited is what is sent: the scheme may still hold its own tensor.
        symbols = sent.clone()
        clock.lap("transmit")
        tx_power, uses = audit_symbols(system, symbols, len(groups))
        if symbols.shape[-1] > channel.h.shape[-1] > 1:
            raise LinksimError(
                f"scheme {system.name!r} sent {symbols.shape[-1]} symbols a user, its symbols_per_user is "
                f"{channel.h.shape[-1]}: over a channel that changes from symbol to symbol the latter counts"
            )
        allowed = allowed_power(system)
        user_uses = symbols.shape[-1]
        note = power_note(system)
        if system.access == "noma":
            split = "/".join(f"{share:.4g}" for share in system.split)
        signal = channel.through(symbols, noise_var)
        clock.lap("channel")
        received = _checked(system.receive(signal, told()), images.shape, system)
        clock.lap("receive")
    stages, refinement = {FIRST: received}, {}
    if isinstance(system, Refined):
        system.refiner.load()
        clock.lap("load_refiner")
        stages[system.refiner.name] = _checked(system.refine(_copy(received), told(), report), images.shape, system)
        steps = system.refiner.evaluations(point.snr_db)
        if not isinstance(steps, int) or steps < 0:
            raise LinksimError(
                f"refiner {system.refiner.name!r}: evaluations are counted in whole numbers, not {steps!r}"
            )
        refinement = {"steps": steps, **system.refiner.facts(point.snr_db)}
        clock.lap("refine")
    return Simulated(images, stages, tx_power, allowed, uses, user_uses, split, note, refinement, clock.laps)


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
        done = simulate(context, unit, report)
        # A scheme that changed the default type must not change the metrics.
        torch.set_default_dtype(torch.float32)
        clock, columns = _Clock(), {}
        for stage, shown in done.stages.items():
            columns[stage] = _measure(context, done.images, shown)
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
    """Per-image columns of one stage; features of set metrics go to files of their own, named by `features`."""
    batch = images.shape[:2]
    reference = images.flatten(0, 1)
    shown = received.images.to(reference).clamp(0, 1).flatten(0, 1)
    if context.config.pixels == "uint8":
        shown = (shown * 255).round() / 255
    columns: dict[str, Any] = {"mse": mse(reference, shown).double().reshape(batch).tolist()}
    for name in context.config.metrics:
        metric = _metric(name, context.device)
        if isinstance(metric, ImageMetric):
            columns[metric.column] = metric(reference.clone(), shown.clone()).double().reshape(batch).tolist()
        else:
            columns["features"] = hashlib.sha256(shown.cpu().numpy().tobytes()).hexdigest()[:32]
            path = features_path(context.features_dir, columns["features"], metric.features_name)
            if read_entry(path) is None:
                write_entry(path, array_to_bytes(np.asarray(metric.features(shown.clone()), np.float32)))
    return columns


class _Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
