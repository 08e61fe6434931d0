"""A figure from whatever weights are at hand: a sweep in parts, one a curve, put together in one folder.

A part is a sweep of its own, in a folder of its own: weights that come later, or that are trained anew, run their own
curve and nothing else. The draws are keyed by image group and not by scheme, so that the parts are paired as the
schemes of one sweep are.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linksim.engine import provenance
from linksim.engine.cluster import Place
from linksim.engine.config import SweepConfig
from linksim.engine.context import FEATURES_FOLDER, models_of
from linksim.engine.pairs import check
from linksim.engine.sweep import (
    FIGURES,
    PER_GROUP,
    PER_IMAGE,
    TABLE,
    Prepared,
    Progress,
    data_facts,
    prepare,
    read_table,
    run_sweep,
    set_aside,
    shared_plug_ins,
    write_tables,
)
from linksim.engine.tables import without_gaps
from linksim.engine.variants import expand
from linksim.errors import LinksimError, NoWeights, said, unknown
from linksim.files import digest, exclusive, is_part, remove_parts
from linksim.link.config import Setting
from linksim.models import weights
from linksim.paths import shipped
from linksim.refine.base import Steps

if TYPE_CHECKING:
    import pandas as pd

PARTS, LOCK = "parts", ".lock"
_NOT_RUN = "not run yet"
_WAY_OUT = "take it away, or --force-new to set the folder aside and make all anew"
SWEEPS = "sweeps"

#: Key of a file of a figure that is no sweep: the commands of linksim that make it.
COMMANDS = "commands"


@dataclass
class Reproduced:
    """What came out.

    Args:
        table: one row a curve point, of every part that could run.
        lacking: for each part that could not, its name and why.
    """

    table: pd.DataFrame
    lacking: dict[str, str] = field(default_factory=dict)


def sweep_file(name: str) -> Path:
    """The sweep file that `fig06`, or a path, names: in ./sweeps/, else linksim's own. Raises LinksimError."""
    if Path(name).is_file():
        return Path(name)
    found = shipped(Path(SWEEPS) / f"{name}.yaml")
    if found.is_file():
        return found
    folders = [Path(SWEEPS), shipped(Path(SWEEPS) / "fig06.yaml").parent]
    raise unknown("figure", name, sorted({path.stem for folder in folders for path in folder.glob("*.yaml")}))


