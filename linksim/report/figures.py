"""Paper-style curves from a table: a figure for each metric and channel, a panel for each bandwidth ratio."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from linksim.engine.audit import TOO_LITTLE
from linksim.engine.context import FIRST
from linksim.errors import LinksimError, unknown
from linksim.files import write_atomic
from linksim.link.channels import file_name
from linksim.link.units import parse_rho
from linksim.metrics import columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Width of one column of a two-column IEEE page, inches.
COLUMN_WIDTH = 3.5

BLER = "bler"

#: Dash and gap of a reference's line in points; shifted against the one before, two that coincide both show.
_DASH = 4

_FIRST_STAGE = ", first stage"

#: That everyone can tell apart, seaborn's `colorblind`; an eleventh curve differs from the first in its marker.
_COLOURS = [
    "#0173B2", "#DE8F05", "#029E73", "#D55E00", "#CC78BC", "#CA9161", "#FBAFE4", "#949494", "#ECE133", "#56B4E9",
]  # fmt: skip

_MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p", "h", "d"]


def axes() -> dict[str, str]:
    """Columns that get a figure, with their axis label: those of every metric, and the block error rate.

    Example:
        >>> axes()["bler"]
        'Block error rate'
    """
    return {**{name: column.label for name, column in columns().items()}, BLER: "Block error rate"}


def draw(table: pd.DataFrame, folder: Path, formats: tuple[str, ...] = ("png", "pdf")) -> list[Path]:
    """Draws every metric of `table` into `folder`.

    Args:
        table: one row a curve point, as `linksim.load` gives it.
        folder: where `<metric>_<channel>.<format>` go.

    Returns:
        The files written.

    Raises:
        LinksimError: rows of the two power conventions, of several data sets or of several numbers of users: they never
            share a plot.
    """
    for column in ("power", "dataset", "users"):
        if table[column].nunique() > 1:
            values = ", ".join(map(str, table[column].unique()))
            raise LinksimError(f"curves of different {column} ({values}) never share a plot: plot them apart")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    table = table[~_shown_twice(table)]
    for channel, rows in table.groupby("channel", sort=False):
        for column in axes():
            if column in rows and rows[column].notna().any() and not (column == BLER and rows[column].max() == 0):
                written += save(curves(rows, column), folder / f"{column}_{file_name(str(channel))}", formats)
    return written


def _shown_twice(table: pd.DataFrame) -> pd.Series:
    """First stages behind a refiner whose curve is there already: that of the scheme without the refiner."""
    first = table["stage"] == FIRST
    behind = first & table["variant"].isin(set(table["variant"][~first]))
    place = ["channel", "rho", "snr_db"]
    alone = table[first & ~behind]
    known = (
        set(zip(*(alone[key] for key in place), alone["psnr_db"].round(6), strict=True)) if "psnr_db" in table else ()
    )
    same = [
        (*point, round(psnr, 6)) in known
        for *point, psnr in table.assign(psnr_db=table.get("psnr_db", 0.0))[[*place, "psnr_db"]].itertuples(index=False)
    ]
    # A curve is left out as a whole or not at all.
    whole = pd.Series(same, index=table.index).where(behind, True)
    return behind & whole.groupby([table["variant"], table["channel"], table["rho"]]).transform("all")


def curves(rows: pd.DataFrame, column: str) -> Figure:
    """One metric over the SNR, a panel for each bandwidth ratio; references dashed. At one SNR alone, side by side."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = _labelled(rows)
    rhos = list(dict.fromkeys(rows["rho"]))
    labels = list(dict.fromkeys(rows["_label"]))
    snrs = rows["snr_db"].unique()
    colours = {label: _COLOURS[index % len(_COLOURS)] for index, label in enumerate(labels)}
    with mpl.rc_context(style()):
        figure = Figure(figsize=(COLUMN_WIDTH * len(rhos), 2.6 + 0.11 * len(labels)), layout="constrained")
        panels = figure.subplots(1, len(rhos), squeeze=False, sharey=True)[0]
        for panel, rho in zip(panels, rhos, strict=True):
            _panel(panel, rows[rows["rho"] == rho], column, labels, colours, side_by_side=len(snrs) == 1)
            panel.set_xlabel("SNR (dB)" if len(snrs) > 1 else f"SNR = {snrs[0]:g} dB")
            panel.set_title(f"\N{GREEK SMALL LETTER RHO} = {parse_rho(rho)}")
        panels[0].set_ylabel(axes().get(column, column))
        handles: dict[str, Any] = {}
        for panel in panels:
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=1 if len(rhos) == 1 else 2
        )
        figure.suptitle(_title(rows), fontsize=7)
    return figure


