"""The command line: parse, call, print."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from linksim.errors import LinksimError, unknown

if TYPE_CHECKING:
    from linksim.train.spec import Spec

_SETTINGS = {
    "scheme": ("NAME[:KEY=VALUE,...],...", "schemes and their parameters (linksim list schemes)"),
    "channel": ("NAME,...", "awgn, rayleigh, rician (linksim list channels)"),
    "snr": ("A:B:STEP", "SNR points in dB, both ends included; also 0,5,10"),
    "rho": ("K/M,...", "bandwidth ratios, like 1/6,1/3"),
    "dataset": ("NAME", "cifar10-mini (embedded), cifar10, cifar10-val, folder:DIR"),
    "data-dir": ("DIR", "where cifar10 lies, when it is not an installed asset"),
    "image-size": ("PIXELS", "crop and resize the images of a folder"),
    "users": ("N", "users that send at once, 1 to 8"),
    "groups": ("G", "image groups a point (default: all of the data set)"),
    "until": ("METRIC=HALFWIDTH", "stop a point when its 95%% interval is this narrow, like psnr=0.1"),
    "min-groups": ("G", "groups that --until evaluates in any case (default 128)"),
    "max-groups": ("G", "groups at which --until gives up"),
    "metrics": ("NAME,...", "psnr, ssim, lpips, lpips-alex, fid, kid (linksim list metrics)"),
    "power": ("CONVENTION", "sum (default) or per-ue"),
    "rician-k": ("DB", "K factor of the rician channel, dB"),
    "csi-error": ("VAR", "variance of the error of the channel estimate; 0 is perfect CSI"),
    "pixels": ("KIND", "float (default), or uint8: round reconstructions to 8 bits"),
    "seed": ("SEED", "seed of every random draw"),
    "mcs": ("MCS", "for schemes that have it: qpsk-1/2, 16qam-3/4, ..., or envelope"),
    "split": ("SHARES", "for schemes that have it: 0.8/0.2, equal, sic"),
    "csi": ("KIND", "for schemes that have it: the side information of the users"),
    "start": ("T", "for refiners that have it: T', at which the diffusion starts, or auto (by SNR)"),
    "steps": ("N", "for refiners that have it: steps from T' to 0"),
    "prior": ("NAME", "for refiners that have it: small, large, a checkpoint or a diffusers folder"),
}
_MODEL_OPTIONS = ("channel", "rho", "size", "users", "csi", "power", "ablation")
_KEYS = {"rician-k": "rician_k_db", "csi-error": "csi_error_var"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise LinksimError(f"{message} (see `{self.prog} --help`)")

    def parse_all(self, words: Sequence[str]) -> argparse.Namespace:
        """The arguments; an option that the command does not have is an error that names the nearest."""
        args, rest = self.parse_known_args(words)
        if rest:
            commands = next(a.choices for a in self._actions if isinstance(a, argparse._SubParsersAction))
            used = commands.get(args.command, self)
            if not rest[0].startswith("--"):
                used.error(f"{rest[0]!r} is too much")
            raise unknown(
                "option", rest[0].partition("=")[0], [o for o in used._option_string_actions if o[:2] == "--"]
            )
        return args


def _parser() -> _Parser:
    parser = _Parser(
        prog="linksim", description="End-to-end link simulator for semantic multi-user image transmission."
    )
    parser.add_argument("--version", action="store_true", help="print the version and the commit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    sweep = commands.add_parser(
        "sweep", help="simulate curves and write tables and figures; resumes what was cut short"
    )
    sweep.add_argument("file", nargs="?", type=Path, help="a sweep file (YAML); options below go before its values")
    for name, (metavar, text) in _SETTINGS.items():
        sweep.add_argument(f"--{name}", metavar=metavar, help=text, dest=_KEYS.get(name, name.replace("-", "_")))
    sweep.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of the sweep file"
    )
    sweep.add_argument("--out", type=Path, metavar="DIR", help="results folder (default: runs/ and a name of its own)")
    sweep.add_argument("--workers", metavar="N", help="processes (default: one a CPU)")
    sweep.add_argument("--shard", metavar="I/N", help="work on part I (from 0) of N alone, for job arrays")
    sweep.add_argument("--device", metavar="NAME", default="cpu", help="cpu (default) or cuda")
    sweep.add_argument("--force-new", action="store_true", help="set a folder of another sweep aside and start anew")
    sweep.add_argument("--quiet", action="store_true", help="no progress bar and no table")
    _debug(sweep)

    show = commands.add_parser("show", help="print the table of a results folder")
    show.add_argument("folder", type=Path)
    plot = commands.add_parser(
        "plot", help="draw the figures of results folders again, or the losses of a training run"
    )
    plot.add_argument("folders", type=Path, nargs="+", metavar="folder")
    plot.add_argument("--out", type=Path, metavar="DIR", help="where to (default: figures/ in the folder)")
    compare = commands.add_parser("compare", help="paired differences between schemes, with intervals")
    compare.add_argument("folder", type=Path)
    compare.add_argument("--baseline", required=True, metavar="NAME", help="the variant that others are compared with")
    compare.add_argument("--stage", metavar="NAME", help="stage of the baseline: first, or a refiner's (default)")
    compare.add_argument("--metric", default="psnr_db", metavar="COLUMN", help="per-image column (default psnr_db)")
    grid = commands.add_parser("gallery", help="example images: the original and what every scheme shows of it")
    grid.add_argument("file", nargs="?", type=Path, help="a sweep file; options below go before its values")
    for name in ("scheme", "channel", "snr", "rho", "dataset", "data-dir", "image-size", "users", "metrics", "power",
                 "seed", "csi", "start", "steps", "prior"):  # fmt: skip
        metavar, text = _SETTINGS[name]
        grid.add_argument(f"--{name}", metavar=metavar, help=text, dest=_KEYS.get(name, name.replace("-", "_")))
    grid.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of the file")
    grid.add_argument("--groups", metavar="G,...", default="0,1,2", help="which image groups (default 0,1,2)")
    grid.add_argument("--out", type=Path, metavar="DIR", help="folder of the figures (default: runs/gallery)")
    grid.add_argument("--device", metavar="NAME", default="cpu", help="cpu (default) or cuda")
    _debug(grid)
    merge = commands.add_parser("merge", help="bring the shards of a sweep together and write its tables")
    merge.add_argument("folders", type=Path, nargs="+", metavar="folder")
    merge.add_argument("--out", type=Path, metavar="DIR", help="where to (default: the first folder)")
    listing = commands.add_parser("list", help="what there is: schemes, refiners, channels, metrics, ...")
    listing.add_argument("what", metavar="schemes|refiners|channels|metrics|datasets|weights")
    assets = commands.add_parser("assets", help="weights of metrics and data sets: list, get, check")
    actions = assets.add_subparsers(dest="action", metavar="list|get|check", parser_class=_Parser, required=True)
    actions.add_parser("list", help="what there is and what is installed")
    get = actions.add_parser("get", help="fetch one, or take it from a file")
    get.add_argument("name")
    get.add_argument("--from", dest="source", type=Path, metavar="FILE", help="a file or folder that is at hand")
    actions.add_parser("check", help="hash what is installed")
    again = commands.add_parser("reproduce", help="a figure of a paper from the weights at hand, resumed and drawn")
    again.add_argument("figure", metavar="FIGURE", help="fig06, fig07, ... or a sweep file")
    again.add_argument("--data-dir", metavar="DIR", help="where cifar10 lies, when it is not an installed asset")
    again.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of the sweep file"
    )
    again.add_argument("--out", type=Path, metavar="DIR", help="results folder (default: results/FIGURE)")
    again.add_argument("--workers", metavar="N", help="processes (default: one a CPU)")
    again.add_argument("--device", metavar="NAME", default="cpu", help="cpu (default) or cuda")
    again.add_argument("--only", metavar="NAME,...", help="run these curves alone; the others keep their numbers")
    again.add_argument("--force-new", action="store_true", help="replace what the folder holds of another sweep")
    again.add_argument("--quiet", action="store_true", help="no progress bar and no table")
    _debug(again)
    train = commands.add_parser("train", help="train a learned scheme, or all that a sweep lacks")
    train.add_argument("--scheme", metavar="NAME", help="a learned scheme (linksim list schemes)")
    train.add_argument("--refiner", metavar="NAME", help="cgan or diffbir-mini, on the scheme's output, frozen")
    train.add_argument(
        "--prior",
        nargs="?",
        const="small",
        metavar="NAME",
        help="a diffusion prior: small (default), large, diffbir-mini-vae, diffbir-mini-denoiser",
    )
    train.add_argument(
        "--for", dest="sweep", type=Path, metavar="FILE", help="every model that a sweep needs and lacks"
    )
    train.add_argument("--channel", metavar="NAME", help="awgn (default) or rayleigh")
    train.add_argument("--rho", metavar="K/M", help="channel uses of one user's image over its size (default 1/6)")
    train.add_argument("--size", metavar="SIZE", help="compact (default) or paper")
    train.add_argument("--users", metavar="N", help="users (default 2)")
    train.add_argument(
        "--ablation", metavar="NAME", help="fa, crosskd, j1..j7 of kd, scratch of semnoma: see list schemes"
    )
    train.add_argument("--csi", metavar="KIND", help="own, all or snr (default: the scheme's)")
    train.add_argument("--power", metavar="CONVENTION", help="sum (default) or per-ue")
    train.add_argument("--budget", metavar="TIME", help="time for each model, like 40m or 2h")
    train.add_argument("--steps", metavar="N", help="steps, in place of a time")
    train.add_argument("--recipe", default="fast", metavar="NAME", help="fast (default) or paper")
    train.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="change a value of the recipe, like loss=mse, cross_layer=2, learning_rate=2e-3, weights=10/1/1",
    )  # fmt: skip
    train.add_argument("--warm", metavar="MODEL", help="start from another model's weights; auto takes the nearest")
    train.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="where CIFAR-10 lies, when it is no installed asset"
    )
    train.add_argument("--out", type=Path, default=Path("runs/train"), metavar="DIR", help="checkpoints and logs")
    train.add_argument("--replace", action="store_true", help="put the weights in the place of better ones")
    train.add_argument("--resume", action="store_true", help="go on with the run that --out holds")
    train.add_argument("--seed", default="0", metavar="SEED")
    train.add_argument("--device", metavar="NAME", default="cpu", help="cpu (default) or cuda")
    train.add_argument("--jobs", metavar="N", help="with --for: models that are trained side by side")
    tune = commands.add_parser("tune", help="find the T' of a diffusion refiner on validation images")
    for name in ("scheme", "channel", "snr", "rho", "data-dir", "users", "power", "groups", "metrics", "seed", "prior"):
        metavar, text = _SETTINGS[name]
        tune.add_argument(f"--{name}", metavar=metavar, help=text, dest=_KEYS.get(name, name.replace("-", "_")))
    tune.add_argument("--starts", metavar="T,...", help="the T' to try")
    tune.add_argument("--replace", action="store_true", help="in the place of a T' that is known already")
    tune.add_argument("--out", type=Path, metavar="DIR", help="results folder (default: runs/ and a name of its own)")
    tune.add_argument("--workers", metavar="N", help="processes (default: one a CPU)")
    tune.add_argument("--device", metavar="NAME", default="cpu", help="cpu (default) or cuda")
    _debug(tune)
    card = commands.add_parser("card", help="where trained weights come from, and the command that makes them again")
    card.add_argument("model", help="name of the weights (linksim list weights)")
    _debug(card)
    verify = commands.add_parser("verify", help="measure the PSNR on the cards of all weights again")
    _debug(train)
    _debug(verify)
    doctor = commands.add_parser("doctor", help="what this installation can do and what is missing")
    for command in (show, plot, compare, merge, listing, doctor, *actions.choices.values()):
        _debug(command)
    return parser


def _debug(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _whole(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise LinksimError(f"{option} {text[:40]!r}: give a whole number, 1 or more")
    return int(text)


def _device(name: str) -> str:
    if name == "cpu":
        return name
    if name.partition(":")[0] != "cuda":
        raise LinksimError(f"--device {name!r}: cpu and cuda are known")
    import torch

    if not torch.cuda.is_available():
        raise LinksimError(f"--device {name}: no CUDA device here: leave the option out")
    index = name.partition(":")[2]
    if index and not (index.isdecimal() and int(index) < torch.cuda.device_count()):
        raise LinksimError(f"--device {name}: there are {torch.cuda.device_count()}: cuda:0 is the first")
    return name


def _sweep(args: argparse.Namespace) -> int:
    from linksim.engine.config import SHARED, make_config, read_sweep_file
    from linksim.engine.plan import parse_shard
    from linksim.engine.sweep import default_folder, prepare, run_sweep
    from linksim.report.progress import Bar

    overrides = _assignments(args.set)
    given = {_KEYS.get(name, name.replace("-", "_")): None for name in _SETTINGS}
    given = {key: value for key in given if (value := getattr(args, key)) is not None}
    values: dict[str, Any] = read_sweep_file(args.file, overrides) if args.file else dict(overrides)
    if "scheme" in given:
        # Schemes named on the command line replace the file's, and with them what the file asked of those.
        values = {key: value for key, value in values.items() if key not in SHARED}
    workers = _whole(args.workers, "--workers")
    shard = parse_shard(args.shard) if args.shard else (0, 1)
    device = _device(args.device)
    if args.out is not None and str(args.out) in ("", "."):
        raise LinksimError("--out names the current folder: give one of its own, like --out runs/x")
    prepared = prepare(make_config({**values, **given}), device)
    folder = args.out or default_folder(prepared)
    try:
        with Bar(shown=not args.quiet) as bar:
            table = run_sweep(
                prepared,
                folder,
                workers=workers,
                shard=shard,
                device=device,
                force_new=args.force_new,
                progress=bar.update,
                steps=bar.steps,
            )
    except KeyboardInterrupt:
        print(f"\nstopped: what is done is kept in {folder}; the same command goes on with it", file=sys.stderr)
        return 130
    if table is None:
        print(f"shard {args.shard} is done in {folder}; when all are: linksim merge {folder}")
        return 0
    if not args.quiet:
        from linksim.report.show import table_text

        print(table_text(table))
    print(f"results: {folder}")
    return 0


def _reproduce(args: argparse.Namespace) -> int:
    from linksim.engine.config import make_config, read_sweep_file, scheme_texts
    from linksim.engine.reproduce import reproduce, sweep_file
    from linksim.report.progress import Bars
    from linksim.report.show import table_text
    from linksim.schemes.registry import parse

    file = sweep_file(args.figure)
    values = read_sweep_file(file, _assignments(args.set))
    if args.data_dir is not None:
        values["data_dir"] = args.data_dir
    only = [parse(text).label for text in scheme_texts(args.only)] if args.only else []
    folder = args.out or Path("results") / file.stem
    if str(folder) in ("", "."):
        raise LinksimError("--out names the current folder: give one of its own, like --out results/x")
    workers = _whole(args.workers, "--workers")
    try:
        with Bars(shown=not args.quiet) as bars:
            done = reproduce(
                make_config(values), folder, workers=workers, device=_device(args.device), force_new=args.force_new,
                only=only, progress=bars.of, steps=bars.steps,
                missing=lambda name, why: print(f"left out  {name}: {why}", flush=True),
            )  # fmt: skip
    except KeyboardInterrupt:
        print(f"\nstopped: what is done is kept in {folder}; the same command goes on with it", file=sys.stderr)
        return 130
    if not args.quiet:
        print(table_text(done.table))
    print(f"results: {folder}" + (f"; {len(done.lacking)} curves lack weights" if done.lacking else ""))
    return 0


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
    from linksim.report.figures import AXES, draw
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
    values = table.groupby(point)[[column for column in AXES if column in table]].nunique()
    for variant, *_ in values.index[(values > 1).any(axis=1)]:
        raise LinksimError(
            f"these folders have different curves of {variant} (other weights, seed, CSI error or pixels): "
            "plot them apart"
        )
    table = table.drop_duplicates(point)
    for path in draw(table, args.out or args.folders[0] / FIGURES):
        print(path)
    return 0


def _compare(args: argparse.Namespace) -> int:
    from linksim.api import compare

    print(
        compare(args.folder, args.baseline, args.metric, args.stage).to_string(
            index=False, float_format=lambda x: f"{x:.4g}"
        )
    )
    return 0


def _gallery(args: argparse.Namespace) -> int:
    from linksim.engine.config import SHARED, make_config, read_sweep_file
    from linksim.report.gallery import gallery

    names = ("scheme", "channel", "snr", "rho", "dataset", "data_dir", "image_size", "users", "metrics", "power",
             "seed", "csi", "start", "steps", "prior")  # fmt: skip
    overrides = _assignments(args.set)
    values = read_sweep_file(args.file, overrides) if args.file else dict(overrides)
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if "scheme" in given:
        values = {key: value for key, value in values.items() if key not in SHARED}
    values |= given
    groups = [_number(text.strip(), "--groups") for text in args.groups.split(",")]
    config = make_config({"snr": "0", "metrics": "psnr,lpips-alex", **values, "groups": 1})
    folder = args.out or Path("runs/gallery")
    if str(folder) in ("", "."):
        raise LinksimError("--out names the current folder: give one of its own, like --out runs/gallery")
    for path in gallery(
        config, groups, folder, device=_device(args.device),
        missing=lambda name, why: print(f"left out  {name}: {why}", flush=True),
        report=lambda words: print(words, file=sys.stderr, flush=True),
    ):  # fmt: skip
        print(path)
    return 0


def _number(text: str, option: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise LinksimError(f"{option} {text[:40]!r}: give whole numbers from 0, like 0,1,2")
    return int(text)


def _merge(args: argparse.Namespace) -> int:
    from linksim.engine.sweep import merge
    from linksim.report.show import table_text

    out = args.out or args.folders[0]
    print(table_text(merge(args.folders, out)))
    print(f"results: {out}")
    return 0


def _list(args: argparse.Namespace) -> int:
    rows: list[tuple[str, str]]
    if args.what == "schemes":
        from linksim.schemes.registry import find, names

        rows = []
        for name in names():
            try:
                system = find(name)
            except LinksimError as error:
                rows.append((name, f"BAD: {error}"))
                continue
            rows.append((name, system.summary))
            for key, field in system.Params.model_fields.items():
                rows.append((f"  {key}={field.default}", field.description or ""))
    elif args.what == "refiners":
        from linksim.refine.registry import find as find_refiner
        from linksim.refine.registry import names as refiners

        rows = []
        for name in refiners():
            try:
                refiner = find_refiner(name)
            except LinksimError as error:
                rows.append((name, f"BAD: {error}"))
                continue
            rows.append((name, refiner.summary))
            rows += [(f"  {key}={f.default}", f.description or "") for key, f in refiner.Params.model_fields.items()]
    elif args.what == "channels":
        from linksim.link.fading import CHANNELS

        rows = [(name, text) for name, (text, _) in CHANNELS.items()]
    elif args.what == "metrics":
        from linksim.metrics import METRICS

        rows = [(name, metric.summary) for name, metric in METRICS.items()]
    elif args.what == "weights":
        from linksim.weights import cards

        rows = [(name, _card_words(card)) for name, card in cards().items()]
    elif args.what == "datasets":
        from linksim.data import DATASETS

        rows = list(DATASETS.items())
    else:
        raise unknown("list", args.what, ["schemes", "refiners", "channels", "metrics", "datasets", "weights"])
    _print_rows(rows)
    return 0


def _card_words(card: Mapping[str, Any]) -> str:
    from linksim.report.progress import figures
    from linksim.train.spec import spec_from_json
    from linksim.weights import SHIPPED, missing_words, present

    place = "shipped" if card["folder"] == str(SHIPPED) else "your own"
    if not present(card):
        place = f"weights {missing_words(card)}"
    return f"{figures(card['validation'])}; {card['lineage_pairs']} {spec_from_json(card['model']).unit}, {place}"


def _assets(args: argparse.Namespace) -> int:
    from linksim import assets
    from linksim.report.progress import Download

    if args.action == "get":
        with Download() as download:
            path = assets.get(args.name, args.source, download.update)
        print(f"{args.name}: {path}")
        return 0
    if args.action == "list":
        for row in assets.listing():
            size = "" if row.size is None else f"{row.size / 1e6:.1f} MB"
            print(f"{row.name:14}{row.state:10}{size:>9}  {row.purpose}; {row.source}; {row.licence}")
        return 0
    bad = 0
    for row in assets.listing():
        if row.state != "installed":
            print(f"{row.name:14}{row.state}")
            continue
        try:
            assets.check(row.name)
            print(f"{row.name:14}good")
        except LinksimError as error:
            bad += 1
            print(f"{row.name:14}BAD: {error}")
    return 2 if bad else 0


def _train(args: argparse.Namespace) -> int:
    from linksim.train.run import parse_budget, run_training

    seconds = parse_budget(args.budget) if args.budget else None
    steps = _whole(args.steps, "--steps")
    if sum(value is not None for value in (args.scheme, args.sweep, args.prior)) != 1:
        raise LinksimError("give one of --scheme NAME, --prior and --for FILE")
    if args.refiner is not None and args.scheme is None:
        raise LinksimError(f"--refiner {args.refiner}: name the scheme that it refines: --scheme kd")
    if not re.fullmatch(r"[0-9]{1,9}", args.seed):
        raise LinksimError(f"--seed {args.seed!r}: give a whole number, 0 to 999999999")
    if args.sweep:
        return _train_for(args)
    if args.jobs is not None:
        raise LinksimError("--jobs is for --for: one model is one process")
    spec = _spec(args)
    recipe = spec.make_recipe(args.recipe, _assignments(args.set))
    out = args.out / spec.name
    if (out / "checkpoint.pt").exists() and not args.resume:
        raise LinksimError(f"{out} holds a run: --resume goes on with it, or take another --out")
    from linksim.report.progress import TrainingBar, figures

    try:
        with TrainingBar(spec.name, recipe.batch, spec.unit) as bar:
            paths, facts = run_training(
                spec, recipe, args.data_dir, out, seconds=seconds, steps=steps, seed=int(args.seed),
                device=_device(args.device), warm=args.warm, replace=args.replace, report=bar.update,
            )  # fmt: skip
    except KeyboardInterrupt:
        kept = (out / "checkpoint.pt").exists()
        words = f"the checkpoint in {out} is kept; the same command with --resume goes on" if kept else "nothing yet"
        print(f"\nstopped: {words}", file=sys.stderr)
        return 130
    result = f"validation {figures(facts['validation'])} after {facts['lineage_pairs']} {spec.unit}"
    if paths:
        print(f"{paths[0]}: {result}")
    else:
        print(f"{spec.name}: {result}; better weights are there and stay (--replace puts these in their place)")
    return 0


def _spec(args: argparse.Namespace) -> Spec:
    """The one model that the words of `linksim train` ask for."""
    from linksim.schemes.learned import NO_ABLATION
    from linksim.train.run import model_spec

    if args.prior is not None:
        from linksim.refine.specs import PRIORS

        for option in _MODEL_OPTIONS:
            if getattr(args, option):
                raise LinksimError(f"--{option} is nothing to a prior: leave it out with --prior")
        if args.prior not in PRIORS:
            raise unknown("prior to train", args.prior, PRIORS)
        return PRIORS[args.prior]
    first = model_spec(
        args.scheme, args.channel or "awgn", args.rho or "1/6", args.size or "compact",
        _whole(args.users or "2", "--users") or 2, args.csi, args.power or "sum",
        ablation=args.ablation or NO_ABLATION,
    )  # fmt: skip
    if args.refiner is None:
        return first
    from linksim.refine.specs import refiner_spec

    return refiner_spec(args.refiner, first)


def _train_for(args: argparse.Namespace) -> int:
    """Every model that a sweep lacks, each in a process of its own."""
    from linksim import weights
    from linksim.engine.config import make_config, read_sweep_file
    from linksim.train.many import train_all
    from linksim.train.run import image_shape, models_for, waves

    for option in _MODEL_OPTIONS:
        if getattr(args, option):
            raise LinksimError(f"--{option} is the sweep's to say: leave it out with --for")
    if args.replace:
        raise LinksimError("--for trains what has no weights: leave --replace out")
    jobs = _whole(args.jobs or "1", "--jobs") or 1
    config = make_config(read_sweep_file(args.sweep))
    if (shape := image_shape(config)) != weights.TRAINED_SHAPE:
        raise LinksimError(f"--for: images of {shape[1]}x{shape[2]}: linksim trains on CIFAR-10 alone, images of 32x32")
    needed = models_for(config, shape)
    known = weights.cards()
    lacking = [spec for spec in needed if spec.name not in known or not weights.present(known[spec.name])]
    for spec in needed:
        print(f"{'needed' if spec in lacking else 'there '}  {spec.name}")
    if not lacking:
        print("every model of this sweep has its weights")
        return 0
    if args.budget is None and args.steps is None:
        raise LinksimError("no budget given: --budget 40m, or --steps")
    for spec in lacking:
        spec.make_recipe(args.recipe, _assignments(args.set))
    words = ["--resume", "--recipe", args.recipe, "--out", str(args.out), "--seed", args.seed, "--device", args.device]
    for option in ("budget", "steps", "data_dir"):
        if getattr(args, option) is not None:
            words += [f"--{option.replace('_', '-')}", str(getattr(args, option))]
    words += [word for change in args.set for word in ("--set", change)]
    train_all(waves(lacking), words, jobs, warm=args.warm)
    return 0


def _tune(args: argparse.Namespace) -> int:
    from linksim.refine.tune import CANDIDATES, tune, words
    from linksim.report.progress import Bar

    names = ("channel", "snr", "rho", "data_dir", "users", "power", "seed", "prior")
    values = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    values |= {"dataset": "cifar10-val", "metrics": args.metrics or "lpips-alex", "groups": args.groups or 64}
    starts = args.starts.split(",") if args.starts else list(map(str, CANDIDATES))
    candidates = [_whole(text.strip(), "--starts") or 0 for text in starts]
    if args.scheme is None:
        raise LinksimError("no scheme given: --scheme kd+ddim")
    try:
        with Bar() as bar:
            folder, found = tune(
                {"snr": "-5:20:5", **values, "scheme": args.scheme}, candidates, args.out,
                workers=_whole(args.workers, "--workers"), device=_device(args.device), replace=args.replace,
                progress=bar.update, steps=bar.steps,
            )  # fmt: skip
    except KeyboardInterrupt:
        print("\nstopped: what is done is kept; the same command goes on with it", file=sys.stderr)
        return 130
    for tuned in found:
        print(words(tuned))
    print(f"results: {folder}")
    return 0


def _assignments(texts: Sequence[str]) -> dict[str, str]:
    """`--set KEY=VALUE`, several times."""
    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise LinksimError(f"--set {text!r}: write key=value")
        values[key.strip()] = value
    return values


def _card(args: argparse.Namespace) -> int:
    from linksim.engine.plan import chosen
    from linksim.report.progress import figures
    from linksim.train.spec import spec_from_json
    from linksim.weights import SHIPPED, cards, missing_words, present

    known = cards()
    name = chosen(list(known), args.model, "model")
    found = known[name]
    unit = spec_from_json(found["model"]).unit
    place = "shipped" if found["folder"] == str(SHIPPED) else found["folder"]
    rows = {
        "model": name,
        "weights": place if present(found) else missing_words(found),
        "data": found.get("data"),
        "recipe": found.get("recipe"),
        "settings": " ".join(f"{key}={value}" for key, value in found.get("settings", {}).items() if key != "name"),
        "trained": f"{found.get('steps')} steps, {found.get('pairs')} {unit}, {found.get('seconds')} s on "
        f"{found.get('device')}",
        "started": _started(name, known),
        "in all": f"{found['lineage_pairs']} {unit}, what it started from included",
        "validation": figures(found["validation"]),
        "golden": f"{found['golden_psnr_db']:.3f} dB (linksim verify measures it again)",
        "code": found.get("code"),
        "command": found.get("command"),
    }
    _print_rows([(key, str(value)) for key, value in rows.items() if value])
    return 0


def _started(name: str, known: Mapping[str, Mapping[str, Any]]) -> str:
    """Where a model's training began, and whether those weights are still there."""
    start = known[name].get("warm_start")
    if not start:
        return "from scratch"
    files = known[name].get("warm_start_files")
    there = list(known[start]["files"].values()) if start in known else []
    if start != name and (not files or files == there):
        return f"from {start}"
    return f"from weights of {start} that are no longer there; the command starts from those that are"


