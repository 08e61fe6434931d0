"""linksim from Python: sweeps and results as pandas data frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linksim.errors import LinksimError, shown
from linksim.paths import shipped

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import pandas as pd

    from linksim.registry import Registry


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

    Example:
        >>> import tempfile
        >>> settings = {"scheme": "klt", "users": 1, "groups": 2, "snr": "10", "metrics": "psnr"}
        >>> table = sweep(tempfile.mkdtemp(), progress=False, **settings)
        >>> table["n_images"].item(), table["tx_power"].round(3).item()
        (2, 1.0)
    """
    from linksim.engine.cluster import parse_cluster
    from linksim.engine.config import make_config
    from linksim.engine.sweep import FIGURES, default_folder, prepare, run_sweep
    from linksim.report.progress import Bar

    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise LinksimError(f"workers = {shown(workers)}: give a whole number, 1 or more")
    if cluster is not None and pool is not None:
        raise LinksimError("give one of pool and cluster")
    if cluster is not None and workers is not None:
        raise LinksimError("cluster says how many workers there are: leave workers out")
    where = parse_cluster(cluster) if cluster is not None else pool
    if where is None:
        workers = workers or 1
    elif cluster is None and not callable(getattr(pool, "submit", None)):
        raise LinksimError(f"pool = {shown(pool)}: give what has submit(function, *args), like an Executor")
    if out is not None and (not isinstance(out, str | Path) or str(out) == ""):
        raise LinksimError(f"out = {shown(out)}: give a folder")
    if out is not None and Path(out).is_file():
        raise LinksimError(f"out = {shown(out)} is a file: give a folder")
    config = make_config(settings)
    with Bar(shown=progress) as bar:
        bar.tell("loading images and networks")
        prepared = prepare(config, device, away=cluster is not None)
        folder = Path(out) if out is not None else default_folder(prepared)
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

            bar.tell("drawing")
            draw(table, prepared.base / folder / FIGURES)
    table.attrs["folder"] = str(folder)
    return table


def load(path: str | Path) -> pd.DataFrame:
    """The table of a results folder; `attrs["run"]` holds its provenance. Raises LinksimError.

    Example:
        >>> table = load("results/fig07")
        >>> table.attrs["run"]["config"]["channel"], sorted(set(table["power"]))
        (['rayleigh'], ['sum'])
    """
    from linksim.engine import provenance
    from linksim.engine.sweep import TABLE

    table = _read(_folder(path), TABLE)
    table.attrs["run"] = provenance.read_run(_folder(path))
    return table


def load_images(path: str | Path) -> pd.DataFrame:
    """The per-image table of a results folder: one row an image, user, point and stage. Raises LinksimError.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> _ = sweep(folder, scheme="klt", users=1, groups=2, snr="0,10", metrics="psnr", progress=False)
        >>> load_images(folder)[["snr_db", "group"]].to_numpy().tolist()
        [[0.0, 0.0], [0.0, 1.0], [10.0, 0.0], [10.0, 1.0]]
    """
    from linksim.engine.sweep import PER_IMAGE

    return _read(_folder(path), PER_IMAGE)


def load_groups(path: str | Path) -> pd.DataFrame:
    """The metrics of a results folder by image group: means over a group's users, and PSNR pooled over them.

    From its per-image table, all groups; of curves that are not there, from `per_group.parquet`, the first 256 groups.
    Rows of two folders with one `group`, point and seed are of the same images, fading and noise.

    Raises:
        LinksimError: no such folder, or it has neither.

    Example:
        >>> groups = load_groups("results/fig07")
        >>> groups.query("variant == 'kd' and snr_db == 10").groupby("rho")["group"].count().to_list()
        [256, 256]
    """
    from linksim.engine.pairs import per_group, with_others
    from linksim.engine.sweep import PER_GROUP, PER_IMAGE

    folder = _folder(path)
    if not (folder / PER_GROUP).exists():
        return per_group(_read(folder, PER_IMAGE))
    short = _read(folder, PER_GROUP)
    return with_others(per_group(_read(folder, PER_IMAGE)), short) if (folder / PER_IMAGE).exists() else short


