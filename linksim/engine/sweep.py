"""Running a sweep into a results folder: check everything, resume, work, write the tables."""

from __future__ import annotations

import contextlib
import math
import shutil
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from linksim.cache import array_from_bytes, is_whole, read_entry
from linksim.data import DATASETS, Grouping, ImageSet, kind_of
from linksim.devices import available_cpus, check_device
from linksim.engine import journal, provenance, tables
from linksim.engine.away import pack
from linksim.engine.cluster import Place, check_place, open_cluster
from linksim.engine.config import SweepConfig, make_config
from linksim.engine.context import (
    FEATURES_FOLDER,
    FEATURES_SUFFIX,
    Context,
    fact_name,
    features_of,
    open_data,
    setting_of,
)
from linksim.engine.pairs import kept
from linksim.engine.plan import Plan, Point, in_shard, make_plan
from linksim.engine.remaining import Remaining
from linksim.engine.stats import units_needed
from linksim.engine.variants import Variant, is_local, plug_ins
from linksim.engine.workers import Pool, ProcessPool, run_here, run_pool, until_means
from linksim.errors import LinksimError, said, shown
from linksim.files import exclusive, is_part, remove_parts, write_atomic
from linksim.link import channels
from linksim.metrics import METRICS, SetMetric, reference_features, require
from linksim.refine.base import Steps, silent
from linksim.schemes.base import Scheme
from linksim.source import source_digest
from linksim.version import numeric_versions

if TYPE_CHECKING:
    import pandas as pd

    from linksim.link.config import Setting

TABLE, TABLE_CSV, PER_IMAGE, PER_GROUP, FIGURES = (
    "table.parquet", "table.csv", "per_image.parquet", "per_group.parquet", "figures",
)  # fmt: skip

#: Columns of every table, that say where on which curve a row is.
_POINT = ("variant", "stage", "channel", "rho", "snr_db")

#: Columns of the table of points that figures and `show` read, beside _POINT.
_TEXTS = ("kind", "dataset", "power", "stop_reason")
_NUMBERS = ("users", "n_images", "bler", "tx_power", "channel_uses")

#: Image groups that may share a code block.
_LARGEST_MULTIPLE = 4096

#: Units on their way to a pool of which nothing is known.
_AT_ONCE = 64

UnitKey = tuple[str, int, int]

#: Values of the metrics of whole sets, in the journal's folder.
_SETS = "sets.log"

#: Held while the files of a results folder are written.
FINISH_LOCK = "finish.lock"

#: Told the units that are done, those in all, and the seconds that are left where that is known.
Progress = Callable[[int, int, float | None], None]


@dataclass(frozen=True)
class Prepared:
    """A sweep that was checked from end to end before anything is written.

    Args:
        base: folder that relative paths are from: the current one before any plug-in was built.
        device: torch device that schemes were built for, which some results depend on.
    """

    config: SweepConfig
    data: ImageSet
    plan: Plan
    identity: dict[str, Any]
    base: Path = field(default_factory=Path.cwd)
    device: str = "cpu"


