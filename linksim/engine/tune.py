"""Finding T': a sweep over candidates on validation images, and the table of what was best (`linksim tune`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linksim.engine.cluster import Place
from linksim.engine.config import make_config
from linksim.engine.context import setting_of
from linksim.engine.sweep import Progress, default_folder, prepare, run_sweep
from linksim.engine.variants import find
from linksim.errors import LinksimError
from linksim.metrics import METRICS
from linksim.refine.behind import Refined
from linksim.refine.ddim.refiner import Ddim, DdimParams
from linksim.refine.ddim.starts import Starts, keep_starts, known, own_table

#: Multiples of four, the paper's stride, closer together where they are small.
CANDIDATES = (8, 16, 24, 32, 40, 60, 80, 120, 200)


@dataclass(frozen=True)
class Tuned:
    """What came out for one channel.

    Args:
        stage: the first stage, as a table of starts calls it.
        starts: the best T'.
        kept: whether they are in the user's own table now; where a T' was known before, that one stays unless told
            otherwise.
    """

    stage: str
    starts: Starts
    kept: bool


def tune(
    values: Mapping[str, Any],
    candidates: Sequence[int] = CANDIDATES,
    out: Path | None = None,
    *,
    workers: int | None = None,
    device: str = "cpu",
    replace: bool = False,
    progress: Progress | None = None,
    steps: Progress | None = None,
    pool: Executor | Place | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[Path, list[Tuned]]:
    """Tries every candidate at every SNR and keeps the best, by channel, in the user's own table of T'.

    Args:
        values: of a sweep: one scheme with a DDIM refiner, one rho, a metric of single images.
        candidates: T'.
        out: results folder.
        replace: keep what comes out in the place of a T' that is known already.
        workers, device, progress, steps, pool, tell: see `run_sweep`.

    Returns:
        the sweep's folder, and what came out for each channel.

    Raises:
        LinksimError: anything but one DDIM scheme, one rho and one metric.
    """
    scheme = str(values.get("scheme", ""))
    shared = make_config({**values, "scheme": scheme})
    if len(shared.scheme) != 1:
        raise LinksimError(f"--scheme {scheme}: T' is found for one scheme at a time")
    (variant,) = shared.variants
    system = find(variant.name)
    if not issubclass(system, Refined) or system.refiner_class is not Ddim:
        raise LinksimError(f"--scheme {scheme}: one with a diffusion behind it is wanted, like kd+ddim")
    if fixed := set(variant.given) & (DdimParams.model_fields.keys() - {"prior"}):
        raise LinksimError(f"--scheme {scheme}: a table of T' is for the defaults of all else: leave {min(fixed)} out")
    given = ",".join(f"{key}={value}" for key, value in variant.params if key in variant.given)
    tried = [f"{variant.name}:{','.join(filter(None, (given, f'start={start}')))}" for start in candidates]
    config = make_config({**values, "scheme": tried})
    (metric,) = config.metrics if len(config.metrics) == 1 else (None,)
    if metric is None or METRICS[metric].of_a_set or len(config.rhos) > 1:
        raise LinksimError("T' is chosen by one metric of single images and at one rho: --metrics lpips --rho 1/6")
    prepared = prepare(config, device, away=isinstance(pool, Place))
    stages = {}
    for channel in config.channel:
        built = config.variants[0].build(setting_of(config, prepared.data, channel, config.rhos[0], device))
        assert isinstance(built, Refined)
        assert isinstance(built.refiner, Ddim)
        stages[channel] = built.refiner.stages
    folder = out or default_folder(prepared)
    table = run_sweep(
        prepared, folder, workers=workers, device=device, progress=progress, steps=steps, pool=pool, tell=tell
    )
    assert table is not None, "a sweep without shards ends complete"
    kind = METRICS[metric]
    found = []
    for name, rows in table[table["stage"] == Ddim.name].groupby("channel", sort=False):
        means = rows.pivot(index="start", columns="snr_db", values=kind.column)
        means.index = means.index.astype(int)
        means = means.sort_index() if not kind.higher_is_better else -means.sort_index()
        starts = Starts(
            int(str(means.mean(axis=1).idxmin())), {float(str(snr)): int(str(means[snr].idxmin())) for snr in means}
        )
        of = stages[str(name)]
        kept = replace or not known(of)
        if kept:
            keep_starts(of, starts, int(rows["n_images"].min()), kind.column)
        found.append(Tuned(of.first, starts, kept))
    return folder, found


def words(tuned: Tuned) -> str:
    """What came out, and what it changes."""
    by_snr = ", ".join(f"{start} at {snr:g} dB" for snr, start in tuned.starts.by_snr.items())
    found = f"{tuned.stage}: T' = {tuned.starts.one} for all SNRs; by SNR: {by_snr}"
    if tuned.kept:
        return f"{found}\n  kept in {own_table()}: start=validated and start=auto take it from now on"
    return f"{found}\n  not kept: a T' is known for it; --replace puts this one in its place"
