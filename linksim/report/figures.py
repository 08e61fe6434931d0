"""Curves from a table, as papers print them: rows of panels for metrics, columns for bandwidth ratios."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pandas as pd

from linksim.data.training import name_of
from linksim.engine.audit import TOO_LITTLE
from linksim.engine.context import FIRST
from linksim.errors import LinksimError, chosen, unknown
from linksim.files import write_atomic
from linksim.link.channels import file_name
from linksim.link.units import ratio_of
from linksim.metrics import columns
from linksim.report.compare import paired_differences
from linksim.report.names import FIRST_STAGE, SETTINGS, Look, look, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Widths of one column and of both of an IEEE page, inches.
COLUMN_WIDTH, PAGE_WIDTH = 3.5, 7.16

FORMATS = ("png", "pdf", "svg", "pgf")

#: Dots an inch, of a PNG and of all layouts.
_DPI = 200

#: `ieee`: for a paper's column, without a title; `talk`: for a slide, larger, with one.
STYLES = ("ieee", "talk")

#: Beside the figures: what their titles would say.
CAPTIONS = "captions.md"

BLER, USERS = "bler", "users"

_RHO = r"$\rho$"

#: Lines of schemes, of their first stages and of references; where two curves have one colour and marker, the next.
_SOLID: tuple[Any, ...] = ("-", (0, (8, 2)), "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (10, 2, 2, 2)))
_DOTTED: tuple[Any, ...] = (":", (0, (1, 3)), (0, (1, 1, 1, 3)))

#: A dash as long as its gap, shifted: two references that coincide both show.
_DASHED: tuple[Any, ...] = tuple((shift, (dash, dash)) for dash in (4, 2, 7) for shift in (0, dash))

#: Points of a curve beyond which not every one has a marker.
_MARKED = 8

#: Curves whose largest gap is this many times that of the nearest one run out of the panel of gaps.
_FAR = 5


@dataclass(frozen=True)
class View:
    """What of a table is drawn, and how.

    Args:
        style: one of `STYLES`.
        metrics: columns, a row of panels each in one figure; none: every metric that there is, a figure each.
        schemes: variants or schemes in the order of the legend; none: all.
        xlim, ylim: ends of the axes, dB and the unit of the metric.
        labels: names in place of the usual ones (`linksim.report.names.parse_labels`).
        gaps: a variant, or a scheme's bare name: under each row of panels one of the differences to it.
    """

    style: str = "ieee"
    metrics: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    xlim: tuple[float, float] | None = None
    ylim: tuple[float, float] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    gaps: str = ""


def axes() -> dict[str, str]:
    """Columns that get a figure, with their axis label: those of every metric, and the block error rate.

    Example:
        >>> axes()["psnr_db"], axes()["bler"]
        ('PSNR (dB)', 'Block error rate, lower is better')
    """
    labels = {name: column.label + ("" if column.higher_is_better else _LOWER) for name, column in columns().items()}
    return {**labels, BLER: f"Block error rate{_LOWER}"}


_LOWER = ", lower is better"


def _name(column: str) -> str:
    """A column's label without its direction and unit."""
    return axes().get(column, column).removesuffix(_LOWER).removesuffix(" (dB)")


