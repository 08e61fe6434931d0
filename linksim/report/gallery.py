"""Grids of example images: the original and what every scheme shows of it (KDD paper, figures 11 and 12)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from linksim.engine import provenance
from linksim.engine.context import FIRST, Context
from linksim.engine.plan import Point, Unit
from linksim.engine.sweep import Prepared, prepare
from linksim.errors import LinksimError, NoWeights
from linksim.files import write_atomic
from linksim.link.channels import file_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from linksim.engine.config import SweepConfig

#: Inches of an image.
_SIDE = 0.95

_KINDS = ("png", "pdf")

#: Groups of a gallery; a figure of more has rows that nobody sees, and takes minutes to draw.
MOST_GROUPS = 64


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


def gallery(
    config: SweepConfig,
    groups: Sequence[int],
    folder: Path,
    *,
    device: str = "cpu",
    missing: Callable[[str, str], None] | None = None,
    report: Callable[[str], None] | None = None,
) -> list[Path]:
    """Sends some image groups through every scheme and draws what comes, with each image's metrics under it.

    Args:
        config: schemes, one SNR, one rho, channels; its metrics, those of single images, are written under the images.
        groups: image groups by number.
        folder: for `gallery_<channel>.<format>`, `gallery.csv` and `gallery.json`; those of an earlier gallery go.
        device: torch device.
        missing: told a scheme that has no weights, and why; it is left out.
        report: told what is at work.

    Returns:
        The figures written.

    Raises:
        LinksimError: several SNRs or rho, groups that are not there, nothing to show.
    """
    import pandas as pd

    from linksim.report.figures import save

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
    rows: list[dict[str, Any]] = []
    drawn: dict[str, Figure] = {}
    identity: dict[str, Any] = {}
    for channel in config.channel:
        columns: list[Shown] = []
        for prepared in ready.values():
            identity |= prepared.identity
            columns += _columns(prepared, channel, groups, device, report, known=bool(columns))
        names = [f"group {group}, user {user}" for group in groups for user in range(config.users)]
        for shown in columns:
            for index, name in enumerate(names):
                values = {column: float(row[index]) for column, row in shown.values.items()}
                rows.append({"channel": channel, "image": name, "shown": shown.label, **values})
        title = f"{config.dataset}, {channel}, {config.snr[0]:g} dB, rho {config.rhos[0]}, power '{config.power}'"
        drawn[channel] = _figure(columns, title)
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "gallery.json"
    for name in _figures(record):
        (folder / name).unlink(missing_ok=True)
    written = [
        path
        for channel, figure in drawn.items()
        for path in save(figure, folder / f"gallery_{file_name(channel)}", _KINDS)
    ]
    write_atomic(folder / "gallery.csv", pd.DataFrame(rows).to_csv(index=False).encode())
    data = next(iter(ready.values())).data
    facts = {"dataset": config.dataset, "sha256": data.fingerprint, "citation": data.citation}
    identity |= {"scheme": list(config.scheme), "groups": list(groups)}
    run = provenance.make_run(
        config, identity, provenance.command_line(), data=facts, groups=list(groups),
        figures=[path.name for path in written],
    )  # fmt: skip
    run["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_atomic(record, (json.dumps(run, indent=2) + "\n").encode())
    return written


def _figures(record: Path) -> list[str]:
    """Names of the figures that an earlier gallery wrote."""
    try:
        names = json.loads(record.read_text(encoding="utf-8"))["figures"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return []
    words = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return [name for name in words if re.fullmatch(r"gallery_[A-Za-z0-9._-]+", name)]


def _columns(
    prepared: Prepared,
    channel: str,
    groups: Sequence[int],
    device: str,
    report: Callable[[str], None] | None,
    known: bool,
) -> list[Shown]:
    """The original, unless it is `known`, and the last stage of one scheme."""
    import torch

    from linksim.engine.evaluate import one_thread, simulate
    from linksim.engine.workers import failure
    from linksim.metrics import ImageMetric, make_metric
    from linksim.schemes.refined import Refined
    from linksim.schemes.registry import find

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
        unit = Unit(point, group, group + 1)
        try:
            with one_thread(), torch.inference_mode():
                done = simulate(context, unit)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise failure(unit, error) from error
        sent.append(done.images.flatten(0, 1))
        for stage, received in done.stages.items():
            if stage != FIRST or not refined:
                images = received.images.flatten(0, 1).clamp(0, 1)
                parts.setdefault(stage, []).append((images * 255).round() / 255 if config.pixels == "uint8" else images)
    original = torch.cat(sent)
    found = [] if known else [Shown("original", _pixels(original), {})]
    for images in (torch.cat(part) for part in parts.values()):
        values = {metric.column: metric(original, images).double().cpu().numpy() for metric in metrics}
        found.append(Shown(variant.label, _pixels(images), values))
    return found


def _pixels(images: Any) -> NDArray[np.uint8]:
    return (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def _figure(columns: Sequence[Shown], title: str) -> Figure:
    """A row an image, a column a scheme; under each image its metrics."""
    from matplotlib.figure import Figure

    rows = len(columns[0].images)
    lines = max(len(shown.values) for shown in columns)
    figure = Figure(figsize=(_SIDE * len(columns) + 0.2, (_SIDE + 0.1 * lines) * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, len(columns), squeeze=False)
    for place, shown in enumerate(columns):
        for row in range(rows):
            panel = grid[row][place]
            panel.imshow(shown.images[row], interpolation="nearest")
            panel.set_xticks([])
            panel.set_yticks([])
            panel.set_xlabel("\n".join(_value(name, column[row]) for name, column in shown.values.items()), fontsize=5)
        grid[0][place].set_title("\n".join(shown.label.replace(":", "\n").split("\n")), fontsize=5.5)
    figure.suptitle(title, fontsize=6)
    return figure


def _value(column: str, value: float) -> str:
    name = {"psnr_db": "PSNR", "ssim": "SSIM"}.get(column, column.replace("lpips_", "LPIPS "))
    return f"{name} {value:.2f} dB" if column.endswith("_db") else f"{name} {value:.3f}"
