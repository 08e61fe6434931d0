"""`linksim list`, `assets` and `doctor`: what there is, and what this installation can do."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from linksim.cli.options import Commands, Parser, command, print_rows, print_table
from linksim.errors import LinksimError, unknown
from linksim.registry import Registry


def add_commands(commands: Commands[Parser]) -> None:
    """Adds the commands of this file."""
    listing = command(commands, "list", _list, "what there is: schemes, refiners, channels, metrics, ...")
    listing.add_argument("what", metavar="|".join((*_LISTS, _WEIGHTS)))

    assets = commands.add_parser("assets", help="weights of metrics and data sets: list, get, check")
    actions = assets.add_subparsers(dest="action", metavar="list|get|check", parser_class=Parser, required=True)
    command(actions, "list", _assets_list, "what there is and what is installed")
    get = command(actions, "get", _assets_get, "fetch one, or take it from a file")
    get.add_argument("name")
    get.add_argument("--from", dest="source", type=Path, metavar="FILE", help="a file or folder that is at hand")
    command(actions, "check", _assets_check, "hash what is installed")

    command(commands, "doctor", _doctor, "what this installation can do and what is missing")


def _list(args: argparse.Namespace) -> int:
    if args.what not in (*_LISTS, _WEIGHTS):
        raise unknown("list", args.what, [*_LISTS, _WEIGHTS])
    if args.what == _WEIGHTS:
        _weights()
    else:
        print_rows(_LISTS[args.what]())
    return 0


Rows = Iterable[tuple[str, str]]


def _schemes() -> Rows:
    from linksim.schemes.registry import SCHEMES

    return _plug_ins(SCHEMES)


def _refiners() -> Rows:
    from linksim.refine.registry import REFINERS

    return _plug_ins(REFINERS)


def _plug_ins(registry: Registry[Any]) -> Rows:
    """Each with its parameters; one that cannot be loaded says why."""
    registry.check_installed(f"{registry.kind}s")
    for name in registry.names():
        try:
            found = registry.find(name)
        except LinksimError as error:
            yield name, f"BAD: {error}"
            continue
        yield getattr(found, "form", "") or name, found.summary
        for key, field in found.Params.model_fields.items() if hasattr(found, "Params") else ():
            yield f"  {key}={field.default}", field.description or ""


def _channels() -> Rows:
    from linksim.link.channels import CHANNELS

    return _plug_ins(CHANNELS)


def _metrics() -> Rows:
    from linksim.metrics import METRICS

    return _plug_ins(METRICS)


def _datasets() -> Rows:
    from linksim.data import DATASETS

    return _plug_ins(DATASETS)


def _weights() -> None:
    from linksim.report.zoo import zoo

    table = zoo()
    table["mb"] = [f"{size:.1f}" if size else "-" for size in table["mb"]]
    print_table(table.rename(columns={"psnr_db": "PSNR in dB at 0/10/20 dB", "mb": "MB"}))


_LISTS: dict[str, Callable[[], Rows]] = {
    "schemes": _schemes,
    "refiners": _refiners,
    "channels": _channels,
    "metrics": _metrics,
    "datasets": _datasets,
}

_WEIGHTS = "weights"

#: Of the column with assets' names.
_WIDTH = 20


def _assets_list(args: argparse.Namespace) -> int:
    from linksim import assets

    for row in assets.listing():
        size = "" if row.size is None else f"{row.size / 1e6:.1f} MB"
        print(f"{row.name:{_WIDTH}}{row.state:10}{size:>9}  {row.purpose}; {row.source}; {row.licence}")
    return 0


def _assets_get(args: argparse.Namespace) -> int:
    from linksim import assets
    from linksim.report.progress import Download

    with Download() as download:
        path = assets.get(args.name, args.source, download.update)
    print(f"{args.name}: {path}")
    return 0


def _assets_check(args: argparse.Namespace) -> int:
    from linksim import assets

    bad = 0
    for row in assets.listing():
        if row.state != "installed":
            print(f"{row.name:{_WIDTH}}{row.state}")
            continue
        try:
            assets.check(row.name)
            print(f"{row.name:{_WIDTH}}good")
        except LinksimError as error:
            bad += 1
            print(f"{row.name:{_WIDTH}}BAD: {error}")
    return 2 if bad else 0


def _doctor(args: argparse.Namespace) -> int:
    from linksim.report.doctor import diagnose

    checks, assets = diagnose()
    for what, good, words in checks:
        print(f"{'ok ' if good else 'BAD'}  {what:15}{words}")
    for name, state in assets:
        print(f"{'ok ' if state == 'installed' else '-  '}  asset {name:{_WIDTH}}{state}")
    return 0 if all(good for _, good, _ in checks) else 2