def compare(
    path: str | Path,
    baseline: str,
    metric: str = "psnr_db",
    stage: str | None = None,
    others: Sequence[str | Path] = (),
    trainings: bool = False,
) -> pd.DataFrame:
    """Paired differences of every variant from `baseline`, with 95% intervals clustered by image group.

    The draws are common to all schemes, so that the difference is far sharper than the curves themselves.

    Args:
        path: results folder.
        baseline: a variant, or a scheme's bare name where it has one variant.
        metric: a column of `load_groups`.
        stage: of the baseline (`first`, or a refiner's name); None takes its last.
        others: further results folders, of the same images and draws: a scheme of your own against a paper's figure.
            A variant that two folders have is called `variant (folder)` in the later one. Points of the curves that
            not every folder has are left out.
        trainings: take variants that differ in `weights` alone for trainings of one scheme: means are over them, and
            the chance in training is in the intervals. The baseline is called without its weights.

    Raises:
        LinksimError: unknown variant, metric or stage, or folders of other images or draws.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> schemes = "bpg-capacity,bpg-capacity-oma"
        >>> _ = sweep(folder, scheme=schemes, channel="rayleigh", groups=2, snr="10", metrics="psnr", progress=False)
        >>> compare(folder, "bpg-capacity-oma")["difference"].item() >= 0
        True
    """
    from linksim.engine import provenance
    from linksim.report.compare import by_training, common, paired_differences, together

    for name, value in (("baseline", baseline), ("metric", metric), ("stage", stage or "")):
        if not isinstance(value, str):
            raise LinksimError(f"{name} = {shown(value)}: give its name")
    if isinstance(others, str | Path) or not isinstance(others, Sequence):
        raise LinksimError(f"others = {shown(others)}: give a list of folders")
    folders = [_folder(folder) for folder in (path, *others)]
    if len({str(folder) for folder in folders}) < len(folders):
        raise LinksimError("a folder is given twice: name each once")
    groups = {str(folder): load_groups(folder) for folder in folders}
    told_apart = {place: by_training(rows) if trainings else rows for place, rows in groups.items()}
    tables = {place: (rows, provenance.read_run(Path(place))) for place, rows in told_apart.items()}
    if trainings:
        _check_told_apart((rows, run["identity"]) for rows, run in tables.values() if run is not None)
    found = paired_differences(common(together(tables), tables), baseline, metric, stage)
    if found.empty:
        raise LinksimError(
            f"no curve has {metric} of the same image groups at the same channel, rho and SNR as {baseline}: compare "
            "another column, or sweep again"
        )
    return found


def _check_told_apart(tables: Iterable[tuple[pd.DataFrame, Mapping[str, str]]]) -> None:
    """Raises LinksimError where trainings of one scheme have the same weights: one would be counted twice.

    Args:
        tables: what `by_training` gives, and what the schemes in it depended on.
    """
    from linksim.engine.context import fact_name
    from linksim.link.units import ratio_of
    from linksim.report.compare import TRAINING

    seen: dict[tuple[str, str, float, str], str] = {}
    for rows, facts in tables:
        curves = rows[[TRAINING, "variant", "channel", "rho"]].drop_duplicates()
        for own, variant, channel, rho in curves.itertuples(index=False):
            if digest := facts.get(fact_name(own, channel, ratio_of(rho), "weights")):
                other = seen.setdefault((variant, channel, rho, digest), own)
                if other != own:
                    raise LinksimError(f"{other} and {own} have the same weights, those of one training: leave one out")


def gallery(
    out: str | Path = "runs/gallery", *, groups: Sequence[int] = (0, 1, 2), device: str = "cpu", **settings: Any
) -> list[Path]:
    """Example images: the original and what every scheme shows of it, with its metrics.

    Args:
        out: folder of the figures.
        groups: image groups by number.
        device: torch device.
        settings: as for `sweep`.

    Returns:
        The files written.

    Raises:
        LinksimError: anything that the caller can put right, in one line.

    Example:
        >>> [path.name for path in gallery("runs/x", scheme="klt", users=1, groups=[0])]  # doctest: +SKIP
        ['gallery_awgn.png', 'gallery_awgn.pdf']
    """
    from linksim.engine.config import make_config
    from linksim.engine.gallery import simulate_gallery
    from linksim.files import check_writable
    from linksim.report.gallery import write_gallery

    if not isinstance(out, str | Path):
        raise LinksimError(f"out = {shown(out)} is no path: give a folder")
    if isinstance(groups, str) or not isinstance(groups, Sequence) or not groups:
        raise LinksimError(f"groups = {shown(groups)}: give a list of whole numbers from 0, like [0, 1]")
    for group in groups:
        if type(group) is not int or group < 0:
            raise LinksimError(f"groups: {shown(group)} is none: give whole numbers from 0, like [0, 1]")
    config = make_config({"snr": "0", "metrics": "psnr,lpips-alex", **settings, "groups": 1})
    check_writable(Path(out))
    return write_gallery(simulate_gallery(config, groups, device=device), Path(out))


