"""A figure from whatever weights are at hand: a sweep in parts, one a curve, put together in one folder.

A part is a sweep of its own, in a folder of its own: weights that come later, or that are trained anew, run their own
curve and nothing else. The draws are keyed by image group and not by scheme, so that the parts are paired as the
schemes of one sweep are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linksim.engine import provenance
from linksim.engine.config import SweepConfig
from linksim.engine.sweep import (
    FIGURES,
    PER_IMAGE,
    TABLE,
    TABLE_CSV,
    Progress,
    data_facts,
    parquet,
    prepare,
    run_sweep,
)
from linksim.errors import LinksimError, NoWeights, unknown

if TYPE_CHECKING:
    import pandas as pd

PARTS = "parts"
SWEEPS = "sweeps"


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
    """The sweep file that `fig06`, or a path, names: in ./sweeps/, else in the checkout. Raises LinksimError."""
    import linksim

    if Path(name).is_file():
        return Path(name)
    folders = [Path(SWEEPS), Path(linksim.__file__).resolve().parent.parent / SWEEPS]
    for folder in folders:
        if (found := folder / f"{name}.yaml").is_file():
            return found
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    if not known:
        raise LinksimError(f"no sweep file {name!r}: give its path, or work in a checkout of linksim")
    raise unknown("figure", name, known)


def parts_of(config: SweepConfig) -> dict[str, SweepConfig]:
    """A sweep for each curve of `config`, by a name that can be a folder's."""
    found = {}
    for text in config.scheme:
        for channel in config.channel:
            for rho in config.rho:
                name = re.sub(r"[^A-Za-z0-9.+=-]+", "_", f"{text}_{channel}_{rho.replace('/', '-')}")
                found[name] = config.model_copy(update={"scheme": (text,), "channel": (channel,), "rho": (rho,)})
    return found


def reproduce(
    config: SweepConfig,
    folder: Path,
    *,
    workers: int | None = None,
    device: str = "cpu",
    force_new: bool = False,
    progress: Callable[[str], Progress] | None = None,
    missing: Callable[[str, str], None] | None = None,
) -> Reproduced:
    """Runs what is missing of a figure, leaves out what has no weights, and writes tables and figures.

    Args:
        config: the figure's sweep.
        folder: results folder; the parts are under `parts/` in it.
        workers, device: see `run_sweep`.
        force_new: replaces what `folder` holds of another sweep.
        progress: gives the function that is told the progress of a part.
        missing: told the name of a part that has no weights, and why, before anything runs.

    Raises:
        LinksimError: the folder holds another sweep, or no part can run.
    """
    import pandas as pd

    _check_folder(config, folder, force_new)
    ready, lacking = {}, {}
    for name, part in parts_of(config).items():
        try:
            ready[name] = prepare(part, device)
        except NoWeights as error:
            lacking[name] = str(error)
            if missing is not None:
                missing(name, str(error))
    if not ready:
        raise LinksimError(f"nothing of this figure can run: {next(iter(lacking.values()))}")
    started = datetime.now(UTC).isoformat(timespec="seconds")
    tables: list[pd.DataFrame] = []
    images: list[pd.DataFrame] = []
    for name, prepared in ready.items():
        place = folder / PARTS / name
        # A part that was made with other weights is set aside and made again.
        table = run_sweep(
            prepared, place, workers=workers, device=device, figures=False, force_new=True,
            progress=progress(name) if progress is not None else None,
        )  # fmt: skip
        assert table is not None
        tables.append(table)
        images.append(pd.read_parquet(place / PER_IMAGE))
    table = _joined(tables)
    provenance.write_atomic(folder / PER_IMAGE, parquet(_joined(images)))
    provenance.write_atomic(folder / TABLE_CSV, table.to_csv(index=False).encode())
    provenance.write_atomic(folder / TABLE, parquet(table))
    identity: dict[str, Any] = {}
    for prepared in ready.values():
        identity |= prepared.identity
    identity |= {key: value for key, value in config.model_dump(mode="json").items() if key in identity}
    run = provenance.make_run(
        config, identity, provenance.command_line(), data=data_facts(next(iter(ready.values()))),
        parts={name: provenance.read_run(folder / PARTS / name) for name in ready}, lacking=lacking,
    )  # fmt: skip
    for part in run["parts"].values():
        for repeated in ("config", "identity", "conventions", "packages", "data", "command"):
            part.pop(repeated, None)
    run |= {"started": started, "finished": datetime.now(UTC).isoformat(timespec="seconds")}
    provenance.write_run(folder, run)
    from linksim.report.figures import draw

    draw(table, folder / FIGURES)
    return Reproduced(table, lacking)


def _check_folder(config: SweepConfig, folder: Path, force_new: bool) -> None:
    run = provenance.read_run(folder) if folder.is_dir() else None
    if run is None or force_new:
        return
    there, here = run["config"], config.model_dump(mode="json")
    named = provenance.difference(
        {key: value for key, value in there.items() if key not in ("scheme", "data_dir")},
        {key: value for key, value in here.items() if key not in ("scheme", "data_dir")},
    )
    if named:
        raise LinksimError(f"{folder} holds another sweep ({named}): take another --out, or --force-new to replace it")


def _joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    whole = pd.concat(frames, ignore_index=True)
    texts = whole.select_dtypes(include=["object", "string"]).columns
    whole[texts] = whole[texts].fillna("")
    return whole
