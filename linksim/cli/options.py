"""What the commands share: the options of a sweep, and how the words of an option are read."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from linksim.errors import LinksimError, shown, unknown

if TYPE_CHECKING:
    import pandas as pd

    from linksim.engine.cluster import Place
    from linksim.models.owner import Model

#: A sweep's settings as options: what stands for the value, and the help.
SETTINGS = {
    "scheme": ("NAME[:KEY=VALUE,...],...", "schemes and their parameters (linksim list schemes)"),
    "channel": ("NAME,...", "awgn, rayleigh, rician:k_db=3, tdl-c, ... (linksim list channels)"),
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
    "antennas": ("M", "receive antennas of the base station (default 1)"),
    "detector": ("NAME", "lmmse (default), zf or mf: tells users apart for schemes that ask for equalised symbols"),
    "csi-error": ("VAR", "variance of the error of the channel estimate; 0 is perfect CSI"),
    "pixels": ("KIND", "float (default), or uint8: round reconstructions to 8 bits"),
    "precision": ("KIND", "of the networks' arithmetic: float32 (default), or bf16"),
    "seed": ("SEED", "seed of every random draw"),
    "mcs": ("MCS", "for schemes that have it: qpsk-1/2, 16qam-3/4, ..., or envelope"),
    "split": ("SHARES", "for schemes that have it: 0.8/0.2 or 4/1, equal, sic"),
    "csi": ("KIND", "for schemes that have it: the side information of the users"),
    "start": ("T", "for refiners that have it: T', at which the diffusion starts, or auto (by SNR)"),
    "steps": ("N", "for refiners that have it: steps from T' to 0"),
    "prior": ("NAME", "for refiners that have it: small, large, a checkpoint or a diffusers folder"),
}
_KEYS = {"csi-error": "csi_error_var"}


class _Once(argparse.Action):
    """Several values in one option. Where that is given twice, the first values would be lost without a word."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: str | None = None) -> None:  # fmt: skip
        given = vars(namespace).setdefault(_GIVEN, set())
        if self.dest in given:
            parser.error(f"{option_string} is given twice: give it once, with commas between its values")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


_GIVEN = "_given"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are linksim's: one line, exit code 2. No option goes by its first letters."""

    def __init__(self, *names: Any, **facts: Any) -> None:
        super().__init__(*names, **{"allow_abbrev": False, **facts})

    def add_argument(self, *names: Any, **facts: Any) -> argparse.Action:
        """See argparse; an option of several values (`NAME,...`) is given once."""
        if str(facts.get("metavar", "")).endswith(",..."):
            facts.setdefault("action", _Once)
        return super().add_argument(*names, **facts)

    def error(self, message: str) -> NoReturn:
        raise LinksimError(f"{message} (see `{self.prog} --help`)")

    def parse_all(self, words: Sequence[str]) -> argparse.Namespace:
        """The arguments; an option that the command does not have is an error that names the nearest."""
        args, rest = self.parse_known_args(words)
        if rest:
            used = self._used(args)
            if not rest[0].startswith("--"):
                used.error(f"{shown(rest[0])} is too much")
            raise unknown(
                "option", rest[0].partition("=")[0], [o for o in used._option_string_actions if o[:2] == "--"]
            )
        vars(args).pop(_GIVEN, None)
        return args

    def _used(self, args: argparse.Namespace) -> argparse.ArgumentParser:
        """The parser of the command that was given, or of the one below it."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                chosen = action.choices.get(str(getattr(args, action.dest, None)))
                return chosen._used(args) if isinstance(chosen, Parser) else self
        return self


Commands = argparse._SubParsersAction  # the type has no public name

#: One line of each command, which its help ends with.
EXAMPLES = {
    "sweep": "sweep --scheme kd,bpg-ldpc-qam-sic --channel rayleigh --snr 0:20:5 --groups 32 --workers 2",
    "reproduce": "reproduce fig06 --dry-run",
    "merge": "merge runs/shard0 runs/shard1 --out runs/all",
    "show": "show results/fig07",
    "plot": "plot results/fig07 --out figures",
    "compare": "compare runs/mine --baseline semnoma --metric psnr_db",
    "gallery": "gallery --scheme kd,kdd --channel rayleigh --snr 5 --groups 0,1",
    "train": "train --scheme semnoma --channel rayleigh --rho 1/6 --budget 40m",
    "tune": "tune --scheme kdd --channel rayleigh",
    "card": "card kd_awgn_1-6_n2_own_sum_32px_compact",
    "verify": "verify kd_awgn_1-6_n2_own_sum_32px_compact",
    "serve": "serve --scheme kd --channel awgn,rayleigh --workers 2",
    "bench serve": "bench serve --scheme kd --clients 8 --requests 4",
    "list": "list weights",
    "assets list": "assets list",
    "assets get": "assets get vgg16 --from vgg16-397923af.pth",
    "assets check": "assets check",
    "doctor": "doctor",
}


def command(commands: Commands[Parser], name: str, run: Any, help: str) -> Parser:
    """A command, with what runs it: a function of the arguments that returns the exit code."""
    # "linksim " stands before the words of a command that has others below it.
    words = [*commands._prog_prefix.split()[1:], name]
    parser = commands.add_parser(name, help=help, epilog=f"example: linksim {EXAMPLES[' '.join(words)]}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=run)
    return parser


def add_settings(parser: Parser, names: Iterable[str] = SETTINGS) -> None:
    """Options of a sweep's settings."""
    for name in names:
        metavar, text = SETTINGS[name]
        parser.add_argument(f"--{name}", metavar=metavar, help=text, dest=_key(name))


