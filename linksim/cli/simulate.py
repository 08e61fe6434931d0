"""`linksim sweep`, `reproduce` and `merge`: what simulates and writes results."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from linksim.cli.options import (
    Commands,
    Parser,
    add_changes,
    add_dry_run,
    add_machine,
    add_out,
    add_settings,
    changes,
    cluster,
    command,
    left_out,
    own_folder,
    print_costs,
    sweep_values,
    whole,
)
from linksim.errors import LinksimError, NoWeights

if TYPE_CHECKING:
    from linksim.engine.config import SweepConfig

_TRAIN = "train what lacks: {} (its cost: the same with --dry-run)"


def add_commands(commands: Commands[Parser]) -> None:
    """Adds the commands of this file."""
    sweep = command(
        commands, "sweep", _sweep, "simulate curves and write tables and figures; resumes what was cut short"
    )
    sweep.add_argument("file", nargs="?", type=Path, help="a sweep file (YAML); options below go before its values")
    add_settings(sweep)
    add_changes(sweep)
    add_out(sweep)
    add_machine(sweep)
    sweep.add_argument("--shard", metavar="I/N", help="work on part I (from 0) of N alone, for job arrays")
    sweep.add_argument("--force-new", action="store_true", help="set a folder of another sweep aside and start anew")
    _allow_versions(sweep)
    sweep.add_argument("--quiet", action="store_true", help="no progress bar and no table")

    again = command(
        commands, "reproduce", _reproduce, "a figure of a paper from the weights at hand, resumed and drawn"
    )
    again.add_argument("figure", metavar="FIGURE", help="fig06, fig07, ... or a sweep file")
    add_settings(again, ["data-dir"])
    add_changes(again)
    add_out(again, "results folder (default: results/FIGURE)")
    add_machine(again)
    again.add_argument(
        "--only", metavar="NAME,...", help="run these curves alone, kd or kd_awgn_1-3; the others keep their numbers"
    )
    add_dry_run(again)
    again.add_argument("--force-new", action="store_true", help="set a folder of another sweep aside and start anew")
    _allow_versions(again)
    again.add_argument("--quiet", action="store_true", help="no progress bar and no table")

    merge = command(commands, "merge", _merge, "bring the shards of a sweep together and write its tables")
    merge.add_argument("folders", type=Path, nargs="+", metavar="folder")
    add_out(merge, "where to (default: the first folder)")
    _allow_versions(merge)


def _allow_versions(parser: Parser) -> None:
    parser.add_argument(
        "--allow-versions", action="store_true", help="go on with what other versions of torch, numpy, ... began"
    )


def _sweep(args: argparse.Namespace) -> int:
    from linksim.engine.config import make_config
    from linksim.engine.plan import parse_shard
    from linksim.engine.sweep import FIGURES, default_folder, prepare, run_sweep
    from linksim.report.figures import draw
    from linksim.report.progress import Bar
    from linksim.report.show import table_text

    values = sweep_values(args)
    workers = whole(args.workers, "--workers")
    shard = parse_shard(args.shard) if args.shard is not None else (0, 1)
    if args.out is not None:
        own_folder(args.out, "runs/x")
    pool = cluster(args)
    config = make_config(values)
    folder = None
    try:
        with Bar(shown=not args.quiet) as bar:
            bar.tell("loading images and networks")
            prepared = prepare(config, args.device, away=pool is not None)
            folder = args.out or default_folder(prepared)
            table = run_sweep(
                prepared, folder, workers=workers, shard=shard, device=args.device, force_new=args.force_new,
                progress=bar.update, steps=bar.steps, allow_versions=args.allow_versions, pool=pool, tell=bar.tell,
            )  # fmt: skip
            if table is not None:
                bar.tell("drawing")
                draw(table, prepared.base / folder / FIGURES)
    except KeyboardInterrupt:
        if folder is None:
            raise
        return _stopped(folder)
    if table is None:
        print(f"shard {args.shard} is done in {folder}: the last to end writes the tables; else linksim merge")
        return 0
    if not args.quiet:
        print(table_text(table))
    print(f"results: {folder}")
    return 0


def _reproduce(args: argparse.Namespace) -> int:
    from linksim.engine.config import GALLERY, gallery_of, make_config, read_sweep_file
    from linksim.engine.reproduce import COMMANDS, as_written, parts_of, reproduce, sweep_file
    from linksim.engine.sweep import FIGURES
    from linksim.report.figures import draw
    from linksim.report.progress import Bars
    from linksim.report.show import table_text
    from linksim.train.models import training_command

    file = sweep_file(args.figure)
    values = read_sweep_file(file, changes(args))
    if args.data_dir is not None:
        values["data_dir"] = args.data_dir
    folder = own_folder(args.out or Path("results") / file.stem, "results/x")
    if COMMANDS in values:
        return _commands(args, values, folder)
    if (groups := gallery_of(file)) is not None:
        return _gallery(args, values, str(values.pop(GALLERY, groups)), folder, file)
    config = make_config(values)
    curves = {as_written(part): name for name, part in parts_of(config).items()}
    only = _curves(args.only, curves) if args.only is not None else []
    if args.dry_run:
        return _dry_run(config, file, only)
    figures = Path.cwd() / folder / FIGURES
    workers, pool = whole(args.workers, "--workers"), cluster(args)
    try:
        with Bars(shown=not args.quiet) as bars:
            bars.tell("loading images and networks")
            done = reproduce(
                config, folder, workers=workers, device=args.device, force_new=args.force_new,
                only=only, progress=bars.of, steps=bars.steps, missing=left_out, allow_versions=args.allow_versions,
                pool=pool, tell=bars.tell,
            )  # fmt: skip
            bars.tell("drawing")
            draw(done.table, figures)
    except KeyboardInterrupt:
        if not folder.exists():
            raise
        return _stopped(folder)
    except NoWeights as error:
        if (train := training_command(config, file)) is None:
            raise
        raise NoWeights(f"{error}; {_TRAIN.format(train)}") from None
    if not args.quiet:
        print(table_text(done.table))
    print(f"results: {folder}" + (f"; {len(done.lacking)} curves lack weights" if done.lacking else ""))
    if done.lacking and (train := training_command(config, file)) is not None:
        print(_TRAIN.format(train))
    return 0


def _curves(text: str, known: Mapping[str, str]) -> list[str]:
    """Names of curves, or schemes, from `kd_awgn_1-3,semoma:overhead=twice`, as `--only` has them.

    Args:
        known: the figure's curves, as they are written -> their names.
    """
    from linksim.engine.config import scheme_texts
    from linksim.engine.reproduce import curve_name
    from linksim.engine.variants import parse

    names = set(known.values())
    words = {word: known.get(word, curve_name(word)) for word in map(str.strip, text.split(","))}
    curves = [name for name in words.values() if name in names]
    # Parameters have commas between them too, so that what is no curve is read together.
    schemes = [word for word, name in words.items() if name not in names]
    return curves + [parse(name).label for name in (scheme_texts(",".join(schemes)) if schemes else [])]


def _commands(args: argparse.Namespace, values: Mapping[str, object], folder: Path) -> int:
    """Runs a figure that is no sweep: a row of other commands."""
    from linksim.engine.reproduce import commands_of

    _refuse(args, "a row of commands")
    for words in commands_of(values, folder, args.data_dir):
        print("linksim", shlex.join(words), flush=True)
        if not args.dry_run and (code := int(args.main(words))):
            return code
    return 0


def _gallery(args: argparse.Namespace, values: Mapping[str, object], groups: str, folder: Path, file: Path) -> int:
    """Draws a figure of example images."""
    from linksim.cli.results import draw_gallery
    from linksim.engine.config import make_config

    _refuse(args, "example images")
    if "groups" in changes(args):
        raise LinksimError("--set groups: this figure is example images: --set gallery=0,1,2")
    if args.dry_run:
        return _dry_run(make_config(values), file, [])
    for path in draw_gallery(values, groups, folder, args.device, args.quiet):
        print(path)
    return 0


def _refuse(args: argparse.Namespace, what: str) -> None:
    """Raises LinksimError for options that a figure which is no sweep would not hear."""
    for option in ("only", "cluster", "force_new", "allow_versions"):
        if getattr(args, option):
            raise LinksimError(f"--{option.replace('_', '-')}: this figure is {what}, and no sweep: leave it out")


def _dry_run(config: SweepConfig, file: Path, only: Sequence[str]) -> int:
    """Says which curves of a figure lack weights, and what it costs to train those that can be trained."""
    from linksim.engine.reproduce import parts_of, what_lacks
    from linksim.models.weights import unserved
    from linksim.train.models import image_shape, models_for, training_command, with_prerequisites

    shape = image_shape(config)
    curves = what_lacks(config, shape, only)
    for name, why in curves.items():
        print(f"{'lacks' if why else 'ready'}  {name}{f': {why}' if why else ''}")
    parts = parts_of(config)
    wanted = dict.fromkeys(model for name in curves for model in models_for(parts[name], shape))
    models = with_prerequisites(unserved(wanted)) if any(curves.values()) else []
    if not models and not any(curves.values()):
        print("nothing of this figure is to be trained")
    if not models:
        return 0
    for model in models:
        print(f"needed  {model.name}")
    print_costs(models, "fast", {})
    if (train := training_command(config, file)) is not None:
        print(_TRAIN.format(train))
    return 0


def _merge(args: argparse.Namespace) -> int:
    from linksim.engine.sweep import FIGURES, merge
    from linksim.report.figures import draw
    from linksim.report.show import table_text

    out = args.out or args.folders[0]
    figures = Path.cwd() / out / FIGURES
    table = merge(args.folders, out, args.allow_versions)
    draw(table, figures)
    print(table_text(table))
    print(f"results: {out}")
    return 0


def _stopped(folder: Path) -> int:
    print(f"\nstopped: what is done is kept in {folder}; the same command goes on with it", file=sys.stderr)
    return 130