def draw(
    table: pd.DataFrame,
    folder: Path,
    formats: tuple[str, ...] = ("png", "pdf"),
    *,
    view: View = View(),
    groups: pd.DataFrame | None = None,
) -> list[Path]:
    """Draws metrics of `table` over the SNR into `folder`, a figure a channel, and what to write under it.

    Args:
        table: one row a curve point, as `linksim.load` gives it.
        folder: where `<metric>_<channel>.<format>` go, `<metric>-<metric>_<channel>` where one figure has several, and
            `captions.md`.
        formats: of `FORMATS`.
        view: what is drawn, and how.
        groups: as `linksim.load_groups` gives it: the intervals of `view.gaps` are paired over them.

    Returns:
        The figures written.

    Raises:
        LinksimError: rows of the two power conventions, of several data sets or of several numbers of users: they never
            share a plot; what `view` asks for is not in the table.

    Example:
        >>> import tempfile, linksim
        >>> table = linksim.sweep(tempfile.mkdtemp(), scheme="klt", groups=2, snr="0,10", progress=False)
        >>> written = draw(table, Path(tempfile.mkdtemp()), ("pdf",), view=View(metrics=("psnr_db",)))
        >>> [path.name for path in written]
        ['psnr_db_awgn.pdf']
    """
    _check_one(table, ("power", "dataset", USERS))
    there = _metrics(table)
    for column in view.metrics:
        if column not in there:
            raise unknown("column with values of a metric", column, there)
    if view.ylim is not None and len(view.metrics or there) > 1:
        raise LinksimError("--ylim is of one metric: name it, like --metric psnr_db")
    rows = _chosen(table, view)
    base = chosen(list(dict.fromkeys(rows["variant"])), view.gaps) if view.gaps else ""
    if base and rows["variant"].nunique() == 1:
        raise LinksimError(f"--gaps {base}: no other curve is drawn")
    for column in view.metrics if base else ():
        if rows[column][rows["variant"] == base].isna().all():
            raise LinksimError(f"--gaps {base}: it has no {column}: leave one of them out")
    folder.mkdir(parents=True, exist_ok=True)
    written, captions = [], {}
    for channel, own in rows.groupby("channel", sort=False):
        for metrics in [view.metrics] if view.metrics else [(column,) for column in there]:
            shown = [column for column in metrics if _has(own, column)]
            if not shown:
                continue
            stem = folder / f"{'-'.join(shown)}_{file_name(str(channel))}"
            differences = {column: _gaps(own, column, base, groups) for column in shown} if base else {}
            gaps = {column: found for column, found in differences.items() if len(found)}
            written += save(curves(own, shown, view, gaps), stem, formats, view.style)
            captions[stem.name] = _caption(own, shown, view, gaps, base)
    if formats:
        _write_captions(folder, captions)
    return written