def _verify(args: argparse.Namespace) -> int:
    from linksim import weights
    from linksim.train.run import verify

    bad = 0
    if not weights.cards():
        print("there are no weights: see `linksim train --help`")
    for name, found in weights.cards().items():
        if not weights.present(found) and found["folder"] == str(weights.SHIPPED):
            print(f"-    {name}: weights {weights.missing_words(found)}")
            continue
        try:
            card, here = verify(name)
            good, words = abs(card - here) <= 0.01, f"card {card:.3f} dB, here {here:.3f} dB"
        except LinksimError as error:
            good, words = False, str(error)
        bad += not good
        print(f"{'ok ' if good else 'BAD'}  {name}: {words}")
    return 2 if bad else 0


def _doctor(args: argparse.Namespace) -> int:
    from linksim.report.doctor import diagnose

    checks, assets = diagnose()
    for what, good, words in checks:
        print(f"{'ok ' if good else 'BAD'}  {what:15}{words}")
    for name, state in assets:
        print(f"{'ok ' if state == 'installed' else '-  '}  asset {name:15}{state}")
    return 0 if all(good for _, good, _ in checks) else 2


def _print_rows(rows: Sequence[tuple[str, str]]) -> None:
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        print(f"{name:{width}}  {text}")


_COMMANDS = {
    "sweep": _sweep,
    "reproduce": _reproduce,
    "show": _show,
    "plot": _plot,
    "compare": _compare,
    "gallery": _gallery,
    "merge": _merge,
    "list": _list,
    "assets": _assets,
    "train": _train,
    "tune": _tune,
    "card": _card,
    "verify": _verify,
    "doctor": _doctor,
}