def unregister(plug_in: type) -> None:
    """Takes back what `register`, `register_metric`, ... added to this process.

    Raises:
        LinksimError: it is not registered.

    Example:
        >>> import linksim
        >>> class Own(linksim.Scheme):
        ...     name, summary = "own", "a scheme of one's own"
        >>> unregister(linksim.register(Own))
    """
    from linksim.data import DATASETS
    from linksim.link.channels import CHANNELS
    from linksim.metrics import METRICS
    from linksim.refine.registry import REFINERS
    from linksim.schemes.registry import SCHEMES

    registries: tuple[Registry[Any], ...] = (SCHEMES, REFINERS, CHANNELS, METRICS, DATASETS)
    for registry in registries:
        name = getattr(plug_in, "name", "")
        if registry.is_local(name) and registry.find(name) is plug_in:
            registry.unregister(name)
            return
    raise LinksimError(f"{shown(plug_in)} is not registered in this process")


def _folder(path: object) -> Path:
    if not isinstance(path, str | Path):
        raise LinksimError(f"{shown(path)} is no path: give a results folder")
    return shipped(Path(path))


def _whole(table: pd.DataFrame, path: Path, again: str) -> pd.DataFrame:
    """A table as it is written. Raises LinksimError for one that is cut, or that has words for numbers."""
    from linksim.engine.pairs import check
    from linksim.engine.sweep import PER_GROUP, PER_IMAGE
    from linksim.metrics import columns

    if path.name == PER_GROUP:
        check(table, path, again)
    of_groups = {"group"} if path.name in (PER_IMAGE, PER_GROUP) else set()
    needed = {"variant", "stage", "channel", "rho", "snr_db"} | of_groups
    wrong = sorted(needed - set(table.columns))
    if not wrong and table.empty:
        wrong = ["any row"]
    if wrong:
        raise LinksimError(f"{path} lacks {wrong[0]}: {again}")
    numbers = {"rho", "snr_db", *columns(), *(f"{name}_ci95" for name in columns())} & set(table.columns)
    for name in sorted(numbers):
        if table[name].notna().any() and table[name].dtype.kind not in "iufb":
            raise LinksimError(f"{path}: {name} is no number everywhere: {again}")
    if not all(isinstance(name, str) for name in table["variant"]):
        raise LinksimError(f"{path}: variant is no word everywhere: {again}")
    return table


def _read(folder: Path, name: str) -> pd.DataFrame:
    from linksim.engine import provenance
    from linksim.engine.sweep import PER_IMAGE, TABLE, read_table

    if (folder / name).is_dir():
        raise LinksimError(f"{folder / name} is a folder, not a table: take it away")
    if not folder.is_dir():
        raise LinksimError(f"{folder}: no such results folder")
    if (folder / "losses.csv").is_file() and not (folder / name).exists():
        raise LinksimError(f"{folder} has losses that were drawn, and no results: give the runs themselves")
    again = "take a folder that `linksim sweep` wrote, or delete it and sweep again"
    try:
        return _whole(read_table(folder / name, again), folder / name, again)
    except FileNotFoundError:
        if (folder / "journal").is_dir() and not (folder / TABLE).is_file():
            raise LinksimError(
                f"{folder} has no {name}: its sweep is not complete; the same command goes on with it"
            ) from None
        run = provenance.read_run(folder)
        if run is not None:
            also = ", nor the small per_group.parquet in its place" if name == PER_IMAGE else ""
            raise LinksimError(f"{folder} has no {name}{also}: `{run.get('command')}` writes it") from None
        raise LinksimError(f"{folder} has no {name}: give a folder that `linksim sweep` wrote") from None