def prepare(config: SweepConfig, device: str = "cpu", away: bool = False) -> Prepared:
    """Loads the data and builds every scheme; device and metrics have to be there too. Raises LinksimError.

    Args:
        away: the device is that of workers elsewhere, who look for it themselves.
    """
    base = Path.cwd()
    if not away:
        check_device(device)
    require(config.metrics)
    data = open_data(config, base)
    if data.passed_over:
        shown = ", ".join(data.passed_over[:3]) + (", ..." if len(data.passed_over) > 3 else "")
        warnings.warn(
            f"{config.dataset}: {len(data.passed_over)} images of a format that is not read are left out ({shown})",
            stacklevel=2,
        )
    grouping = Grouping(len(data), config.users)
    multiple = 1
    systems: dict[str, str] = {}
    outline = make_plan(config, grouping.n_groups, data.image_shape)
    for variant in tables.variants_of(outline):
        for channel in config.channel:
            for rho in config.rhos:
                setting = setting_of(config, data, channel, rho, device)
                groups, facts = _inspect(variant, setting)
                multiple = math.lcm(multiple, groups)
                systems |= {fact_name(variant.label, channel, rho, key): value for key, value in facts.items()}
    for name in config.metrics:
        columns = {METRICS[name].column, f"{METRICS[name].column}_ci95"}
        for variant in tables.variants_of(outline):
            if taken := columns & set(dict(variant.params)):
                raise LinksimError(
                    f"metric {name!r} and scheme {variant.name!r} both have a column {min(taken)!r}: rename one"
                )
    systems |= {key: code for key, code in shared_plug_ins(config).items() if code is not None}
    plan = make_plan(config, grouping.n_groups, data.image_shape, multiple)
    notes: dict[str, list[str]] = {}
    for point in plan.points:
        if note := tables.note_of_training(config, systems, point):
            notes.setdefault(f"{point.variant.label}: weights {note}", []).append(
                f"{point.channel} {point.snr_db:g} dB"
            )
    for note, points in notes.items():
        warnings.warn(
            f"{note}, run over {points[0]}" + (f" and {len(points) - 1} more" if points[1:] else ""), stacklevel=2
        )
    for name in config.metrics:
        smallest = getattr(METRICS[name], "min_side", 1)
        if min(data.image_shape[1:]) < smallest:
            raise LinksimError(f"{name} needs images of {smallest}x{smallest} or more: take it out of --metrics")
    for name in tables.set_metrics(config):
        if config.until:
            raise LinksimError(f"{name} needs a fixed number of images: take --groups instead of --until")
        tables.set_metric(name).check_count(plan.groups * config.users)
    if plan.derived and "psnr" not in config.metrics:
        raise LinksimError("an envelope is taken by mean PSNR: add psnr to --metrics")
    return Prepared(config, data, plan, provenance.identity(config, data.fingerprint, systems), base, device)


def shared_plug_ins(config: SweepConfig) -> dict[str, str | None]:
    """Hash of the code of each plug-in that all schemes of a sweep meet, by its key in the sweep's identity.

    linksim's own metrics and data sets have None, which no identity has; its channels are empty there.
    """
    found: dict[str, str | None] = {
        f"metric {name} plug-in": source_digest(METRICS[name]) or None for name in config.metrics
    }
    found |= {f"channel {channel} plug-in": channels.digest(channel) for channel in config.channel}
    found["dataset plug-in"] = source_digest(DATASETS[kind_of(config.dataset)]) or None
    return found


