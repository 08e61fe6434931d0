"""`linksim show`, `plot`, `compare` and `gallery`: what shows results."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from linksim.cli.options import (
    Commands,
    Parser,
    add_changes,
    add_machine,
    add_out,
    add_settings,
    command,
    left_out,
    own_folder,
    sweep_values,
)
from linksim.errors import LinksimError, shown

_GALLERY = (
    "scheme", "channel", "snr", "rho", "dataset", "data-dir", "image-size", "users", "antennas",
    "detector", "metrics", "power", "seed", "csi",
    "start", "steps", "prior",
)  # fmt: skip


def add_commands(commands: Commands[Parser]) -> None:
    """Adds the commands of this file."""
    show = command(commands, "show", _show, "print the table of a results folder")
    show.add_argument("folder", type=Path)

    plot = command(
        commands, "plot", _plot, "draw the figures of results folders again, or the losses of a training run"
    )
    plot.add_argument("folders", type=Path, nargs="+", metavar="folder")
    plot.add_argument("--y", metavar="COLUMN", help="draw this metric over another, at each SNR: fid, lpips_alex")
    plot.add_argument("--x", metavar="COLUMN", help="the other (default psnr_db)")
    add_out(plot, "where to (default: figures/ in the folder)")

    compare = command(commands, "compare", _compare, "paired differences between schemes, with intervals")
    compare.add_argument("folder", type=Path)
    compare.add_argument("--baseline", required=True, metavar="NAME", help="the variant that others are compared with")
    compare.add_argument("--stage", metavar="NAME", help="stage of the baseline: first, or a refiner's (default)")
    compare.add_argument("--metric", default="psnr_db", metavar="COLUMN", help="per-image column (default psnr_db)")

    grid = command(commands, "gallery", _gallery, "example images: the original and what every scheme shows of it")
    grid.add_argument("file", nargs="?", type=Path, help="a sweep file; options below go before its values")
    add_settings(grid, _GALLERY)
    add_changes(grid)
    grid.add_argument("--groups", metavar="G,...", default="0,1,2", help="which image groups (default 0,1,2)")
    add_out(grid, "folder of the figures (default: runs/gallery)")
    add_machine(grid, workers=False)


def _show(args: argparse.Namespace) -> int:
    from linksim.api import load
    from linksim.report.show import table_text

    table = load(args.folder)
    run = table.attrs["run"] or {}
    print(table_text(table))
    print(
        f"linksim {run.get('linksim', '?')}, finished {run.get('finished') or 'no'}; command: {run.get('command', '?')}"
    )
    return 0


def _plot(args: argparse.Namespace) -> int:
    import pandas as pd

    from linksim.api import load
    from linksim.engine.sweep import FIGURES
    from linksim.report.figures import axes, draw, draw_tradeoff
    from linksim.train.logs import LOSSES

    if len(args.folders) > 1 and args.out is None:
        raise LinksimError("figures of several folders need a place of their own: --out DIR")
    if any((folder / LOSSES).is_file() for folder in args.folders):
        from linksim.report.training import draw_training, keep_training

        written = draw_training(args.folders, args.out or args.folders[0] / FIGURES)
        if args.out is not None:
            written += keep_training(args.folders, args.out)
        for path in written:
            print(path)
        return 0
    table = pd.concat([load(folder) for folder in args.folders], ignore_index=True)
    point = ["variant", "stage", "channel", "rho", "snr_db", "power", "dataset", "users"]
    values = table.groupby(point)[[column for column in axes() if column in table]].nunique()
    for variant, *_ in values.index[(values > 1).any(axis=1)]:
        raise LinksimError(
            f"these folders have different curves of {variant} (other weights, seed, CSI error or pixels): "
            "plot them apart"
        )
    table = table.drop_duplicates(point)
    folder = args.out or args.folders[0] / FIGURES
    if args.y is not None or args.x is not None:
        if args.y is None:
            raise LinksimError("--x COLUMN is what another metric is drawn over: name it: --y fid")
        written = draw_tradeoff(table, args.x or "psnr_db", args.y, folder)
    else:
        written = draw(table, folder)
    for path in written:
        print(path)
    return 0


def _compare(args: argparse.Namespace) -> int:
    from linksim.api import compare

    differences = compare(args.folder, args.baseline, args.metric, args.stage)
    print(differences.to_string(index=False, float_format=lambda x: f"{x:.4g}"))
    return 0


def _gallery(args: argparse.Namespace) -> int:
    from linksim.engine.config import make_config
    from linksim.engine.gallery import simulate_gallery
    from linksim.report.gallery import write_gallery

    values = sweep_values(args, _GALLERY)
    groups = [_group(text.strip()) for text in args.groups.split(",")]
    config = make_config({"snr": "0", "metrics": "psnr,lpips-alex", **values, "groups": 1})
    folder = own_folder(args.out or Path("runs/gallery"), "runs/gallery")
    shown = simulate_gallery(
        config, groups, device=args.device, missing=left_out,
        report=lambda words: print(words, file=sys.stderr, flush=True),
    )  # fmt: skip
    for path in write_gallery(shown, folder):
        print(path)
    return 0


def _group(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise LinksimError(f"--groups {shown(text)}: give whole numbers from 0, like 0,1,2")
    return int(text)