def given_settings(args: argparse.Namespace, names: Iterable[str] = SETTINGS) -> dict[str, Any]:
    """Those that were given, by the keys of a sweep file."""
    keys = map(_key, names)
    return {key: value for key in keys if (value := getattr(args, key)) is not None}


def _key(name: str) -> str:
    return _KEYS.get(name, name.replace("-", "_"))


def add_changes(parser: Parser, help: str = "change a value of the sweep file") -> None:
    """`--set KEY=VALUE`, as often as need be; `changes` reads them."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=help)


def changes(args: argparse.Namespace) -> dict[str, str]:
    """What `--set` asks for."""
    values = {}
    for text in args.set:
        key, equals, value = text.partition("=")
        if not equals:
            raise LinksimError(f"--set {shown(text)}: write key=value")
        if key.strip() in values:
            raise LinksimError(f"--set {shown(key.strip())} is given twice: leave one out")
        values[key.strip()] = value
    return values


def sweep_values(args: argparse.Namespace, names: Iterable[str] = SETTINGS) -> dict[str, Any]:
    """The settings of a sweep: a file's, where there is one, changed by `--set` and then by the options."""
    from linksim.engine.config import SHARED, read_sweep_file

    overrides = changes(args)
    values: dict[str, Any] = read_sweep_file(args.file, overrides) if args.file else dict(overrides)
    given = given_settings(args, names)
    if twice := sorted(given.keys() & overrides.keys()):
        raise LinksimError(f"--set {twice[0]} and --{twice[0].replace('_', '-')} ask for the same: leave one out")
    if "scheme" in given:
        # Schemes named on the command line replace the file's, and with them what the file asked of those.
        values = {key: value for key, value in values.items() if key not in SHARED}
    return {**values, **given}


def add_out(parser: Parser, help: str = "results folder (default: runs/ and a name of its own)") -> None:
    """`--out DIR`."""
    parser.add_argument("--out", type=_folder, metavar="DIR", help=help)


def _folder(text: str) -> Path:
    if Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text} is a file: give a folder")
    if not text.isascii() and text.encode("utf-8", "replace").decode() != text:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not UTF-8: give a folder whose name is")
    return Path(text)


def own_folder(folder: Path, example: str) -> Path:
    """`folder`, if it is not the current one, where results would lie among whatever else is there."""
    if str(folder) in ("", "."):
        raise LinksimError(f"--out names the current folder: give one of its own, like --out {example}")
    return folder


