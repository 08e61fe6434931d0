"""Example images: the original and what every scheme shows of it (KDD paper, figures 11 and 12)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from linksim.data.training import name_of
from linksim.engine import provenance
from linksim.engine.config import SweepConfig
from linksim.engine.context import FIRST, Context
from linksim.engine.evaluate import simulate
from linksim.engine.plan import Point, Unit
from linksim.engine.sweep import Prepared, prepare
from linksim.engine.transfer import one_thread
from linksim.engine.variants import find
from linksim.engine.workers import failure
from linksim.errors import LinksimError, NoWeights
from linksim.metrics import ImageMetric, make_metric
from linksim.refine.behind import Refined

#: Groups of a gallery; a figure of more has rows that nobody sees, and takes minutes to draw.
MOST_GROUPS = 64


#: Label of what was sent.
ORIGINAL = "original"


@dataclass(frozen=True)
class Shown:
    """What one scheme shows of the chosen images.

    Args:
        label: the variant; of a refined one the last stage is shown.
        images: uint8 [M, H, W, C].
        values: column of a metric -> [M].
    """

    label: str
    images: NDArray[np.uint8]
    values: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Gallery:
    """What came of some image groups.

    Args:
        columns: for each channel, the original and what every scheme shows.
        titles: for each channel, what was sent how.
        images: names of the images, [M].
        run: provenance, as `run.json` has it.
    """

    columns: dict[str, list[Shown]]
    titles: dict[str, str]
    images: list[str]
    run: dict[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Each image's metrics, one row an image, scheme and channel."""
        return [
            {
                "channel": channel,
                "image": name,
                "shown": shown.label,
                **{column: float(values[index]) for column, values in shown.values.items()},
            }
            for channel, columns in self.columns.items()
            for shown in columns
            for index, name in enumerate(self.images)
        ]


def simulate_gallery(
    config: SweepConfig,
    groups: Sequence[int],
    *,
    device: str = "cpu",
    missing: Callable[[str, str], None] | None = None,
    report: Callable[[str], None] | None = None,
) -> Gallery:
    """Sends some image groups through every scheme.

    Args:
        config: schemes, one SNR, one rho, channels; its metrics, those of single images, are measured.
        groups: image groups by number.
        device: torch device.
        missing: told a scheme that has no weights, and why; it is left out.
        report: told what is at work.

    Raises:
        LinksimError: several SNRs or rho, groups that are not there, nothing to show.
    """
    if len(config.snr) != 1 or len(config.rhos) != 1:
        raise LinksimError("a gallery is of one SNR and one rho: --snr 0 --rho 1/6")
    ready: dict[str, Prepared] = {}
    for text in config.scheme:
        try:
            ready[text] = prepare(config.model_copy(update={"scheme": (text,)}), device)
        except NoWeights as error:
            if missing is not None:
                missing(text, str(error))
    if not ready:
        raise LinksimError("no scheme of this gallery has its weights: see `linksim list weights`")
    available = next(iter(ready.values())).plan.available
    if len(groups) > MOST_GROUPS or len(set(groups)) < len(groups):
        raise LinksimError(f"--groups: {MOST_GROUPS} groups at the most, and each once")
    if wrong := [group for group in groups if not 0 <= group < available]:
        raise LinksimError(f"--groups: {config.dataset} has groups 0 to {available - 1}, not {wrong[0]}")
    shown: dict[str, list[Shown]] = {}
    identity: dict[str, Any] = {}
    for channel in config.channel:
        columns: list[Shown] = []
        for prepared in ready.values():
            identity |= prepared.identity
            columns += _columns(prepared, channel, groups, device, report, known=bool(columns))
        shown[channel] = columns
    name, how = name_of(config.dataset), f"{config.snr[0]:g} dB, rho {config.rhos[0]}, power '{config.power}'"
    titles = {channel: f"{name}, {channel}, {how}" for channel in config.channel}
    data = next(iter(ready.values())).data
    facts = {"dataset": config.dataset, "sha256": data.fingerprint, "citation": data.citation}
    identity |= {"scheme": list(config.scheme), "groups": list(groups)}
    run = provenance.make_run(config, identity, provenance.command_line(), data=facts, groups=list(groups))
    run["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    names = [f"group {group}, user {user}" for group in groups for user in range(config.users)]
    return Gallery(shown, titles, names, run)


def _columns(
    prepared: Prepared,
    channel: str,
    groups: Sequence[int],
    device: str,
    report: Callable[[str], None] | None,
    known: bool,
) -> list[Shown]:
    """The original, unless it is `known`, and the last stage of one scheme."""
    config = prepared.config
    (variant,) = config.variants
    metrics = [metric for metric in (make_metric(name, device) for name in config.metrics)
               if isinstance(metric, ImageMetric)]  # fmt: skip
    sweep = provenance.identity_hash(prepared.identity)
    context = Context(config, prepared.data.fingerprint, sweep, device, Path())
    point = Point(variant, channel, config.rhos[0], config.snr[0])
    refined = issubclass(find(variant.name), Refined)
    sent: list[torch.Tensor] = []
    parts: dict[str, list[torch.Tensor]] = {}
    for group in groups:
        if report is not None:
            report(f"{variant.label}, {channel}, group {group}")
        # All groups that share a code block with it, as in a sweep.
        multiple = prepared.plan.multiple
        start = group // multiple * multiple
        unit = Unit(point, start, min(start + multiple, prepared.plan.available))
        try:
            with one_thread(), torch.inference_mode():
                images, done = simulate(context, unit)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise failure(unit, error) from error
        sent.append(images[group - start])
        for stage, received in done.stages.items():
            if stage != FIRST or not refined:
                shown = received.images[group - start].clamp(0, 1)
                parts.setdefault(stage, []).append((shown * 255).round() / 255 if config.pixels == "uint8" else shown)
    original = torch.cat(sent)
    found = [] if known else [Shown(ORIGINAL, _pixels(original), {})]
    for images in (torch.cat(part) for part in parts.values()):
        values = {metric.column: metric(original, images).double().cpu().numpy() for metric in metrics}
        found.append(Shown(variant.label, _pixels(images), values))
    return found


def _pixels(images: Any) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return found
