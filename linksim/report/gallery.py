"""Grids of example images, with each image's metrics under it."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from linksim.engine.gallery import ORIGINAL, Gallery, Shown
from linksim.files import write_atomic
from linksim.link.channels import file_name
from linksim.metrics import columns
from linksim.report.figures import save
from linksim.report.names import title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Inches of an image.
_SIDE = 0.95

#: Letters of a name that stand side by side above an image.
_LETTERS = 20

_KINDS = ("png", "pdf")


def write_gallery(gallery: Gallery, folder: Path) -> list[Path]:
    """Draws a gallery and writes what it shows.

    Args:
        gallery: what came of the images.
        folder: for `gallery_<channel>.<format>`, `gallery.csv` and `gallery.json`; those of an earlier gallery go.

    Returns:
        The figures written.
    """
    drawn = {
        channel: _figure(shown, gallery.images, gallery.titles[channel]) for channel, shown in gallery.columns.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "gallery.json"
    for name in _figures(record):
        (folder / name).unlink(missing_ok=True)
    written = [
        path
        for channel, figure in drawn.items()
        for path in save(figure, folder / f"gallery_{file_name(channel)}", _KINDS)
    ]
    write_atomic(folder / "gallery.csv", pd.DataFrame(gallery.rows).to_csv(index=False).encode())
    run = {**gallery.run, "figures": [path.name for path in written]}
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


def _figure(shown_by: Sequence[Shown], images: Sequence[str], words: str) -> Figure:
    """A row an image, named at its left, a column a scheme; under each image its metrics."""
    from matplotlib.figure import Figure

    rows = len(shown_by[0].images)
    lines = max(len(shown.values) for shown in shown_by)
    figure = Figure(figsize=(_SIDE * len(shown_by) + 0.2, (_SIDE + 0.1 * lines) * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, len(shown_by), squeeze=False)
    for place, shown in enumerate(shown_by):
        for row in range(rows):
            panel = grid[row][place]
            panel.imshow(shown.images[row], interpolation="nearest")
            panel.set_xticks([])
            panel.set_yticks([])
            panel.set_xlabel("\n".join(_value(name, column[row]) for name, column in shown.values.items()), fontsize=5)
        name = "Original" if shown.label == ORIGINAL else title(shown.label)
        grid[0][place].set_title(textwrap.fill(name, _LETTERS), fontsize=5.5)
    for row, name in enumerate(images):
        grid[row][0].set_ylabel(name, fontsize=5.5)
    figure.suptitle(words, fontsize=6)
    return figure


def _value(column: str, value: float) -> str:
    label, unit = columns()[column].label, " dB"
    bare = label.removesuffix(f" ({unit.strip()})")
    return f"{bare} {value:.2f}{unit}" if bare != label else f"{label} {value:.3f}"
