"""linksim from Python: sweeps and results as pandas data frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from linksim.errors import LinksimError, shown

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import pandas as pd


def sweep(
    out: str | Path | None = None,
    *,
    workers: int | None = None,
    device: str = "cpu",
    force_new: bool = False,
    progress: bool = True,
    figures: bool = False,
    allow_versions: bool = False,
    pool: Executor | None = None,
    cluster: str | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Runs (or goes on with) a sweep and returns its table, one row a curve point.

    Args:
        out: results folder; by default one under `runs/` named after the sweep.
        workers: processes (default 1). With one, schemes of this session (`linksim.register`) can take part.
        device: torch device.
        force_new: set a folder that holds another sweep aside.
        progress: show a progress bar.
        figures: draw the figures too.
        allow_versions: go on with what other versions of torch, numpy, ... began.
        pool: a `concurrent.futures.Executor` (of dask, of joblib, of your cluster) that evaluates the units in place of
            processes of its own. Its processes have one thread each and see the same files; `workers` is then the
            number of units on their way at once.
        cluster: `local:4`, `tcp://HOST:PORT`, `slurm:jobs=20,time=2h`, ...: a cluster of dask that evaluates the units
            (`linksim.engine.cluster`).
        settings: as in a sweep file, see `linksim.engine.config.SweepConfig`: scheme, channel, snr, rho, dataset, ...

    Raises:
        LinksimError: anything that the caller can put right, in one line.
    """
    from linksim.engine.cluster import parse_cluster
    from linksim.engine.config import make_config
    from linksim.engine.sweep import FIGURES, default_folder, prepare, run_sweep
    from linksim.report.progress import Bar

    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise LinksimError(f"workers = {shown(workers)}: give a whole number, 1 or more")
    if cluster is not None and pool is not None:
        raise LinksimError("give one of pool and cluster")
    where = parse_cluster(cluster) if cluster is not None else pool
    if where is None:
        workers = workers or 1
    elif cluster is None and not callable(getattr(pool, "submit", None)):
        raise LinksimError(f"pool = {shown(pool)}: give what has submit(function, *args), like an Executor")
    if out is not None and (not isinstance(out, str | Path) or str(out) == ""):
        raise LinksimError(f"out = {shown(out)}: give a folder")
    if out is not None and Path(out).is_file():
        raise LinksimError(f"out = {shown(out)} is a file: give a folder")
    prepared = prepare(make_config(settings), device, away=cluster is not None)
    folder = Path(out) if out is not None else default_folder(prepared)
    with Bar(shown=progress) as bar:
        table = run_sweep(
            prepared,
            folder,
            workers=workers,
            device=device,
            force_new=force_new,
            progress=bar.update,
            steps=bar.steps,
            allow_versions=allow_versions,
            pool=where,
            tell=bar.tell,
        )
    assert table is not None, "a sweep without shards ends complete"
    if figures:
        from linksim.report.figures import draw

        draw(table, prepared.base / folder / FIGURES)
    table.attrs["folder"] = str(folder)
    return table


def load(path: str | Path) -> pd.DataFrame:
    """The table of a results folder; `attrs["run"]` holds its provenance. Raises LinksimError."""
    from linksim.engine import provenance
    from linksim.engine.sweep import TABLE

    table = _read(_folder(path), TABLE)
    table.attrs["run"] = provenance.read_run(_folder(path))
    return table


def load_images(path: str | Path) -> pd.DataFrame:
    """The per-image table of a results folder: one row an image, user, point and stage. Raises LinksimError."""
    from linksim.engine.sweep import PER_IMAGE

    return _read(_folder(path), PER_IMAGE)


def compare(path: str | Path, baseline: str, metric: str = "psnr_db", stage: str | None = None) -> pd.DataFrame:
    """Paired differences of every variant from `baseline`, with 95% intervals clustered by image group.

    The draws are common to all schemes, so that the difference is far sharper than the curves themselves.

    Args:
        path: results folder.
        baseline: a variant, or a scheme's bare name where it has one variant.
        metric: per-image column.
        stage: of the baseline (`first`, or a refiner's name); None takes its last.

    Raises:
        LinksimError: unknown variant, metric or stage.
    """
    from linksim.report.compare import paired_differences

    for name, value in (("baseline", baseline), ("metric", metric), ("stage", stage or "")):
        if not isinstance(value, str):
            raise LinksimError(f"{name} = {shown(value)}: give its name")
    return paired_differences(load_images(path), baseline, metric, stage)


def _folder(path: object) -> Path:
    if not isinstance(path, str | Path):
        raise LinksimError(f"{shown(path)} is no path: give a results folder")
    return Path(path)


def _read(folder: Path, name: str) -> pd.DataFrame:
    from linksim.engine import provenance
    from linksim.engine.sweep import read_table

    if (folder / name).is_dir():
        raise LinksimError(f"{folder / name} is a folder, not a table: take it away")
    if not folder.is_dir():
        raise LinksimError(f"{folder}: no such results folder")
    try:
        return read_table(folder / name, "take a folder that `linksim sweep` wrote, or delete it and sweep again")
    except FileNotFoundError:
        if (folder / "journal").is_dir():
            raise LinksimError(
                f"{folder} has no {name}: its sweep is not complete; the same command goes on with it"
            ) from None
        run = provenance.read_run(folder)
        if run is not None:
            raise LinksimError(
                f"{folder} has no {name} (per-image tables stay out of repositories); `{run.get('command')}` writes it"
            ) from None
        raise LinksimError(f"{folder} has no {name}: give a folder that `linksim sweep` wrote") from None
