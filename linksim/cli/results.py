"""`linksim show`, `plot`, `compare` and `gallery`: what shows results."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linksim.cli.options import (
    Commands,
    Parser,
    add_changes,
    add_machine,
    add_out,
    add_settings,
    changes,
    command,
    left_out,
    own_folder,
    parsed,
    sweep_values,
)
from linksim.errors import LinksimError, chosen, shown, unknown
from linksim.grammar import split_list

if TYPE_CHECKING:
    import pandas as pd

_GALLERY = (
    "scheme", "channel", "snr", "rho", "dataset", "data-dir", "image-size", "users", "antennas",
    "detector", "metrics", "power", "seed", "csi",
    "start", "steps", "prior",
)  # fmt: skip


def add_commands(commands: Commands[Parser]) -> None:
    """Adds the commands of this file."""
    show = command(commands, "show", _show, "print the table of a results folder")
    show.add_argument("folder", type=Path)
    show.add_argument("--format", metavar="KIND", default="text", help="text (default), latex, markdown or csv")
    show.add_argument("--labels", metavar="NAME=LABEL,...", help="in latex and markdown, names of your own: kd=Ours")

    plot = command(
        commands, "plot", _plot, "draw the figures of results folders again, or the losses of a training run"
    )
    plot.add_argument("folders", type=Path, nargs="+", metavar="folder")
    plot.add_argument("--metric", metavar="COLUMN,...", help="one figure of these, a row each (default: a figure each)")
    plot.add_argument("--curves", metavar="NAME,...", help="these schemes or variants alone, in the legend's order")
    plot.add_argument("--labels", metavar="NAME=LABEL,...", help="names of your own: kd=Ours,semoma=OMA")
    plot.add_argument("--gaps", metavar="NAME", help="under the curves their differences to this one, with intervals")
    plot.add_argument("--xlim", metavar="A:B", help="ends of the horizontal axis: 0:20")
    plot.add_argument("--ylim", metavar="A:B", help="ends of the vertical axis of one metric: 15:35")
    plot.add_argument(
        "--style", metavar="NAME", default="ieee", help="ieee: a paper's columns (default); talk: a slide"
    )
    plot.add_argument("--format", metavar="KIND,...", default="png,pdf", help="png, pdf, svg, pgf (default png,pdf)")
    plot.add_argument("--y", metavar="COLUMN", help="draw this metric over another, at each SNR: fid, lpips_alex")
    plot.add_argument("--x", metavar="COLUMN", help="the other (default psnr_db), or users: of sweeps of several N")
    add_out(plot, "where to (default: figures/ in the folder)")

    compare = command(commands, "compare", _compare, "paired differences between schemes, with intervals")
    compare.add_argument("folder", type=Path)
    compare.add_argument(
        "--with", dest="others", type=Path, nargs="+", default=[], metavar="FOLDER",
        help="further results of the same images and draws: schemes of your own against a paper's figure",
    )  # fmt: skip
    compare.add_argument("--baseline", required=True, metavar="NAME", help="the variant that others are compared with")
    compare.add_argument("--curves", metavar="NAME,...", help="these schemes or variants alone")
    compare.add_argument(
        "--trainings", action="store_true",
        help="variants that differ in weights alone are trainings of one: the chance in training is in the intervals",
    )  # fmt: skip
    compare.add_argument("--stage", metavar="NAME", help="stage of the baseline: first, or a refiner's (default)")
    compare.add_argument("--metric", default="psnr_db", metavar="COLUMN", help="per-image or pooled (default psnr_db)")

    grid = command(commands, "gallery", _gallery, "example images: the original and what every scheme shows of it")
    grid.add_argument("file", nargs="?", type=Path, help="a sweep file; options below go before its values")
    add_settings(grid, _GALLERY)
    add_changes(grid)
    grid.add_argument("--groups", metavar="G,...", help="which image groups (default: the file's, or 0,1,2)")
    add_out(grid, "folder of the figures (default: runs/gallery)")
    add_machine(grid, workers=False)


def _show(args: argparse.Namespace) -> int:
    from linksim.api import load
    from linksim.report.names import parse_labels
    from linksim.report.show import FORMATS, table_csv, table_latex, table_markdown, table_text

    _one_of("--format", args.format, FORMATS)
    table = load(args.folder)
    labels = parse_labels(args.labels, table["variant"]) if args.labels is not None else {}
    if labels and args.format not in ("latex", "markdown"):
        raise LinksimError("--labels is for --format latex and markdown: text and csv have the names that sweeps take")
    run = table.attrs["run"] or {}
    origin = (
        f"linksim {run.get('linksim', '?')}, finished {run.get('finished') or 'no'}; command: {run.get('command', '?')}"
    )
    if args.format == "csv":
        print(table_csv(table), end="")
    elif args.format == "markdown":
        print(table_markdown(table, labels))
    elif args.format == "latex":
        print(f"% {origin}\n{table_latex(table, labels)}")
    else:
        print(f"{table_text(table)}\n{origin}")
    return 0


def _one_of(option: str, text: str, known: Sequence[str]) -> None:
    if text not in known:
        raise unknown(f"value of {option}", text, known)


def _plot(args: argparse.Namespace) -> int:
    for path in _drawn(args):
        print(path)
    return 0


def plot(*folders: str | Path, out: str | Path | None = None, **words: Any) -> list[Path]:
    """Draws results folders, or the losses of training runs, as `linksim plot` does, whose options are the words here.

    Args:
        folders: of results or of runs.
        out: where the figures go; by default `figures/` in the one folder.
        words: `curves="kd,semoma"`, `metric="psnr_db,ssim"`, `labels="kd=Ours"`, `style="talk"`, `format="pdf"`, ...

    Returns:
        The files written.

    Raises:
        LinksimError: anything that the caller can put right, in one line.

    Example:
        >>> import linksim, tempfile
        >>> figures = linksim.plot("results/fig07", out=tempfile.mkdtemp(), metric="ssim", format="png")
        >>> [path.name for path in figures]
        ['ssim_rayleigh.png', 'captions.md']
    """
    for folder in (*folders, out):
        if not isinstance(folder, str | Path | None) or str(folder).startswith("-"):
            raise LinksimError(f"{shown(folder)} is no path: give a folder")
    return _drawn(parsed(add_commands, "plot", map(str, folders), {**words, "out": out}))


def _runs(folder: Path) -> list[Path]:
    """The runs in a folder that `--out` of `linksim train` named; any other folder itself."""
    from linksim.train.logs import LOSSES

    inside = sorted(path.parent for path in folder.glob(f"*/{LOSSES}"))
    return inside if inside and not (folder / LOSSES).is_file() else [folder]


def _drawn(args: argparse.Namespace) -> list[Path]:
    import pandas as pd

    from linksim.api import load
    from linksim.engine.sweep import FIGURES
    from linksim.report.figures import CAPTIONS, FORMATS, STYLES, View, axes, draw, draw_tradeoff
    from linksim.report.names import parse_labels
    from linksim.train.logs import LOSSES

    formats = tuple(dict.fromkeys(_words("--format", args.format)))
    for kind in formats:
        _one_of("--format", kind, FORMATS)
    _one_of("--style", args.style, STYLES)
    xlim, ylim = _limits("--xlim", args.xlim), _limits("--ylim", args.ylim)
    if len(args.folders) > 1 and args.out is None:
        raise LinksimError("figures of several folders need a place of their own: --out DIR")
    first = args.folders[0]
    args.folders = [run for folder in args.folders for run in _runs(folder)]
    if any((folder / LOSSES).is_file() for folder in args.folders):
        if not all((folder / LOSSES).is_file() for folder in args.folders):
            raise LinksimError("runs of `linksim train` and results of sweeps are drawn apart: give one kind")
        from linksim.report.training import check_kept, draw_training, keep_training

        for option in ("metric", "curves", "labels", "gaps", "xlim", "ylim", "x", "y"):
            if getattr(args, option) is not None:
                raise LinksimError(f"--{option} is for results of sweeps, not for the losses of a training run")
        if args.out is not None:
            check_kept(args.folders, args.out)
        written = draw_training(args.folders, args.out or first / FIGURES, formats, name=args.style)
        if args.out is not None:
            written += keep_training(args.folders, args.out)
        return written
    table = pd.concat([load(folder) for folder in args.folders], ignore_index=True)
    point = ["variant", "stage", "channel", "rho", "snr_db", "power", "dataset", "users"]
    values = table.groupby(point)[[column for column in axes() if column in table]].nunique()
    for variant, *_ in values.index[(values > 1).any(axis=1)]:
        raise LinksimError(
            f"these folders have different curves of {variant} (other weights, seed, CSI error or pixels): "
            "plot them apart"
        )
    table = table.drop_duplicates(point, ignore_index=True)
    folder = args.out or first / FIGURES
    view = View(
        style=args.style,
        metrics=tuple(dict.fromkeys(_words("--metric", args.metric))) if args.metric is not None else (),
        schemes=_curves(args.curves) if args.curves is not None else (),
        xlim=xlim,
        ylim=ylim,
        labels=parse_labels(args.labels, table["variant"]) if args.labels is not None else {},
        gaps=args.gaps or "",
    )
    if args.y is not None or args.x is not None:
        if args.y is None:
            raise LinksimError("--x COLUMN is what a metric is drawn over: name that one: --y fid")
        for option in ("metric", "gaps"):
            if getattr(args, option) is not None:
                raise LinksimError(f"--{option} is for curves over the SNR: leave out --{option}, or --y")
        written = draw_tradeoff(table, args.x or "psnr_db", args.y, folder, formats, view=view)
    else:
        groups = _pairs(args.folders) if view.gaps else None
        written = draw(table, folder, formats, view=view, groups=groups)
    return [*written, folder / CAPTIONS]


def _pairs(folders: Sequence[Path]) -> pd.DataFrame | None:
    """Image groups of the folders that have them; None where their draws are not common, or there are none."""
    import pandas as pd

    from linksim.api import load_groups
    from linksim.engine import provenance
    from linksim.engine.pairs import KEYS
    from linksim.engine.sweep import PER_GROUP, PER_IMAGE
    from linksim.paths import shipped
    from linksim.report.compare import other_draws

    known = [folder for folder in folders if any((shipped(folder) / name).exists() for name in (PER_IMAGE, PER_GROUP))]
    runs = [provenance.read_run(shipped(folder)) for folder in known]
    if not known or (len(known) > 1 and any(not run or not runs[0] or other_draws(runs[0], run) for run in runs)):
        return None
    return pd.concat([load_groups(folder) for folder in known], ignore_index=True).drop_duplicates(KEYS)


def _words(option: str, text: str) -> list[str]:
    return _some(option, text, [word.strip() for word in text.split(",") if word.strip()])


def _curves(text: str) -> tuple[str, ...]:
    """What `--curves` names; a name holds commas where its parameters do."""
    return tuple(dict.fromkeys(_some("--curves", text, split_list(text))))


def _some(option: str, text: str, words: list[str]) -> list[str]:
    if not words:
        raise LinksimError(f"{option} {shown(text)}: give one or more names, with commas between them")
    return words


def _limits(option: str, text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    number = r"-?[0-9]{1,9}(?:\.[0-9]{1,9})?"
    found = re.fullmatch(rf"({number}):({number})", text)
    if not found or not float(found[1]) < float(found[2]):
        raise LinksimError(f"{option} {shown(text)}: give two numbers, the smaller first, like 0:20")
    return float(found[1]), float(found[2])


def _compare(args: argparse.Namespace) -> int:
    from linksim.api import compare, load, load_groups
    from linksim.engine.sweep import PER_IMAGE
    from linksim.paths import shipped

    differences = compare(args.folder, args.baseline, args.metric, args.stage, args.others, args.trainings)
    if args.curves is not None:
        there = list(dict.fromkeys(differences["variant"]))
        names = [chosen(there, name) for name in _curves(args.curves)]
        differences = differences[differences["variant"].isin(names)]
    print(differences.to_string(index=False, float_format=lambda x: f"{x:.4g}"))
    # With the table of images all groups are there, and it is not to be read once more.
    if not (shipped(args.folder) / PER_IMAGE).exists():
        groups, used = int(load(args.folder)["n_groups"].max()), int(load_groups(args.folder)["group"].nunique())
        if used < groups:
            print(f"{used:,} of {groups:,} groups, the first ones: {args.folder} has no {PER_IMAGE}")
    return 0


def _gallery(args: argparse.Namespace) -> int:
    from linksim.engine.config import gallery_of

    values = sweep_values(args, _GALLERY)
    if "groups" in changes(args):
        raise LinksimError("--set groups: a gallery shows --groups 0,1,2")
    of_file = gallery_of(args.file) if args.file else None
    groups = next(text for text in (args.groups, of_file, "0,1,2") if text is not None)
    folder = own_folder(args.out or Path("runs/gallery"), "runs/gallery")
    for path in draw_gallery(values, groups, folder, args.device):
        print(path)
    return 0


def draw_gallery(values: Mapping[str, Any], groups: str, folder: Path, device: str, quiet: bool = False) -> list[Path]:
    """Draws the example images of a sweep.

    Args:
        values: the sweep's.
        groups: image groups, "0,1,2".
        folder: where to.
        device: torch device.
        quiet: without a word of what is at work.

    Returns:
        The figures written.
    """
    from linksim.engine.config import make_config
    from linksim.engine.gallery import simulate_gallery
    from linksim.files import check_writable
    from linksim.report.gallery import write_gallery

    numbers = [_group(text.strip()) for text in groups.split(",")]
    config = make_config({"snr": "0", "metrics": "psnr,lpips-alex", **values, "groups": 1})
    check_writable(folder)

    def tell(words: str) -> None:
        if not quiet:
            print(words, file=sys.stderr, flush=True)

    return write_gallery(simulate_gallery(config, numbers, device=device, missing=left_out, report=tell), folder)


def _group(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise LinksimError(f"--groups {shown(text)}: give whole numbers from 0, like 0,1,2")
    return int(text)