def _inspect(variant: Variant, setting: Setting) -> tuple[int, dict[str, str]]:
    """Groups that the units of a scheme must be a multiple of, and what its results depend on."""
    try:
        system = variant.build(setting)
        facts = {str(key): str(value) for key, value in system.provenance().items()} | plug_ins(type(system))
        groups = system.group_multiple if isinstance(system, Scheme) else 1
    except (LinksimError, OSError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise LinksimError(f"scheme {variant.label!r} cannot be set up: {said(error)} (--debug: traceback)") from error
    if not isinstance(groups, int) or not 1 <= groups <= _LARGEST_MULTIPLE:
        raise LinksimError(
            f"scheme {variant.label!r} has group_multiple {shown(groups)}: 1 to {_LARGEST_MULTIPLE} are possible"
        )
    return groups, facts


def default_folder(prepared: Prepared) -> Path:
    """`runs/<scheme>_<channel>_<hash>`: the same sweep has the same folder, another sweep another one."""
    config = prepared.config
    names = list(dict.fromkeys(variant.name for variant in config.variants))
    shown = "+".join(names[:3]) + (f"+{len(names) - 3}" if len(names) > 3 else "")
    return (
        Path("runs")
        / f"{shown}_{'+'.join(map(channels.file_name, config.channel))}_{provenance.identity_hash(prepared.identity)}"
    )


def run_sweep(
    prepared: Prepared,
    folder: Path,
    *,
    workers: int | None = None,
    shard: tuple[int, int] = (0, 1),
    device: str = "cpu",
    force_new: bool = False,
    progress: Progress | None = None,
    steps: Steps | None = None,
    features: Path | None = None,
    allow_versions: bool = False,
    pool: Executor | Place | None = None,
    tell: Callable[[str], None] | None = None,
) -> pd.DataFrame | None:
    """Runs, or goes on with, a sweep in `folder`.

    Args:
        workers: processes; None takes one a CPU (one on a GPU), no more than there are units. With `pool`, the units on
            their way at the most.
        shard: (i, n), work on the i-th of n parts alone.
        device: torch device.
        force_new: sets a folder of another sweep aside (renamed, never deleted).
        progress: called with (units done, units in all, seconds left or None).
        steps: called with (steps done, steps in all) of a refinement.
        features: folder of the features of images, when it is shared with other sweeps and stays; by default it is
            this sweep's own, and goes when it is complete.
        allow_versions: go on with what other versions of the packages began.
        pool: what evaluates the units in place of processes of its own: a cluster (`linksim.engine.cluster`), or
            whatever has `submit`, whose processes see the same files and have one thread each.
        tell: called with what is going on beside units: what a pool is waiting for, that tables are written.

    Returns:
        The table; None when other shards still have work.

    Raises:
        LinksimError: the folder belongs to another sweep, another process works in it, other versions of the packages
            began it, it was moved or removed meanwhile, a scheme failed.
    """
    folder = prepared.base / folder
    features = prepared.base / features if features is not None else None
    if isinstance(pool, Place) and not (folder / provenance.RUN_FILE).exists():
        check_place(pool)
    _open_folder(prepared, folder, force_new)
    tag = f"shard{shard[0]:03d}of{shard[1]:03d}"
    journals = folder / journal.FOLDER
    with exclusive(journals / f"{tag}.lock", folder):
        done = _work(
            prepared,
            folder,
            journals,
            tag,
            workers,
            shard,
            device,
            features,
            progress,
            steps,
            allow_versions,
            pool,
            tell,
        )  # fmt: skip
    table = finish(prepared, folder, device, features, allow_versions, needed=done, tell=tell)
    if table is None and shard == (0, 1):
        raise LinksimError(f"{folder}: its journal lacks units that were done: run the same command again")
    return table


def _open_folder(prepared: Prepared, folder: Path, force_new: bool | None = None) -> None:
    """Sees to it that `folder` holds this sweep's `run.json` and a journal folder. Raises LinksimError.

    Args:
        force_new: whether what else it holds is set aside; None: that was not to be asked for.
    """
    run = None
    if folder.is_dir() and not _blank(folder):
        problem = None
        try:
            run = provenance.read_run(folder)
            if run is None:
                problem = "holds files but no sweep (no run.json)"
            elif named := provenance.difference(run["identity"], prepared.identity):
                problem = f"holds another sweep ({named})"
        except LinksimError as error:
            problem = f"cannot be gone on with ({error})"
        if problem and not force_new:
            aside = "" if force_new is None else ", or --force-new to set that folder aside"
            raise LinksimError(f"{folder} {problem}: take another --out{aside}")
        if problem:
            _refuse_if_busy(folder)
            set_aside(folder)
    (folder / journal.FOLDER).mkdir(parents=True, exist_ok=True)
    # Shards that start together take turns, and with those that end: what is half-written here is nobody's.
    with FileLock(folder / journal.FOLDER / FINISH_LOCK):
        remove_parts(folder, folder / FIGURES)
        if provenance.read_run(folder) is None:
            made = provenance.make_run(
                prepared.config,
                prepared.identity,
                provenance.command_line(),
                data=data_facts(prepared),
                device=prepared.device,
            )
            provenance.write_run(folder, made)


def _blank(folder: Path) -> bool:
    """Whether a folder holds nothing but what a process leaves that is killed before `run.json` is written."""
    return all(
        is_part(path)
        or (path.name == journal.FOLDER and path.is_dir() and all(p.suffix == ".lock" for p in path.iterdir()))
        for path in folder.iterdir()
    )


def set_aside(folder: Path) -> None:
    """Renames a results folder to `<name>.old-<i>`; nothing is deleted."""
    aside = next(path for i in range(1, 10**6) if not (path := folder.with_name(f"{folder.name}.old-{i}")).exists())
    folder.rename(aside)


def data_facts(prepared: Prepared) -> dict[str, Any]:
    """What `run.json` says of the data set."""
    data = prepared.data
    return {
        "dataset": prepared.config.dataset,
        "images": len(data),
        "sha256": data.fingerprint,
        "citation": data.citation,
        "passed_over": list(data.passed_over),
    }


def _refuse_if_busy(folder: Path) -> None:
    for path in sorted((folder / journal.FOLDER).glob("*.lock")):
        with exclusive(path, folder):
            pass


def _work(
    prepared: Prepared,
    folder: Path,
    journals: Path,
    tag: str,
    workers: int | None,
    shard: tuple[int, int],
    device: str,
    features: Path | None,
    progress: Progress | None,
    steps: Steps | None,
    allow_versions: bool,
    pool: Executor | Place | None,
    tell: Callable[[str], None] | None,
) -> set[UnitKey]:
    """Works on a shard; returns its units that the journal holds when all went well."""
    config, plan = prepared.config, prepared.plan
    columns = {name: METRICS[name].column for name in config.half_widths}
    sweep = provenance.identity_hash(prepared.identity)
    point_index = {point: index for index, point in enumerate(plan.points)}
    run_index = {run: index for index, run in enumerate(plan.runs)}
    records = _records(prepared, [folder], features)
    point_major = bool(tables.set_metrics(config))
    mine = [
        unit
        for unit in plan.units(point_major)
        if in_shard(run_index[unit.start, unit.stop], point_index[unit.point], shard, bool(config.until))
    ]
    means: dict[Point, dict[int, Any]] = {point: {} for point in plan.points}
    for unit in mine:
        if config.until and unit.key in records:
            means[unit.point][run_index[unit.start, unit.stop]] = until_means(records[unit.key], columns)
    open_points = dict.fromkeys(plan.points, True)

    def settle(point: Point) -> None:
        in_order = []
        for index in range(len(plan.runs)):
            if index not in means[point]:
                break
            in_order.append(means[point][index])
        if units_needed(in_order, config.half_widths, config.least_groups) is not None:
            open_points[point] = False

    if config.until:
        for point in plan.points:
            settle(point)
    todo = [unit for unit in mine if unit.key not in records]
    left = {point: sum(unit.point == point for unit in todo) for point in plan.points}
    done = len(mine) - len(todo)

    def report(remaining: Remaining | None = None) -> None:
        if progress is not None:
            to_do = {point: count for point, count in left.items() if open_points[point]}
            seconds = remaining.seconds(to_do) if remaining is not None else None
            progress(done, done + sum(to_do.values()), seconds)

    report()
    waiting = (unit for unit in todo if open_points[unit.point])
    count = sum(open_points[unit.point] for unit in todo)
    there = {unit.key for unit in mine} & records.keys()
    if count == 0:
        return there
    _take_part(prepared, folder, tag, allow_versions)
    if workers is None:
        workers = _AT_ONCE if pool is not None else 1 if device != "cpu" else available_cpus()
    workers = min(workers, count)
    facts = tuple((key, value) for key, value in prepared.identity.items() if isinstance(value, str))
    features = features or folder / FEATURES_FOLDER
    if tables.set_metrics(config):
        features.mkdir(exist_ok=True)
    context = Context(config, prepared.data.fingerprint, sweep, device, features, facts, prepared.base)
    written = journals / f"{tag}-w000.jsonl"
    with contextlib.ExitStack() as stack:
        if pool is None and workers == 1:
            finished = run_here(context, waiting, written, columns, steps or silent)
        else:
            _refuse_local(config, plan)
            if isinstance(pool, Place):
                versions = None if allow_versions else numeric_versions()
                taking = stack.enter_context(open_cluster(pool, pack(prepared, versions)))
            elif pool is not None:
                taking = Pool(pool, workers)
            else:
                taking = Pool(stack.enter_context(ProcessPool(workers, steps or silent)), workers)
            finished = run_pool(taking, context, waiting, written, columns, tell)
        stack.enter_context(contextlib.closing(finished))  # type: ignore[type-var]
        told: set[Variant] = set()
        remaining = Remaining(workers if pool is None else None)
        for result in finished:
            if result.note and result.unit.point.variant not in told:
                told.add(result.unit.point.variant)
                warnings.warn(
                    f"{result.unit.point.variant.label} {result.note}: it is judged at a lower SNR than the axis says",
                    stacklevel=2,
                )
            done += 1
            there.add(result.unit.key)
            left[result.unit.point] -= 1
            remaining.add(result.unit, result.seconds)
            if config.until:
                means[result.unit.point][run_index[result.unit.start, result.unit.stop]] = result.means
                settle(result.unit.point)
            report(remaining)
    return there


def _refuse_local(config: SweepConfig, plan: Plan) -> None:
    """Raises LinksimError where a sweep needs what other processes cannot import."""
    local = [f"scheme {point.variant.name!r}" for point in plan.points if is_local(point.variant.name)]
    local += [f"metric {name!r}" for name in config.metrics if METRICS.is_local(name)]
    local += [f"channel {name!r}" for name in config.channel if channels.is_local(name)]
    local += [f"data set {name!r}" for name in [kind_of(config.dataset)] if DATASETS.is_local(name)]
    if local:
        raise LinksimError(
            f"{local[0]} is registered in this process alone: run it with one worker, or install it with an entry point"
        )


def _take_part(prepared: Prepared, folder: Path, tag: str, allow_versions: bool) -> None:
    """Says in the journal which versions work from here on. Raises LinksimError where others did before."""
    here = numeric_versions()
    sweep = provenance.identity_hash(prepared.identity)
    journals = folder / journal.FOLDER
    if not journals.is_dir():
        raise journal.gone(folder)
    with FileLock(journals / "versions.lock"):
        there = provenance.versions_of(folder, sweep)
        for other in there:
            if (named := provenance.difference(other, here)) and not allow_versions:
                raise LinksimError(
                    f"{folder} was begun with other versions ({named}): install those, or --allow-versions to mix them"
                )
        path = journals / f"{tag}-versions.jsonl"
        if not path.exists() or here not in there:
            writer = journal.JournalWriter(path)
            writer.append({"sweep": sweep, "versions": here})
            writer.close()


def finish(
    prepared: Prepared,
    folder: Path,
    device: str = "cpu",
    features: Path | None = None,
    allow_versions: bool = False,
    needed: Iterable[UnitKey] = (),
    tell: Callable[[str], None] | None = None,
) -> pd.DataFrame | None:
    """Writes the tables when the journal holds every unit that the sweep needs; None when it does not.

    Shards that end together take turns.

    Args:
        needed: units that were done, which the journal must hold.
        tell: see `run_sweep`.

    Raises:
        LinksimError: the folder was moved or removed, or its journal lacks a unit that was done.
    """
    # A lock would make the folder anew.
    if not (folder / journal.FOLDER).is_dir() or not (folder / provenance.RUN_FILE).is_file():
        raise journal.gone(folder)
    with FileLock(folder / journal.FOLDER / FINISH_LOCK):
        return _finish(prepared, folder, device, features, allow_versions, needed, tell or (lambda _: None))


def _finish(
    prepared: Prepared,
    folder: Path,
    device: str,
    features: Path | None,
    allow_versions: bool,
    needed: Iterable[UnitKey],
    tell: Callable[[str], None],
) -> pd.DataFrame | None:
    config, plan = prepared.config, prepared.plan
    sweep = provenance.identity_hash(prepared.identity)
    records = _records(prepared, [folder], features)
    if lacking := [key for key in needed if key not in records]:
        raise LinksimError(
            f"{folder}: its journal lacks {len(lacking)} units that were done: run the same command again"
        )
    results = []
    for point in plan.points:
        result = tables.finished(config, plan, point, records)
        if result is None:
            return None
        results.append(result)
    if names := tables.set_metrics(config):
        tell(f"{', '.join(names)} of {len(results)} points")
    set_values = _set_values(prepared, folder, results, device, features or folder / FEATURES_FOLDER, allow_versions)
    tell("writing tables")
    if features is None:
        shutil.rmtree(folder / FEATURES_FOLDER, ignore_errors=True)
    rows = tables.point_rows(
        config, results, len(prepared.data), prepared.data.image_shape, set_values, prepared.identity
    )
    table = tables.point_frame(plan, rows)
    per_image = tables.per_image_frame(config, plan, results, len(prepared.data))
    write_tables(folder, table, per_image)
    run = provenance.read_run(folder)
    if run is not None:
        took_part = provenance.versions_of(folder, sweep)
        if run.get("finished") is None or run.get("versions") != took_part:
            run["versions"] = took_part
            run["finished"] = run.get("finished") or datetime.now(UTC).isoformat(timespec="seconds")
            provenance.write_run(folder, run)
    return table


def write_tables(
    folder: Path, table: pd.DataFrame, per_image: pd.DataFrame, per_group: pd.DataFrame | None = None
) -> None:
    """Writes the tables of a results folder; the one of points, which says that all is there, last.

    Args:
        per_group: what `per_group.parquet` has of curves that `per_image` has not (`linksim.engine.pairs`).
    """
    write_atomic(folder / PER_IMAGE, _parquet(per_image))
    groups = kept(per_image, per_group)
    # Numbers byte by byte: what `kept` rounds away compresses.
    numbers = {name: "BYTE_STREAM_SPLIT" for name in groups if groups[name].dtype == np.float32}
    texts = [name for name in groups if name not in numbers]
    write_atomic(folder / PER_GROUP, _parquet(groups, use_dictionary=texts, column_encoding=numbers))
    write_atomic(folder / TABLE_CSV, table.to_csv(index=False).encode())
    write_atomic(folder / TABLE, _parquet(table))


def read_table(path: Path, way_out: str) -> pd.DataFrame:
    """A table that `write_tables` wrote.

    Raises:
        FileNotFoundError: there is none.
        LinksimError: it is damaged, or no table of linksim; `way_out` says what to do about it.
    """
    import pandas as pd

    try:
        frame = pd.read_parquet(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:120]
        raise LinksimError(f"{path} cannot be read ({said}): {way_out}") from None
    if not set(_POINT) <= set(frame.columns):
        raise LinksimError(f"{path} is no table of linksim: {way_out}")
    if path.name == TABLE:
        if lacking := [column for column in (*_TEXTS, *_NUMBERS) if column not in frame]:
            raise LinksimError(f"{path} lacks the columns {', '.join(lacking)}: {way_out}")
        numbers = ("rho", "snr_db", *_NUMBERS)
        if wrong := [column for column in numbers if not pd.api.types.is_numeric_dtype(frame[column])]:
            raise LinksimError(f"{path} has no numbers in {', '.join(wrong)}: {way_out}")
        for column, usual in provenance.USUAL.items():
            frame[column] = frame[column].fillna(usual) if column in frame else usual
    return frame


def _parquet(frame: pd.DataFrame, **options: Any) -> bytes:
    buffer = BytesIO()
    frame.to_parquet(buffer, index=False, write_page_checksum=True, compression="zstd", **options)
    return buffer.getvalue()


def _set_values(
    prepared: Prepared,
    folder: Path,
    results: Sequence[tables.PointResult],
    device: str,
    features: Path,
    allow_versions: bool,
) -> dict[tuple[str, str, str], float]:
    """Values of the metrics of a whole set, from the features that the units left; kept in a journal of their own."""
    config = prepared.config
    names = tables.set_metrics(config)
    if not names:
        return {}
    from linksim.engine.transfer import one_thread

    known = _known_values(folder)
    asked = {(result.point.key, stage, name) for name in names for result in results for stage in result.stages}
    if asked <= known.keys():
        return known
    _take_part(prepared, folder, "sets", allow_versions)
    writer = journal.JournalWriter(folder / journal.FOLDER / _SETS)
    try:
        for name in names:
            metric: SetMetric | None = None
            kind = tables.set_metric(name)
            stages = [(result, stage) for result in results for stage in result.stages]
            for result, stage in stages:
                key = (result.point.key, stage, name)
                if key in known:
                    continue
                files = [features / features_of(record["stages"][stage], name) for record in result.records]
                with one_thread():
                    metric = metric or kind(device)
                    indices = Grouping(len(prepared.data), config.users).indices(np.arange(result.groups)).ravel()
                    reference = reference_features(metric, prepared.data, indices)
                    value = float(
                        metric.paired_distance(reference, np.concatenate([_features(file) for file in files]))
                    )
                writer.append({"point": key[0], "stage": key[1], "metric": name, "value": value})
                known[key] = value
    finally:
        writer.close()
    return known


def _features(path: Path) -> np.ndarray:
    """Features of a unit's images. Raises LinksimError where the file is damaged, and takes it away, or gone."""
    content = read_entry(path)
    if content is None:
        path.unlink(missing_ok=True)
        raise LinksimError(f"{path} was damaged or gone: run the same command again, which makes it anew")
    return array_from_bytes(content)


def _known_values(folder: Path) -> dict[tuple[str, str, str], float]:
    """Values of the metrics of a whole set that a folder's journal has: (point key, stage, metric) -> value."""
    known: dict[tuple[str, str, str], float] = {}
    for path in sorted((folder / journal.FOLDER).glob(f"*{_SETS}")):
        for record in journal.read_file(path):
            key, value = tuple(record.get(part) for part in ("point", "stage", "metric")), record.get("value")
            if all(isinstance(part, str) for part in key) and isinstance(value, float):
                known[key] = value  # type: ignore[index]
    return known


def _journals_of(folder: Path) -> list[Path]:
    """The files of a folder's journal that go with its shard."""
    place = folder / journal.FOLDER
    return sorted([*place.glob("*.jsonl"), *place.glob(f"*{_SETS}")])


def _records(
    prepared: Prepared, folders: Sequence[Path], features: Path | None = None
) -> dict[UnitKey, dict[str, Any]]:
    """The results of a sweep's units in the journals of `folders`.

    A unit whose features are gone counts as not done where a metric of a whole set still asks for them.

    Args:
        features: where features are, when that is one folder for all.
    """
    config = prepared.config
    names = tables.set_metrics(config)
    places = [features] if features is not None else [folder / FEATURES_FOLDER for folder in folders]
    # Before the values: features go when theirs is written.
    there = {path.name for place in places for path in place.glob(f"*{FEATURES_SUFFIX}")} if names else set()
    known = {key for folder in folders for key in _known_values(folder)} if names else set()

    def counts(record: dict[str, Any]) -> bool:
        return all(
            (record["point"], stage, name) in known or features_of(columns, name) in there
            for name in names
            for stage, columns in record["stages"].items()
        )

    return journal.results_by_unit(
        (record for folder in folders for record in journal.read_folder(folder / journal.FOLDER)),
        provenance.identity_hash(prepared.identity),
        tables.image_columns(config).values(),
        counts,
    )


def merge(folders: Sequence[Path], out: Path, allow_versions: bool = False) -> pd.DataFrame:
    """Brings the shards of one sweep, run in one folder or in several, together in `out` and writes its tables.

    Args:
        allow_versions: shards that other versions of the packages made count too.

    Raises LinksimError: not a sweep, folders of different sweeps or versions, units missing (how many).
    """
    runs: list[dict[str, Any]] = []
    for folder in folders:
        run = provenance.read_run(folder) if folder.is_dir() else None
        if run is None:
            raise LinksimError(f"{folder} holds no sweep (no run.json)")
        if "parts" in run:
            raise LinksimError(f"{folder} is a figure in parts: `linksim reproduce` puts it together, not merge")
        if runs and (named := provenance.difference(runs[0]["identity"], run["identity"])):
            raise LinksimError(
                f"{folders[0]} and {folder} are of different sweeps ({named}): merge shards of one sweep"
            )
        runs.append(run)
    values = {key: value for key, value in runs[0]["config"].items() if value is not None}
    # Those of a GPU are merged where there is none.
    prepared = prepare(make_config(values), str(runs[0].get("device", "cpu")), away=True)
    if named := provenance.difference(runs[0]["identity"], prepared.identity):
        raise LinksimError(f"{folders[0]} was made by other code or data ({named}): merge with the version that ran it")
    records = _records(prepared, [*folders, out])
    sweep = provenance.identity_hash(prepared.identity)
    # What `out` holds already counts too.
    places = list(dict.fromkeys([*folders, out]))
    versions = [(folder, found) for folder in places for found in provenance.versions_of(folder, sweep)]
    for folder, found in versions:
        if (named := provenance.difference(versions[0][1], found)) and not allow_versions:
            raise LinksimError(
                f"{versions[0][0]} and {folder} were made with other versions ({named}): run one of them again, or "
                "--allow-versions to mix them"
            )
    plan = prepared.plan
    unfinished = [p for p in plan.points if tables.finished(prepared.config, plan, p, records) is None]
    if unfinished:
        raise LinksimError(
            f"{len(unfinished)} of {len(plan.points)} points are not complete ({len(records)} of "
            f"{len(plan.points) * len(plan.runs)} units are there): run the shards that are missing, then merge again"
        )
    out = prepared.base / out
    folders = [prepared.base / folder for folder in folders]
    _open_folder(prepared, out)
    for number, folder in enumerate(folders):
        if folder.resolve() == out.resolve():
            continue
        for path in _journals_of(folder):
            name = f"merged{number:03d}-{path.name}"
            write_atomic(out / journal.FOLDER / name, path.read_bytes())
        for path in sorted((folder / FEATURES_FOLDER).glob(f"*{FEATURES_SUFFIX}")):
            if not is_whole(path):
                raise LinksimError(f"{path} is damaged: take it away, run its shard again, and merge again")
            (out / FEATURES_FOLDER).mkdir(exist_ok=True)
            write_atomic(out / FEATURES_FOLDER / path.name, path.read_bytes())
    table = finish(prepared, out, allow_versions=allow_versions)
    assert table is not None, "every unit was there"
    return table