def draw_tradeoff(
    table: pd.DataFrame, x: str, y: str, folder: Path, formats: tuple[str, ...] = ("png", "pdf")
) -> list[Path]:
    """Draws one metric over another, a figure for each channel with a panel for each SNR: what a stage gains and pays.

    Points of one scheme that differ in parameters, in a refiner's steps say, are joined in the table's order.

    Args:
        table: one row a curve point, as `linksim.load` gives it.
        x, y: columns of metrics.
        folder: where `<y>_over_<x>_<channel>.<format>` go.

    Returns:
        The files written.

    Raises:
        LinksimError: no such column, or rows of several bandwidth ratios.
    """
    there = [name for name in axes() if name in table and table[name].notna().any()]
    for column in (x, y):
        if column not in there:
            raise unknown("column with values of a metric", column, [name for name in there if name != column])
    if x == y:
        raise LinksimError(f"{y} over itself is a line: give another --x or --y")
    if table["rho"].nunique() > 1:
        raise LinksimError(
            "one metric over another is drawn for one bandwidth ratio, and these results have several: sweep one alone"
        )
    folder.mkdir(parents=True, exist_ok=True)
    table = table[~_shown_twice(table)]
    written = []
    for channel, rows in table.groupby("channel", sort=False):
        written += save(tradeoff(rows, x, y), folder / f"{y}_over_{x}_{file_name(str(channel))}", formats)
    return written


def tradeoff(rows: pd.DataFrame, x: str, y: str) -> Figure:
    """One metric over another, a panel for each SNR."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = _labelled(rows).dropna(subset=[x, y])
    family = rows["scheme"].where(rows["stage"] != FIRST, rows["scheme"].map(lambda name: str(name).partition("+")[0]))
    rows = rows.assign(_family=family.where(~rows["_label"].str.endswith(_FIRST_STAGE), family + _FIRST_STAGE))
    families = list(dict.fromkeys(rows["_family"]))
    snrs = list(dict.fromkeys(rows["snr_db"]))
    with mpl.rc_context(style()):
        figure = Figure(figsize=(COLUMN_WIDTH * len(snrs), 2.9 + 0.11 * len(families)), layout="constrained")
        panels = figure.subplots(1, len(snrs), squeeze=False)[0]
        for panel, snr in zip(panels, snrs, strict=True):
            for index, name in enumerate(families):
                points = rows[(rows["_family"] == name) & (rows["snr_db"] == snr)]
                panel.plot(
                    points[x], points[y], color=_COLOURS[index % len(_COLOURS)], linestyle=":",
                    marker=_MARKERS[index % len(_MARKERS)], label=name,
                )  # fmt: skip
                if len(points) > 1:
                    for _, point in points.iterrows():
                        own = str(point["variant"]).partition(":")[2]
                        panel.annotate(own, (point[x], point[y]), fontsize=4, textcoords="offset points", xytext=(3, 2))
            panel.set_title(f"SNR = {snr:g} dB")
            panel.set_xlabel(axes()[x])
        panels[0].set_ylabel(axes()[y])
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(snrs), 2))
        figure.suptitle(_title(rows), fontsize=7)
    return figure


def _panel(
    panel: Axes, rows: pd.DataFrame, column: str, labels: list[str], colours: dict[str, Any], *, side_by_side: bool
) -> None:
    references = list(dict.fromkeys(rows["_label"][rows["kind"] == "reference"]))
    for label, curve in rows.groupby("_label", sort=False):
        curve = curve.sort_values("snr_db")
        if curve[column].isna().all():
            continue
        index = labels.index(str(label))
        reference = (curve["kind"] == "reference").all()
        low, high = _band(curve, column)
        marker = _MARKERS[index % len(_MARKERS)]
        if side_by_side:
            spans = [curve[column] - low, high - curve[column]]
            panel.errorbar([index], curve[column], spans, color=colours[str(label)], fmt=marker, label=str(label))
            continue
        panel.plot(
            curve["snr_db"],
            curve[column],
            color=colours[str(label)],
            linestyle=_line(str(label), references, reference),
            marker=None if reference else marker,
            label=str(label),
        )
        panel.fill_between(curve["snr_db"].astype(float), low, high, color=colours[str(label)], alpha=0.2, linewidth=0)
    if side_by_side:
        panel.set_xticks([])
        panel.set_xlim(-0.5, len(labels) - 0.5)
    if column == BLER:
        panel.set_yscale("symlog", linthresh=1e-4)
        panel.set_ylim(-2e-5, 1.5)


def _band(curve: pd.DataFrame, column: str) -> tuple[pd.Series, pd.Series]:
    if column == BLER:
        return curve["bler_low"], curve["bler_high"]
    half = curve[f"{column}_ci95"] if f"{column}_ci95" in curve else 0 * curve[column]
    return curve[column] - half, curve[column] + half


def _line(label: str, references: list[str], reference: Any) -> Any:
    """Dashes for a reference, dots for the first stage of a scheme that has two."""
    if reference:
        return _DASH * references.index(label), (_DASH, _DASH)
    return ":" if label.endswith(_FIRST_STAGE) else "-"


def _labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with the curve of each: its variant, whose name stands for the last of its stages."""
    refined = set(rows["variant"][rows["stage"] != FIRST])
    first = rows["variant"].isin(refined) & (rows["stage"] == FIRST)
    # First stages are told by how their label ends, so that a note stands before that.
    label = rows["variant"] + rows["variant"].map(_power_notes(rows))
    return rows.assign(_label=label.where(~first, label + _FIRST_STAGE))