def commands_of(values: Mapping[str, Any], folder: Path, data_dir: str | None = None) -> list[list[str]]:
    """The words of the commands that make a figure that is no sweep.

    Args:
        values: of its file: `commands`, one text each; `{out}` stands for the folder, and what else the file says, or
            `--set`, for itself in braces.
        folder: results folder.
        data_dir: where cifar10 lies; goes to those commands that have `{data}` in them.

    Raises:
        LinksimError: no such row of texts.

    Example:
        >>> commands_of({"commands": ["bench serve --clients {clients} --out {out}"], "clients": 8}, Path("x"))
        [['bench', 'serve', '--clients', '8', '--out', 'x']]
    """
    texts = values[COMMANDS]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise LinksimError(f"{COMMANDS}: write a list of commands of linksim, a text each")
    if not texts:
        raise LinksimError(f"{COMMANDS}: it is empty: write a command of linksim, or more")
    known = {key: shlex.quote(str(value)) for key, value in values.items() if key != COMMANDS}
    known |= {"out": shlex.quote(str(folder)), "data": f"--data-dir {shlex.quote(data_dir)}" if data_dir else ""}

    def filled(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise LinksimError(f"{COMMANDS}: {{{match[1]}}} stands for nothing: give --set {match[1]}=VALUE")
        return known[match[1]]

    try:
        found = [shlex.split(re.sub(r"\{([^{}]*)\}", filled, text)) for text in texts]
    except ValueError as error:
        raise LinksimError(f"{COMMANDS}: {said(error)}: put it right") from None
    if not all(found):
        raise LinksimError(f"{COMMANDS}: one is empty: take it away")
    return found


def curve_name(text: str) -> str:
    """Name that can be a folder's, of the curve of a scheme, channel and rho.

    Example:
        >>> curve_name("semoma:overhead=twice_awgn_1/3")
        'semoma_overhead=twice_awgn_1-3'
    """
    return re.sub(r"[^A-Za-z0-9.+=-]+", "_", re.sub(r"_(\d+)/(\d+)$", r"_\1-\2", text))


def parts_of(config: SweepConfig) -> dict[str, SweepConfig]:
    """A sweep for each curve of `config`, by its `curve_name`; a name that an earlier curve has ends in a hash."""
    found: dict[str, SweepConfig] = {}
    taken: set[str] = set()
    for text in config.scheme:
        for channel in config.channel:
            for rho in config.rho:
                part = config.model_copy(update={"scheme": (text,), "channel": (channel,), "rho": (rho,)})
                name = curve_name(as_written(part))
                # Some disks do not tell a from A.
                if name.casefold() in taken:
                    name += f"-{digest(as_written(part).encode())[:8]}"
                taken.add(name.casefold())
                found[name] = part
    return found


def as_written(part: SweepConfig) -> str:
    """The one curve of a part, as `--only` takes it: `semoma:overhead=twice_awgn_1/3`."""
    return f"{part.scheme[0]}_{part.channel[0]}_{part.rho[0]}"


def _asked(config: SweepConfig, only: Sequence[str]) -> dict[str, SweepConfig]:
    """The parts that `only` names, by scheme or one by one, all where it is empty. Raises LinksimError for no name."""
    parts = parts_of(config)
    for text in only:
        if text not in config.scheme and text not in parts:
            raise unknown("curve", text, [*config.scheme, *parts])
    return {name: part for name, part in parts.items() if not only or part.scheme[0] in only or name in only}


def what_lacks(config: SweepConfig, shape: tuple[int, int, int], only: Sequence[str] = ()) -> dict[str, str]:
    """For each part of a figure the weights that it lacks; empty where all are there. No images are read.

    Args:
        config: the figure's sweep.
        shape: (C, H, W) of its images.
        only: see `reproduce`.

    Raises:
        LinksimError: a scheme that cannot be set up, or `only` names none.
    """
    found = {}
    there = {name for name, card in weights.cards().items() if weights.present(card)}
    for name, part in _asked(config, only).items():
        lacking = [model.name for model in weights.unserved(models_of(part, shape)) if model.name not in there]
        found[name] = ", ".join(sorted(lacking))
        if lacking:
            continue
        for variant in expand(part.variants)[0]:
            try:
                variant.build(Setting(part.link(part.channel[0]), shape, part.rhos[0]))
            except NoWeights as error:
                found[name] = str(error)
    return found


def reproduce(
    config: SweepConfig,
    folder: Path,
    *,
    workers: int | None = None,
    device: str = "cpu",
    force_new: bool = False,
    only: Sequence[str] = (),
    progress: Callable[[str], Progress] | None = None,
    steps: Steps | None = None,
    missing: Callable[[str, str], None] | None = None,
    allow_versions: bool = False,
    pool: Executor | Place | None = None,
    tell: Callable[[str], None] | None = None,
) -> Reproduced:
    """Runs what is missing of a figure, leaves out what has no weights, and writes the tables.

    Args:
        config: the figure's sweep.
        folder: results folder; the parts are under `parts/` in it. A curve whose weights are gone keeps its numbers,
            those of its part or, where that is gone too, those of the tables.
        workers, device, allow_versions, pool, tell: see `run_sweep`.
        force_new: sets a `folder` aside (renamed, never deleted) that holds another sweep, damaged tables, or curves
            that would stay and are of other images, plug-ins or results version.
        only: what is run, none for all: schemes of the sweep, or single curves, `kd_awgn_1-3`. The others keep their
            numbers.
        progress: gives the function that is told the progress of a part, by its number of how many and its name.
        steps: told the steps of a refinement.
        missing: told the name of a part that has no weights, and why, before anything runs.

    Raises:
        NoWeights: no part can run.
        LinksimError: the folder holds another sweep, files of yours, or curves that do not go with those that are to
            run; or `only` names no curve.
    """
    folder = Path.cwd() / folder
    parts = _asked(config, only)
    try:
        _check_folder(config, folder)
        before = _Tables(_read(folder / TABLE), _read(folder / PER_IMAGE), _read(folder / PER_GROUP))
        if before.groups is not None:
            check(before.groups, folder / PER_GROUP, _WAY_OUT)
        others = _finished_parts(config, folder)
        earlier = provenance.read_run(folder) or {}
        stale = False
    except LinksimError:
        if not force_new:
            raise
        before, others, earlier, stale = _Tables(None, None, None), {}, {}, True
    ready: dict[str, Prepared] = {}
    lacking: dict[str, str] = {}
    for name, part in parts.items():
        try:
            ready[name] = prepare(part, device, away=isinstance(pool, Place))
        except NoWeights as error:
            lacking[name] = str(error)
    stay = {
        name: part
        for name, part in parts_of(config).items()
        if name not in ready and (name in others or len(_rows_of(before.points, part)) > 0)
    }
    for name, part in stay.items():
        there = provenance.read_run(folder / PARTS / name) if name in others else earlier
        if named := _apart(part, (there or {}).get("identity", {}), ready):
            if not force_new:
                anew = "run it without --only, " if only else ""
                raise LinksimError(
                    f"{folder} holds curves that do not go with those to be made ({as_written(part)}: {named}): {anew}"
                    "take another --out, or --force-new to set that folder aside"
                )
            before, others, earlier, stale, stay = _Tables(None, None, None), {}, {}, True, {}
            break
    for name in lacking:
        lacking[name] += "; its curve of before stays" if name in stay else ""
        if missing is not None:
            missing(name, lacking[name])
    if not ready:
        raise NoWeights(f"nothing of this figure can run: {next(iter(lacking.values()))}")
    identity: dict[str, Any] = {}
    for prepared in ready.values():
        identity |= prepared.identity
    identity |= {key: value for key, value in config.model_dump(mode="json").items() if key in identity}
    run = provenance.make_run(
        config, identity, provenance.command_line(), data=data_facts(next(iter(ready.values()))), lacking=lacking
    )
    if stale:
        with exclusive(folder / LOCK, folder):
            pass
        set_aside(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / LOCK, folder):
        remove_parts(folder, folder / FIGURES)
        # Tables that are there keep the provenance of their own until the new ones are.
        if not earlier:
            provenance.write_run(folder, run)
        for number, (name, prepared) in enumerate(ready.items(), 1):
            # A part that was made with other weights is set aside and made again.
            run_sweep(
                prepared, folder / PARTS / name, workers=workers, device=device, force_new=True,
                progress=progress(f"{number}/{len(ready)} {name}") if progress is not None else None, steps=steps,
                features=folder / FEATURES_FOLDER, allow_versions=allow_versions, pool=pool, tell=tell,
            )  # fmt: skip
        # The parts share them: a first stage that stands before several refiners is looked at once.
        if not any(_under_way(folder / PARTS / name) for name in parts_of(config)):
            shutil.rmtree(folder / FEATURES_FOLDER, ignore_errors=True)
        shown = {**others, **{name: _part(folder, name) for name in ready}}
        table = _together(config, {name: part.points for name, part in shown.items()}, before.points)
        images = _together(config, {name: part.images for name, part in shown.items()}, before.images)
        write_tables(folder, table, images, before.groups)
        runs = {name: provenance.read_run(folder / PARTS / name) or {} for name in shown}
        kept_keys = ("linksim", "python", "platform", "started", "finished", "versions")
        run["parts"] = {name: {key: part.get(key) for key in kept_keys} for name, part in runs.items()}
        for facts in runs.values():
            run["identity"] = {**facts["identity"], **run["identity"]}
        # Of the curves that were kept, what was known of them.
        run["parts"] = {**earlier.get("parts", {}), **run["parts"]}
        run["identity"] = {**earlier.get("identity", {}), **run["identity"]}
        not_run = {name: _NOT_RUN for name, part in parts_of(config).items() if not len(_rows_of(table, part))}
        known = {name: why for name, why in earlier.get("lacking", {}).items() if name in not_run}
        run["lacking"] = {**not_run, **known, **lacking}
        run["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        provenance.write_run(folder, run)
    return Reproduced(table, lacking)


@dataclass(frozen=True)
class _Tables:
    """The tables of a folder; None for one that is not there."""

    points: pd.DataFrame | None
    images: pd.DataFrame | None
    groups: pd.DataFrame | None


def _check_folder(config: SweepConfig, folder: Path) -> None:
    """Raises LinksimError where `folder` holds what this figure would take away."""
    if not folder.is_dir() or not any(path.name != LOCK and not is_part(path) for path in folder.iterdir()):
        return
    way_out = "take another --out, or --force-new to set it aside"
    run = provenance.read_run(folder)
    if run is None:
        raise LinksimError(f"{folder} holds files but no figure (no run.json): {way_out}")
    there, here = dict(run["config"]), config.model_dump(mode="json")
    gone = [text for text in there.get("scheme", []) if text not in here["scheme"]]
    for facts in (there, here):
        facts.pop("scheme", None)
        facts.pop("data_dir", None)
    if named := provenance.difference(there, here):
        raise LinksimError(f"{folder} holds another sweep ({named}): {way_out}")
    if gone:
        raise LinksimError(f"{folder} holds curves that this figure has not ({', '.join(gone)}): {way_out}")


def _read(path: Path) -> pd.DataFrame | None:
    """A table that may not be there. Raises LinksimError for one that is damaged."""
    try:
        return read_table(path, _WAY_OUT)
    except FileNotFoundError:
        return None


def _part(folder: Path, name: str) -> _Tables:
    place = folder / PARTS / name
    return _Tables(_read(place / TABLE), _read(place / PER_IMAGE), None)


def _finished_parts(config: SweepConfig, folder: Path) -> dict[str, _Tables]:
    """The parts that were finished before, with whatever weights they had then."""
    found = {}
    for name, part in parts_of(config).items():
        place = folder / PARTS / name
        if not (place / TABLE).is_file() or not (place / PER_IMAGE).is_file():
            continue
        run = provenance.read_run(place)
        there, here = dict(run["config"] if run else {}), part.model_dump(mode="json")
        if {**there, "data_dir": None} == {**here, "data_dir": None}:
            found[name] = _part(folder, name)
    return found


def _under_way(part: Path) -> bool:
    """Whether a part was begun and is not complete."""
    return part.is_dir() and not (part / TABLE).is_file()


def _apart(part: SweepConfig, there: Mapping[str, Any], ready: Mapping[str, Prepared]) -> str | None:
    """What sets a curve that stays apart from those that are made now, though all have it in common; None: nothing.

    Weights are each curve's own. Images, plug-ins of all and the results version are not.

    Args:
        part: the curve that stays.
        there: the identity that it was made with.
        ready: what is made now.
    """
    for prepared in ready.values():
        here = prepared.identity
        # What another channel's code is now says nothing of this one's.
        common = part if prepared.config.channel == part.channel else part.model_copy(update={"channel": ()})
        keys = ["results_version", "data_hash", *provenance.estimates(common), *shared_plug_ins(common)]
        facts = [{key: of.get(key) or None for key in keys} for of in (there, here)]
        if named := provenance.difference(*facts):
            return named
    return None


def _rows_of(table: pd.DataFrame | None, part: SweepConfig) -> pd.DataFrame:
    """The rows of a table that are a part's; none of a table that is not there."""
    import pandas as pd

    if table is None:
        return pd.DataFrame()
    label, channel, rho = _curve(part)
    return table[(table["variant"] == label) & (table["channel"] == channel) & (table["rho"] == rho)]


def _together(
    config: SweepConfig, parts: Mapping[str, pd.DataFrame | None], before: pd.DataFrame | None
) -> pd.DataFrame:
    """The figure's table in the order of its sweep, from those of the parts; what no part has, from that of before.

    A curve that is asked for and is a member of an envelope too is there once: its own part's.
    """
    import pandas as pd

    asked = parts_of(config)
    names = {variant.key: variant.label for variant in expand(config.variants)[0]}
    made = {name: _renamed(rows, asked[name], names) for name, rows in parts.items() if rows is not None}
    # (label, channel, rho) of a curve -> the part whose rows count.
    owner = {_curve(asked[name]): name for name in made}
    for name, rows in made.items():
        for label in rows["variant"].unique():
            owner.setdefault((label, *_curve(asked[name])[1:]), name)
    frames = []
    for name, part in asked.items():
        if name in made:
            mine = [label for label in made[name]["variant"].unique() if owner[label, *_curve(part)[1:]] == name]
            frames.append(made[name][made[name]["variant"].isin(mine)])
        elif _curve(part) not in owner:
            frames.append(_rows_of(before, part))
    table = pd.concat(frames, ignore_index=True)
    if before is not None:
        curve = ["variant", "channel", "rho"]
        there = pd.MultiIndex.from_frame(table[curve])
        table = pd.concat([table, before[~pd.MultiIndex.from_frame(before[curve]).isin(there)]], ignore_index=True)
    return without_gaps(table)


def _curve(part: SweepConfig) -> tuple[str, str, float]:
    """What tells the rows of a part's own curve: variant, channel and rho."""
    return part.scheme[0], part.channel[0], float(part.rhos[0])


def _renamed(rows: pd.DataFrame, part: SweepConfig, names: Mapping[str, str]) -> pd.DataFrame:
    """A part's table, its curves under the figure's names.

    Args:
        names: label by `Variant.key`: a member of an envelope may be asked for in other words.
    """
    labels = {variant.label: names[variant.key] for variant in expand(part.variants)[0]}
    if all(label == name for label, name in labels.items()):
        return rows
    columns = [column for column in ("variant", "envelope_of") if column in rows]
    return rows.assign(**{column: rows[column].replace(labels) for column in columns})
