"""Finding T': a sweep over candidates on validation images, and the table of what was best (`linksim tune`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from linksim.engine.cluster import Place
from linksim.engine.config import make_config
from linksim.engine.context import setting_of
from linksim.engine.sweep import Progress, default_folder, prepare, run_sweep
from linksim.engine.variants import find
from linksim.errors import LinksimError
from linksim.metrics import METRICS, SetMetric
from linksim.metrics.fidelity import Psnr
from linksim.refine.base import Steps
from linksim.refine.behind import Refined
from linksim.refine.ddim.refiner import Ddim, DdimParams
from linksim.refine.ddim.starts import Starts, keep_starts, known, own_table

#: Multiples of four, the paper's stride, closer together where they are small.
CANDIDATES = (8, 16, 24, 32, 40, 60, 80, 120, 200)

#: What a T' is chosen by unless told otherwise, and the PSNR in dB that it may cost.
TUNE_METRICS = ("psnr", "lpips-alex", "fid")
PSNR_LOSS_DB = 0.5


#: Image groups a point, unless a metric of sets asks for more.
GROUPS = 256


def groups_for(metrics: Sequence[str], users: int) -> int:
    """Image groups a point, unless told otherwise: 256, or as many as the metrics ask for.

    Raises:
        LinksimError: an unknown metric.

    Example:
        >>> groups_for(("psnr", "lpips-alex"), 2), groups_for(TUNE_METRICS, 2)
        (256, 500)
    """
    kinds = [METRICS.find(name) for name in metrics]
    least = max((kind.MIN_IMAGES for kind in kinds if issubclass(kind, SetMetric)), default=0)
    return max(GROUPS, -(-least // users))


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
    psnr_loss_db: float = PSNR_LOSS_DB,
    replace: bool = False,
    progress: Progress | None = None,
    steps: Steps | None = None,
    pool: Executor | Place | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[Path, list[Tuned]]:
    """Tries every candidate at every SNR and keeps the best, by channel, in the user's own table of T'.

    By psnr, an LPIPS and fid, the best T' is that of the lowest FID among those that cost no more than `psnr_loss_db`
    of mean PSNR and raise LPIPS by nothing that its paired interval tells from zero; by one metric of single images,
    that of its best mean. Where no T' is better than the first stage, it is 0.

    Args:
        values: of a sweep: one scheme with a DDIM refiner, one rho, the metrics to choose by.
        candidates: T'.
        out: results folder.
        psnr_loss_db: see above.
        replace: keep what comes out in the place of a T' that is known already.
        workers, device, progress, steps, pool, tell: see `run_sweep`.

    Returns:
        the sweep's folder, and what came out for each channel.

    Raises:
        LinksimError: anything but one DDIM scheme, one rho and metrics to choose by.
    """
    scheme = str(values.get("scheme", ""))
    shared = make_config({**values, "scheme": scheme})
    if len(shared.scheme) != 1:
        raise LinksimError(f"--scheme {scheme}: T' is found for one scheme at a time")
    (variant,) = shared.variants
    system = find(variant.name)
    if not issubclass(system, Refined) or system.refiner_class is not Ddim:
        raise LinksimError(f"--scheme {scheme}: one with a diffusion behind it is wanted, like kd+ddim")
    if fixed := {key for key in variant.given if key in DdimParams.model_fields and not key.startswith("prior")}:
        raise LinksimError(f"--scheme {scheme}: a table of T' is for the defaults of all else: leave {min(fixed)} out")
    given = ",".join(f"{key}={value}" for key, value in variant.params if key in variant.given)
    tried = [f"{variant.name}:{','.join(filter(None, (given, f'start={start}')))}" for start in candidates]
    config = make_config({**values, "scheme": tried})
    if len(config.rhos) > 1:
        raise LinksimError("T' is chosen at one rho: --rho 1/6")
    chosen = choice_by(config.metrics, psnr_loss_db)
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
    found = []
    for name, rows in table.groupby("channel", sort=False):
        # The first stage is that of every candidate; its row stands for a T' of 0.
        rows = rows.assign(start=rows["start"].astype(int).where(rows["stage"] == Ddim.name, 0))
        means = rows.drop_duplicates(["start", "snr_db"]).set_index(["snr_db", "start"]).sort_index()
        by_snr = {float(str(snr)): chosen.best(part.droplevel("snr_db")) for snr, part in means.groupby(level="snr_db")}
        starts = Starts(chosen.best(means[chosen.columns].groupby(level="start").mean()), by_snr)
        of = stages[str(name)]
        kept = replace or not known(of)
        if kept:
            keep_starts(of, starts, int(rows["n_images"].min()), chosen.words)
        found.append(Tuned(of.first, starts, kept))
    return folder, found


@dataclass(frozen=True)
class Choice:
    """How a T' is chosen: the best of `aim` where no `guard`, column to (sign, bound), is worse by more than its bound.

    Signs are 1 where higher is better, else -1. A bound of None is the half width of the difference's interval.
    """

    aim: str
    sign: int
    guards: Mapping[str, tuple[int, float | None]]
    words: str

    @property
    def columns(self) -> list[str]:
        return [*self.guards, self.aim, *(_half_width(column) for column, (_, b) in self.guards.items() if b is None)]

    def best(self, means: pd.DataFrame) -> int:
        """Of a table by T', whose row 0 is the first stage's."""
        values = {column: dict(zip(means.index, map(float, means[column]), strict=True)) for column in self.columns}

        def fits(start: int, column: str, sign: int, bound: float | None) -> bool:
            allowed = values[_half_width(column)][start] if bound is None else bound
            return start == 0 or sign * (values[column][start] - values[column][0]) >= -allowed

        allowed = [
            int(start)
            for start in means.index
            if all(fits(start, column, *guard) for column, guard in self.guards.items())
        ]
        return max(allowed, key=lambda start: self.sign * values[self.aim][start])


def _half_width(column: str) -> str:
    """The column of the 95% interval of the paired difference to the first stage."""
    return f"{column}_vs_first_ci95"


def choice_by(metrics: Sequence[str], psnr_loss_db: float) -> Choice:
    """How metrics choose. Raises LinksimError for others."""
    kinds = {name: METRICS[name] for name in metrics}
    signs = {name: 1 if kind.higher_is_better else -1 for name, kind in kinds.items()}
    of_sets = [name for name, kind in kinds.items() if kind.of_a_set]
    if len(kinds) == 1 and not of_sets:
        (name,) = kinds
        return Choice(kinds[name].column, signs[name], {}, f"best mean {kinds[name].column}")
    others = [name for name in kinds if name not in (Psnr.name, *of_sets)]
    if len(of_sets) != 1 or len(others) != 1 or Psnr.name not in kinds:
        raise LinksimError(
            "T' is chosen by one metric of single images (--metrics lpips-alex), or by PSNR, one other and one of "
            f"a set (--metrics {','.join(TUNE_METRICS)}), not by {','.join(metrics)}"
        )
    (aim,), (other,) = of_sets, others
    guards = {Psnr.column: (1, psnr_loss_db), kinds[other].column: (signs[other], None)}
    kept = f"no more than {psnr_loss_db:g} dB of PSNR lost and {kinds[other].column} not clearly worse"
    return Choice(kinds[aim].column, signs[aim], guards, f"best {kinds[aim].column} of those with {kept}")


def words(tuned: Tuned) -> str:
    """What came out, and what it changes."""
    by_snr = ", ".join(f"{start} at {snr:g} dB" for snr, start in tuned.starts.by_snr.items())
    found = f"{tuned.stage}: T' = {tuned.starts.one} for all SNRs; by SNR: {by_snr}"
    if tuned.kept:
        return f"{found}\n  kept in {own_table()}: start=auto and start=paper take it from now on"
    return f"{found}\n  not kept: a T' is known for it; --replace puts this one in its place"