def _power_notes(rows: pd.DataFrame) -> dict[str, str]:
    """What the legend says of each variant that sent less power than it may: the note of its weakest point."""
    notes = dict.fromkeys(rows["variant"], "")
    if "power_note" not in rows:
        return notes
    low = rows[rows["power_note"].fillna("").str.contains(TOO_LITTLE, regex=False)]
    for variant, own in low.groupby("variant", sort=False):
        note = str(own.sort_values("tx_power")["power_note"].iloc[0])
        notes[str(variant)] = f" [{next(part for part in note.split('; ') if TOO_LITTLE in part)}]"
    return notes


def _title(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    antennas = int(first.get("antennas", 1))
    several = f", {antennas} antennas ({first['detector']})" if antennas > 1 else ""
    return (
        f"{first['dataset']}, {first['channel']}, {first['users']} users{several}, power '{first['power']}', "
        f"{int(rows['n_images'].min())} images a point"
    )


def style() -> Any:
    """Settings of matplotlib that every figure has in common."""
    return {
        "axes.axisbelow": True,
        "axes.edgecolor": ".8",
        "axes.grid": True,
        "font.family": "sans-serif",
        "font.sans-serif": ["Arial", "DejaVu Sans"],
        "font.size": 8,
        "axes.labelsize": 8,
        "axes.titlesize": 8,
        "legend.fontsize": 6.5,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "lines.linewidth": 1.2,
        "lines.markersize": 3.5,
        "grid.color": ".8",
        "grid.linewidth": 0.4,
        "patch.edgecolor": "w",
        "patch.force_edgecolor": True,
        "xtick.bottom": False,
        "xtick.color": ".15",
        "ytick.color": ".15",
        "ytick.left": False,
        "pdf.fonttype": 42,
    }


def save(figure: Figure, stem: Path, formats: tuple[str, ...]) -> list[Path]:
    """Writes a figure in each format beside `stem` and returns the files; their layout is that of the first."""
    import matplotlib as mpl

    written = []
    for kind in formats:
        buffer = BytesIO()
        # Without a date, drawing the same table again gives the same file.
        metadata = {"CreationDate": None} if kind == "pdf" else {}
        with mpl.rc_context(style()):
            figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
        figure.set_layout_engine("none")
        path = stem.with_name(f"{stem.name}.{kind}")
        write_atomic(path, buffer.getvalue())
        written.append(path)
    return written