def _check_one(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raises LinksimError where a column has several values that never share a plot."""
    for column in columns:
        if table[column].nunique() > 1:
            values = ", ".join(map(str, table[column].unique()))
            apart = "plot them apart" + (f", or over them: --x {USERS} --y psnr_db" if column == USERS else "")
            raise LinksimError(f"curves of different {column} ({values}) never share a plot: {apart}")


def _metrics(table: pd.DataFrame) -> list[str]:
    """Columns of `axes` that have values."""
    return [name for name in axes() if name in table and table[name].notna().any()]


def _has(rows: pd.DataFrame, column: str) -> bool:
    return column in rows and bool(rows[column].notna().any()) and not (column == BLER and rows[column].max() == 0)


def _chosen(table: pd.DataFrame, view: View) -> pd.DataFrame:
    """The rows to draw, each with its curve's label and how it looks, in the order of the legend."""
    rows = _looks(_labelled(table[~_shown_twice(table)], view.labels))
    if view.schemes:
        variants = list(dict.fromkeys(rows["variant"]))
        kept = []
        for name in view.schemes:
            found = [v for v in variants if v == name] or [v for v in variants if v.partition(":")[0] == name]
            if not found:
                raise unknown("curve", name, variants)
            kept += [rows[rows["variant"] == variant] for variant in found]
        rows = pd.concat(kept)
        rows = rows[~rows.index.duplicated()]
    if view.xlim is not None:
        rows = rows[rows["snr_db"].between(*view.xlim)]
        if rows.empty:
            raise LinksimError(f"--xlim {view.xlim[0]:g}:{view.xlim[1]:g}: no SNR of these results lies there")
    return rows


def _looks(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with each curve's look and line: of its name alone, and the line such that no two are drawn alike."""
    looks: dict[str, tuple[Any, Any]] = {}
    taken: set[Any] = set()
    dashes = 0
    for label, curve in rows.groupby("_label"):
        own = look(str(curve["_variant"].iloc[0]))
        if (curve["kind"] == "reference").all():
            looks[str(label)], dashes = (own._replace(marker="None"), _DASHED[dashes % len(_DASHED)]), dashes + 1
            continue
        lines = _DOTTED if str(label).endswith(FIRST_STAGE) else _SOLID
        line = next((line for line in lines if (own, line) not in taken), lines[-1])
        taken.add((own, line))
        looks[str(label)] = own, line
    return rows.assign(_look=rows["_label"].map(lambda label: looks[label]))


def _shown_twice(table: pd.DataFrame) -> pd.Series:
    """First stages behind a refiner whose curve is there already: without the refiner, or behind another one."""
    first = table["stage"] == FIRST
    behind = first & table["variant"].isin(set(table["variant"][~first]))
    metrics = _metrics(table)
    if not metrics:
        return behind & ~behind
    points = table[["channel", "rho", "snr_db", USERS]].assign(value=table[metrics[0]].round(6))
    known = set(points[first & ~behind].itertuples(index=False, name=None))
    twice = pd.Series(data=False, index=table.index)
    for _, curve in points[behind].groupby([table["variant"], table["channel"], table["rho"]], sort=False):
        own = set(curve.itertuples(index=False, name=None))
        # A curve is left out as a whole or not at all.
        twice[curve.index] = own <= known
        known |= own
    return twice


def curves(
    rows: pd.DataFrame, metrics: Sequence[str], view: View | None = None, gaps: Mapping[str, pd.DataFrame] | None = None
) -> Figure:
    """Metrics over the SNR, a row of panels each and a column for each bandwidth ratio. At one SNR alone, side by side.

    Args:
        rows: of one channel, as `draw` chooses them, or a table.
        metrics: columns.
        view: style, labels and ends of the axes.
        gaps: what stands under a row of panels, by its metric: differences to one curve.
    """
    import matplotlib as mpl
    from matplotlib.ticker import MaxNLocator

    view, gaps = view or View(), gaps or {}
    if "_look" not in rows:
        rows = _looks(_labelled(rows, view.labels))
    rhos, labels = list(dict.fromkeys(rows["rho"])), list(dict.fromkeys(rows["_label"]))
    snrs = rows["snr_db"].unique()
    kinds = [(column, below) for column in metrics for below in ((False, True) if column in gaps else (False,))]
    with mpl.rc_context(style(view.style)):
        figure = _figure(len(rhos), [0.6 if below else 1.0 for _, below in kinds], labels, view.style)
        grid = figure.subplots(
            len(kinds), len(rhos), squeeze=False, sharex="col", sharey="row",
            height_ratios=[0.6 if below else 1.0 for _, below in kinds],
        )  # fmt: skip
        for (column, below), panels in zip(kinds, grid, strict=True):
            for panel, rho in zip(panels, rhos, strict=True):
                own = rows[rows["rho"] == rho]
                if below:
                    _panel_of_gaps(panel, own, gaps[column][gaps[column]["rho"] == rho], labels, len(snrs) == 1)
                else:
                    _panel(panel, own, column, labels, side_by_side=len(snrs) == 1)
            if below:
                panels[0].set_title(f"Difference to {gaps[column].attrs['base']}", loc="left")
                # The panel above says what is pooled; this one is too low for it.
                label = axes()[column].removesuffix(_LOWER).replace(", pooled over users", "")
                panels[0].set_ylabel(rf"$\Delta$ {label}")
                panels[0].set_ylim(*_near(gaps[column]))
            else:
                panels[0].set_ylabel(axes().get(column, column))
                if view.ylim is not None:
                    panels[0].set_ylim(*view.ylim)
        for panel, rho in zip(grid[0], rhos, strict=True):
            panel.set_title(f"{_RHO} = {ratio_of(rho)}")
            if view.xlim is not None and len(snrs) > 1:
                panel.set_xlim(*view.xlim)
        for panel in grid[-1]:
            if len(snrs) > 1:
                panel.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
            panel.set_xlabel("SNR (dB)" if len(snrs) > 1 else f"SNR = {snrs[0]:g} dB")
        handles: dict[str, Any] = {}
        for panel in grid.flat:
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        _legend(figure, {label: handles[label] for label in labels if label in handles}, view.style)
        if view.style == "talk":
            figure.suptitle(textwrap.fill(_setting(rows), _TITLE * len(rhos)))
    return figure


def _figure(columns: int, heights: Sequence[float], labels: Sequence[str], name: str) -> Figure:
    """An empty figure as wide as a column of a page, or both where there are several panels side by side."""
    from matplotlib.figure import Figure

    scale = SCALE[name]
    width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
    entries = -(-len(labels) // _legend_columns(labels, width))
    height = 0.45 + 2.1 * sum(heights) + 0.14 * entries
    return Figure(figsize=(scale * width, scale * height), layout="constrained")


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """Columns of a legend that fit into so many inches."""
    letter = 0.6 * _LEGEND / 72
    longest = max((len(label) for label in labels), default=0)
    return max(1, min(4, len(labels), int(width / (letter * (longest + 7)))))


def _legend(figure: Figure, handles: Mapping[str, Any], name: str) -> None:
    n = _legend_columns(list(handles), figure.get_figwidth() / SCALE[name])
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=n)


def draw_tradeoff(
    table: pd.DataFrame,
    x: str,
    y: str,
    folder: Path,
    formats: tuple[str, ...] = ("png", "pdf"),
    *,
    view: View = View(),
) -> list[Path]:
    """Draws one metric over another, a figure for each channel with a panel for each SNR: what a stage gains and pays.

    Points of one scheme that differ in parameters, in a refiner's steps say, are joined in the table's order. Over
    `users` it is curves as over the SNR: what each of N users has of the same channel uses.

    Args:
        table: one row a curve point, as `linksim.load` gives it.
        x, y: columns of metrics; x can be `users`.
        folder: where `<y>_over_<x>_<channel>.<format>` and `captions.md` go.
        formats: of `FORMATS`.
        view: style, schemes, labels and ends of the axes, those of x and y.

    Returns:
        The figures written.

    Raises:
        LinksimError: no such column, rows of several bandwidth ratios, of the two power conventions or of several data
            sets; of several numbers of users where that is not what they are drawn over.
    """
    there = _metrics(table)
    for column, known in ((x, [*there, USERS]), (y, there)):
        if column not in known:
            raise unknown("column with values of a metric", column, [name for name in known if name != column])
    _check_one(table, ("power", "dataset", *(() if x == USERS else (USERS,))))
    if x == USERS and table[USERS].nunique() == 1:
        raise LinksimError(f"all curves are of N = {table[USERS].iloc[0]}: give the folders of several sweeps")
    if x == y:
        raise LinksimError(f"{y} over itself is a line: give another --x or --y")
    if table["rho"].nunique() > 1:
        raise LinksimError(
            f"{y} over {x} is drawn for one bandwidth ratio, and these results have several: sweep one alone"
        )
    rows = _chosen(table, replace(view, xlim=None))
    folder.mkdir(parents=True, exist_ok=True)
    written, captions = [], {}
    for channel, own in rows.groupby("channel", sort=False):
        stem = folder / f"{y}_over_{x}_{file_name(str(channel))}"
        written += save(tradeoff(own, x, y, view), stem, formats, view.style)
        over = "the number of users at equal channel uses of all together" if x == USERS else _name(x)
        captions[stem.name] = f"{_name(y)} over {over}. {_setting(own)}."
    if formats:
        _write_captions(folder, captions)
    return written


#: Panels of one metric over another beside each other on a page.
_ABREAST = 3


def tradeoff(rows: pd.DataFrame, x: str, y: str, view: View | None = None) -> Figure:
    """One metric over another, or over the users, a panel for each SNR."""
    import matplotlib as mpl
    from matplotlib.ticker import FixedLocator, MaxNLocator

    view = view or View()
    rows = (rows if "_label" in rows else _labelled(rows, view.labels)).dropna(subset=[x, y])
    scheme = rows["scheme"].where(rows["stage"] != FIRST, rows["scheme"].map(lambda name: str(name).partition("+")[0]))
    last = ~rows["_label"].str.endswith(FIRST_STAGE)
    names = scheme.map(lambda name: title(str(name), view.labels))
    rows = rows.assign(_family=names.where(last, names + FIRST_STAGE), _scheme=scheme)
    if x == USERS:
        rows = rows if "_look" in rows else _looks(rows)
        rows = rows.assign(_family=rows["_label"]).sort_values(USERS, kind="stable")
    families = dict(zip(rows["_family"], rows["_scheme"], strict=True))
    snrs = list(dict.fromkeys(rows["snr_db"]))
    with mpl.rc_context(style(view.style)):
        columns = min(len(snrs), _ABREAST)
        lines = -(-len(snrs) // columns)
        figure = _figure(columns, [1.0] * lines, list(families), view.style)
        grid = figure.subplots(lines, columns, squeeze=False)
        panels = grid.ravel()
        for panel in panels[len(snrs) :]:
            panel.remove()
        for panel, snr in zip(panels, snrs, strict=False):
            # Room for markers at the edge, and for ticks beside each other.
            panel.margins(0.12)
            panel.xaxis.set_major_locator(FixedLocator(sorted(set(rows[USERS]))) if x == USERS else MaxNLocator(4))
            for name, scheme_name in families.items():
                points = rows[(rows["_family"] == name) & (rows["snr_db"] == snr)]
                if x == USERS:
                    _draw_over_users(panel, name, points, y)
                    continue
                panel.plot(points[x], points[y], linestyle=":", label=name, **_drawn(look(scheme_name)))
                if len(points) > 1:
                    for _, point in points.iterrows():
                        own = str(point["variant"]).partition(":")[2]
                        panel.annotate(
                            own, (point[x], point[y]), fontsize=5 * SCALE[view.style], textcoords="offset points",
                            xytext=(3, 2),
                        )  # fmt: skip
            panel.set_title(f"SNR = {snr:g} dB")
            panel.set_xlabel("Users" if x == USERS else axes()[x])
            for limits, set_limits in ((view.xlim, panel.set_xlim), (view.ylim, panel.set_ylim)):
                if limits is not None:
                    set_limits(*limits)
        for first in grid[:, 0]:
            first.set_ylabel(axes()[y])
        handles, labels = panels[0].get_legend_handles_labels()
        _legend(figure, dict(zip(labels, handles, strict=True)), view.style)
        if view.style == "talk":
            figure.suptitle(textwrap.fill(_setting(rows), _TITLE * len(snrs)))
    return figure


def _draw_over_users(panel: Axes, label: str, points: pd.DataFrame, column: str) -> None:
    if points.empty:
        return
    own, line = points["_look"].iloc[0]
    panel.plot(points[USERS], points[column], linestyle=line, label=label, **_drawn(own))
    panel.fill_between(points[USERS], *_band(points, column), color=own.colour, alpha=0.2, linewidth=0)


def _drawn(own: Look) -> dict[str, Any]:
    """A look as matplotlib's arguments."""
    return {
        "color": own.colour,
        "marker": own.marker,
        "markerfacecolor": own.colour if own.filled else "white",
        "markeredgecolor": own.colour,
    }


def _panel(panel: Axes, rows: pd.DataFrame, column: str, labels: list[str], *, side_by_side: bool) -> None:
    from matplotlib.ticker import NullFormatter

    for label, curve in rows.groupby("_label", sort=False):
        curve = curve.sort_values("snr_db")
        if not curve[column].isna().all():
            _draw_curve(panel, str(label), curve, column, _band(curve, column), labels, side_by_side)
    if side_by_side:
        panel.set_xticks([])
        panel.set_xlim(-0.5, len(labels) - 0.5)
    if column == BLER:
        panel.set_yscale("log", nonpositive="clip")
        panel.yaxis.set_minor_formatter(NullFormatter())
        positive = rows[column][rows[column] > 0]
        panel.set_ylim(10.0 ** math.floor(math.log10(positive.min())) if len(positive) else 1e-4, 1.5)


def _draw_curve(
    panel: Axes, label: str, curve: pd.DataFrame, column: str, band: tuple[pd.Series, pd.Series], labels: list[str],
    side_by_side: bool,
) -> None:  # fmt: skip
    """One curve with its band; markers of a dense one take turns with those of others, so that none hides another."""
    own, line = curve["_look"].iloc[0]
    index, (low, high) = labels.index(label), band
    if side_by_side:
        spans = [curve[column] - low, high - curve[column]]
        dot = {"marker": "_", "markersize": 9} if own.marker == "None" else {}
        panel.errorbar([index], curve[column], spans, linestyle="none", label=label, **{**_drawn(own), **dot})
        return
    every = max(1 + (len(curve) > 4), math.ceil(len(curve) / _MARKED))
    panel.plot(
        curve["snr_db"], curve[column], linestyle=line, label=label, markevery=(index % every, every),
        zorder=3 - index / 100, **_drawn(own),
    )  # fmt: skip
    panel.fill_between(curve["snr_db"].astype(float), low, high, color=own.colour, alpha=0.2, linewidth=0)


def _band(curve: pd.DataFrame, column: str) -> tuple[pd.Series, pd.Series]:
    if column == BLER:
        return curve["bler_low"], curve["bler_high"]
    half = curve[f"{column}_ci95"] if f"{column}_ci95" in curve else 0 * curve[column]
    return curve[column] - half, curve[column] + half


def _gaps(rows: pd.DataFrame, column: str, base: str, groups: pd.DataFrame | None) -> pd.DataFrame:
    """What each curve differs by from `base`, whose last stage it is.

    Returns:
        The rows of other curves that have a difference, with `gap` and `half`, the half-width of its 95% interval,
        paired over image groups; NaN where `groups` does not hold both. `few` is how many these are where they are not
        all. `attrs["base"]` is the label.
    """
    point = ["rho", "snr_db"]
    of_base = rows[(rows["variant"] == base) & ~rows["_label"].str.endswith(FIRST_STAGE)]
    others = rows[~rows["_label"].isin(of_base["_label"])]
    found = others.merge(of_base[[*point, column]], on=point, suffixes=("", "_of_base"))
    found = found.assign(gap=found[column] - found[f"{column}_of_base"], half=math.nan, few=math.nan)
    if groups is not None and column in groups:
        own = groups[groups["channel"].isin(rows["channel"]) & groups["variant"].isin(rows["variant"])]
        if own["variant"].nunique() > 1 and base in set(own["variant"]):
            pairs = paired_differences(own, base, column)
            keys = ["variant", "stage", *point]
            both = found.merge(pairs[[*keys, "difference", "difference_ci95", "groups"]], on=keys, how="left")
            # A few groups of each tell how far the gap may be off; the gap is that of all.
            whole = both["groups"] * both["users"] >= both["n_images"]
            found = both.assign(
                gap=both["difference"].where(whole, both["gap"]), half=both["difference_ci95"],
                few=both["groups"].where(~whole),
            )  # fmt: skip
    found = found[found["gap"].notna()]
    if len(found):
        found.attrs["base"] = str(of_base["_label"].iloc[0])
    return found


def _near(gaps: pd.DataFrame) -> tuple[float, float]:
    """Ends of the axis of gaps: curves far beyond the nearest one run out of it."""
    gaps = gaps[gaps["kind"] != "reference"] if (gaps["kind"] != "reference").any() else gaps
    reach = (gaps["gap"].abs() + gaps["half"].fillna(0)).groupby(gaps["_label"]).max().dropna()
    shown = set(reach[reach <= _FAR * reach.min()].index)
    near = gaps[gaps["_label"].isin(shown)]
    low = min(0.0, float((near["gap"] - near["half"].fillna(0)).min())) if len(near) else 0.0
    high = max(0.0, float((near["gap"] + near["half"].fillna(0)).max())) if len(near) else 0.0
    room = 0.1 * (high - low) or 0.1
    return low - room, high + room


def _panel_of_gaps(panel: Axes, rows: pd.DataFrame, gaps: pd.DataFrame, labels: list[str], side_by_side: bool) -> None:
    for label, curve in gaps.groupby("_label", sort=False):
        curve = curve.sort_values("snr_db")
        half = curve["half"].fillna(0)
        _draw_curve(panel, str(label), curve, "gap", (curve["gap"] - half, curve["gap"] + half), labels, side_by_side)
    panel.axhline(0, color=rows["_look"][rows["_label"] == gaps.attrs["base"]].iloc[0][0].colour, linewidth=0.8)


def _labelled(rows: pd.DataFrame, labels: Mapping[str, str] | None = None) -> pd.DataFrame:
    """`rows` with the label of each: its variant's title, which stands for the last of its stages."""
    titles = {variant: title(variant, labels) for variant in dict.fromkeys(rows["variant"])}
    twice = pd.Series(list(titles.values())).value_counts()
    if labels and (twice > 1).any():
        raise LinksimError(f"--labels: two curves would be called {twice.idxmax()!r}: tell them apart")
    titles = {variant: name if twice[name] == 1 else f"{name} [{variant}]" for variant, name in titles.items()}
    refined = set(rows["variant"][rows["stage"] != FIRST])
    first = rows["variant"].isin(refined) & (rows["stage"] == FIRST)
    # A first stage goes by its own name where one alone has it.
    alone = rows["variant"].str.partition("+")[0].where(first & rows["variant"].str.contains("+", regex=False))
    behind = rows["variant"].groupby(alone).transform("nunique")
    drawn = alone.where(behind == 1, rows["variant"])
    names = rows["variant"].map(titles).where(drawn == rows["variant"], drawn.map(lambda name: title(name, labels)))
    # First stages are told by how their label ends, so that a note stands before that.
    label = names + rows["variant"].map(_power_notes(rows))
    return rows.assign(_label=label.where(~first, label + FIRST_STAGE), _variant=drawn)


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


#: Characters of a line above a figure of a column's width.
_TITLE = 60


def _setting(rows: pd.DataFrame) -> str:
    """What was sent how, in words: what all curves of a figure share."""
    first = rows.iloc[0]
    antennas = int(first.get("antennas", 1))
    several = f", {antennas} antennas ({first['detector']})" if antennas > 1 else ""
    dataset, channel = name_of(first["dataset"]), str(first["channel"])
    *fewer, most_users = sorted(set(rows[USERS]))
    users = " and ".join(filter(None, (", ".join(map(str, fewer)), f"{most_users} user{'s' * (most_users != 1)}")))
    least, most = int(rows["n_images"].min()), int(rows["n_images"].max())
    return (
        f"{SETTINGS.get(dataset, dataset)}, {SETTINGS.get(channel, channel)}, {users}{several}, "
        f"power '{first['power']}', {least if least == most else f'{least} to {most}'} images a point"
    )


def _caption(
    rows: pd.DataFrame, metrics: Sequence[str], view: View, gaps: Mapping[str, pd.DataFrame], base: str
) -> str:
    """What stands under a figure in a paper."""
    words = [f"{' and '.join(map(_name, metrics))} {'over the' if rows['snr_db'].nunique() > 1 else 'at one'} SNR"]
    words.append(_setting(rows))
    if BLER in metrics or any(f"{column}_ci95" in rows for column in metrics):
        words.append("Bands are 95% intervals" if rows["snr_db"].nunique() > 1 else "Bars are 95% intervals")
    if (rows["kind"] == "reference").any():
        words.append("Dashed: bounds")
    if rows["_label"].str.endswith(FIRST_STAGE).any():
        words.append("Dotted: first stages")
    if gaps:
        unpaired = [_name(column) for column, found in gaps.items() if found["half"].isna().all()]
        out = any((~found["gap"].dropna().between(*_near(found))).any() for found in gaps.values())
        far = "; curves far from it run out of the panel" if out else ""
        words.append(f"Below: differences to {title(base, view.labels)}{far}")
        if len(unpaired) < len(gaps):
            few = min((found["few"].min() for found in gaps.values()), default=math.nan)
            which = "" if math.isnan(few) else f", the first {few:.0f}"
            words.append(f"Their intervals are of pairs of image groups{which}")
        if unpaired:
            words.append(f"Of {' and '.join(unpaired)} differences of means, without intervals: no pairs are known")
    return f"{'. '.join(words)}."


def _write_captions(folder: Path, captions: Mapping[str, str]) -> None:
    """Puts captions beside the figures, a line each, sorted; those of other figures stay."""
    path = folder / CAPTIONS
    known = dict(re.findall(r"^- `([^`]+)`: (.*)$", path.read_text("utf-8"), re.M)) if path.is_file() else {}
    lines = [f"- `{name}`: {words}" for name, words in sorted({**known, **captions}.items())]
    write_atomic(path, ("\n".join(lines) + "\n").encode())


_LEGEND = 6.5

#: Of figure, letters and lines, against a paper's column.
SCALE = {"ieee": 1.0, "talk": 1.75}


def style(name: str = "ieee") -> Any:
    """Settings of matplotlib that every figure of a style has in common; fonts are embedded as TrueType.

    Example:
        >>> style()["pdf.fonttype"], style()["font.size"], style("talk")["font.size"]
        (42, 8.0, 14.0)
    """
    scale = SCALE[name]
    sizes = {
        "font.size": 8,
        "axes.labelsize": 8,
        "axes.titlesize": 8,
        "figure.titlesize": 8,
        "legend.fontsize": _LEGEND,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "lines.linewidth": 1.2,
        "lines.markersize": 3.8,
        "lines.markeredgewidth": 0.9,
        "grid.linewidth": 0.4,
    }
    return {
        **{key: value * scale for key, value in sizes.items()},
        "axes.axisbelow": True,
        "axes.edgecolor": ".8",
        "axes.grid": True,
        "font.family": "sans-serif",
        "font.sans-serif": ["Arial", "DejaVu Sans"],
        "grid.color": ".85",
        "patch.edgecolor": "w",
        "patch.force_edgecolor": True,
        "xtick.bottom": False,
        "xtick.color": ".15",
        "ytick.color": ".15",
        "ytick.left": False,
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
        "svg.hashsalt": "linksim",
        "pgf.rcfonts": False,
        "pgf.texsystem": "pdflatex",
    }


#: Without a date, drawing the same table again gives the same file.
_METADATA = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}


def save(figure: Figure, stem: Path, formats: tuple[str, ...], name: str = "ieee") -> list[Path]:
    """Writes a figure in each format beside `stem`, laid out alike, and returns the files.

    Args:
        figure: what to write; its layout is settled hereafter.
        stem: the file without its ending.
        formats: of `FORMATS`. `pgf` needs no TeX here; a LaTeX document takes it with `\\input`, in its own fonts.
        name: the style that it was drawn in.
    """
    import matplotlib as mpl

    written = []
    with mpl.rc_context(style(name)):
        figure.set_dpi(_DPI)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for kind in formats:
            path = stem.with_name(f"{stem.name}.{kind}")
            write_atomic(path, _pgf(figure) if kind == "pgf" else _rendered(figure, kind))
            written.append(path)
    return written


def _rendered(figure: Figure, kind: str) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, dpi=_DPI, metadata=_METADATA.get(kind, {}))
    return buffer.getvalue()


def _pgf(figure: Figure) -> bytes:
    """A figure as drawing commands of LaTeX; sizes of words are those of matplotlib's fonts, not asked of a TeX."""
    from matplotlib.backend_bases import RendererBase
    from matplotlib.backends.backend_pgf import RendererPgf

    buffer = StringIO()
    measure = "get_text_width_height_descent"
    with (
        patch.object(RendererPgf, measure, getattr(RendererBase, measure)),
        patch("matplotlib.backends.backend_pgf._tex_escape", _for_tex),
    ):
        figure.savefig(buffer, format="pgf")
    return buffer.getvalue().encode()


def _for_tex(text: str) -> str:
    r"""A label with those characters escaped that TeX would take for its own, and the minus that any TeX reads.

    Example:
        >>> _for_tex(r"A & B_1, $x_1$")
        'A \\& B\\_1, $x_1$'
    """
    parts = re.split(r"(?<!\\)\$", text.replace("\N{MINUS SIGN}", "-"))
    # Every other one is a formula. matplotlib itself sees to % and ^.
    return "$".join(
        part if place % 2 else re.sub(r"(?<!\\)[&#_]", r"\\\g<0>", part) for place, part in enumerate(parts)
    )