def add_machine(parser: Parser, workers: bool = True) -> None:
    """`--device`, and `--workers` and `--cluster` where several processes help."""
    if workers:
        parser.add_argument("--workers", metavar="N", help="processes (default: one a CPU)")
        parser.add_argument(
            "--cluster", metavar="PLACE",
            help="work on a cluster of dask: local:4, tcp://HOST:PORT, file:SCHEDULER.json, slurm:jobs=20,time=2h,...",
        )  # fmt: skip
    parser.add_argument("--device", metavar="NAME", default="cpu", help="cpu (default) or cuda")


def add_dry_run(parser: Parser) -> None:
    """`--dry-run`."""
    parser.add_argument(
        "--dry-run", action="store_true",
        help="train and write nothing: say what the trainings cost in FLOPs, GPU memory and hours",
    )  # fmt: skip


def print_costs(
    models: Sequence[Model], recipe: str, changes: Mapping[str, str], warm: str | None = None, devices: int = 1,
    steps: int | None = None, seconds: float | None = None,
) -> None:  # fmt: skip
    """Prints what trainings cost, line by line as it is found; the arguments are those of `linksim train`."""
    from linksim.report.costs import cost_lines

    for line in cost_lines(models, recipe, changes, warm, devices, steps, seconds):
        print(line, flush=True)


def cluster(args: argparse.Namespace) -> Place | None:
    """What `--cluster` asks for. Raises LinksimError."""
    if args.cluster is None:
        return None
    from linksim.engine.cluster import parse_cluster

    if args.workers is not None:
        raise LinksimError("--cluster says how many workers there are: leave --workers out")
    return parse_cluster(args.cluster)


def whole(text: str | None, option: str) -> int | None:
    """A whole number from 1; None where the option was left out."""
    return None if text is None else natural(text, option, 1, 999_999_999)


def natural(text: str, option: str, least: int, most: int) -> int:
    """A whole number within bounds."""
    if not re.fullmatch(r"[0-9]{1,19}", text) or not least <= int(text) <= most:
        raise LinksimError(f"{option} {shown(text)}: give a whole number, {least} to {most}")
    return int(text)


def decibels(text: str, option: str) -> float:
    """A loss in dB, from 0."""
    if not re.fullmatch(r"[0-9]{1,2}(\.[0-9]{1,4})?", text):
        raise LinksimError(f"{option} {shown(text)}: give dB, like 0.5")
    return float(text)


def left_out(name: str, why: str) -> None:
    """Says which curve is left out."""
    from linksim.report.progress import make_room

    make_room()
    print(f"left out  {name}: {why}", flush=True)


def print_rows(rows: Iterable[tuple[str, str]]) -> None:
    """Names and what is said of each, in two columns."""
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        print(f"{name:{width}}  {text}")


def print_table(table: pd.DataFrame) -> None:
    """A table with its header, text to the left; a line ends with its last word."""
    lines = [list(table.columns), *(list(map(str, row)) for row in table.itertuples(index=False))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{word:{width}}" for word, width in zip(line, widths, strict=True)).rstrip())


def as_words(options: Mapping[str, Any]) -> list[str]:
    """The words of a command for a function's named values: a name that is True is an option without a value.

    Example:
        >>> as_words({"steps": 5, "set": {"batch": 4}, "resume": True, "warm": None})
        ['--steps=5', '--set', 'batch=4', '--resume']
    """
    found: list[str] = []
    for name, value in options.items():
        if name in ("h", "help", "debug"):
            raise LinksimError(f"{name} is nothing to a function: leave it out")
        if not isinstance(value, str | Path | int | float | Fraction | dict | None):
            raise LinksimError(f"{name} = {shown(value)}: write it as on the command line, a text like 'a,b'")
        option = f"--{name.rstrip('_').replace('_', '-')}"
        if isinstance(value, dict):
            found += [word for key, changed in value.items() for word in (option, f"{key}={changed}")]
        elif value is True:
            found.append(option)
        elif value is not None and value is not False:
            found.append(f"{option}={value}")
    return found


def parsed(
    add: Callable[[Commands[Parser]], None], name: str, places: Iterable[str], options: Mapping[str, Any]
) -> argparse.Namespace:
    """A command's arguments from a function's: its places, then its named values (`as_words`). Raises LinksimError."""
    parser = Parser(prog="linksim")
    add(parser.add_subparsers(dest="command", parser_class=Parser))
    return parser.parse_all([name, *places, *as_words(options)])