def _join_negative(words: Sequence[str]) -> list[str]:
    """`--snr -5:20:5` to `--snr=-5:20:5`, which argparse would take for an option."""
    joined: list[str] = []
    for word in words:
        if joined and re.fullmatch(r"--[a-z-]+", joined[-1]) and re.match(r"-([\d.]|inf|nan)", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _say(text: str) -> None:
    """The one line of an error; where nobody listens the exit code alone tells."""
    with contextlib.suppress(OSError, ValueError):
        print(f"linksim: {' '.join(text.split())}", file=sys.stderr, flush=True)


def _interrupt(signum: int, frame: object) -> None:
    # Job arrays end a job by SIGTERM: what is done is kept, as after Ctrl-C.
    raise KeyboardInterrupt


def _one_line(message: object, *where: object, **more: object) -> str:
    return f"note: {message}\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 2 something for the user to put right, 130 interrupted."""
    debug = "--debug" in (argv if argv is not None else sys.argv)
    signal.signal(signal.SIGTERM, _interrupt)
    warnings.formatwarning = _one_line
    # What Pillow thinks of a file's metadata helps nobody here: unreadable images are refused.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        args = _parser().parse_all(_join_negative(sys.argv[1:] if argv is None else argv))
        if args.version:
            from linksim.engine.provenance import code_version

            print(code_version())
            return 0
        if args.command is None:
            _parser().print_help()
            return 2
        return _COMMANDS[args.command](args)
    except LinksimError as error:
        if debug:
            raise
        _say(str(error))
        return 2
    except OSError as error:
        if debug or error.errno is None:
            raise
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        where = f"{error.filename}: " if error.filename else ""
        _say(f"{where}{error.strerror}: give a place with room and rights, like --out DIR")
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
