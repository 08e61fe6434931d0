"""Losses of training runs over their steps (KDD paper, figure 9)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from linksim.engine.provenance import command_line
from linksim.errors import LinksimError
from linksim.files import write_atomic
from linksim.link.channels import channel_class
from linksim.models.recipe import recipe_of
from linksim.report.figures import COLUMN_WIDTH, PAGE_WIDTH, SCALE, save, style
from linksim.report.names import PALETTE
from linksim.schemes.semnoma.recipe import Recipe, stages
from linksim.train.logs import LOSSES as LOG
from linksim.train.logs import VALIDATION
from linksim.train.loop import SETTINGS
from linksim.version import code_version, package_versions

#: Columns of a training log, with their titles, in the order of the paper's figure.
LOSSES = {
    "fa": "FA", "crosskd": "CrossKD", "mae": "MAE", "mse": "MSE", "log-mse": "log MSE",
    "log-pooled-mse": "log pooled MSE", "lpips": "LPIPS", "adversarial": "Adversarial",
    "discriminator": "Discriminator", "kl": "KL", "latent": "Latent (Z)", "first": "First stage", "total": "Total loss",
}  # fmt: skip


def draw_training(
    runs: Sequence[Path], folder: Path, formats: tuple[str, ...] = ("png", "pdf"), *, name: str = "ieee"
) -> list[Path]:
    """Draws the losses of training runs, a panel each and a line a run.

    Args:
        runs: folders of `linksim train`.
        folder: where `losses.<format>` go.
        formats, name: of `linksim.report.figures.FORMATS` and `STYLES`.

    Raises:
        LinksimError: no log there, or two runs of the same name.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    logs = {run.resolve().name: _log(run) for run in runs}
    if len(logs) < len(runs):
        raise LinksimError("two of these runs have the same name: give runs of different models")
    shown = panels_of(logs.values())
    folder.mkdir(parents=True, exist_ok=True)
    titles = [f"{run_name}{_settings(run)}" for run_name, run in zip(logs, runs, strict=True)]
    rows, columns = -(-len(shown) // _PANELS), min(len(shown), _PANELS)
    scale = SCALE[name]
    with mpl.rc_context(style(name)):
        height, width = 1.7 * rows + 0.3 + 0.15 * len(runs), PAGE_WIDTH if columns > 1 else COLUMN_WIDTH
        figure = Figure(figsize=(scale * width, scale * height), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel in panels[len(shown) :]:
            panel.remove()
        for panel, column in zip(panels, shown, strict=False):
            for index, log in enumerate(logs.values()):
                if column in log:
                    panel.plot(log["step"], log[column], linewidth=0.8 * scale, color=PALETTE[index % len(PALETTE)])
            panel.set_title(LOSSES.get(column, column))
            panel.set_xlabel("step")
        lines = [Line2D([], [], color=PALETTE[index % len(PALETTE)]) for index in range(len(runs))]
        figure.legend(lines, titles, loc="outside lower center", ncols=1)
    return save(figure, folder / "losses", formats, name)


def panels_of(logs: Iterable[pd.DataFrame]) -> list[str]:
    """The losses of training logs, in the paper's order; others, a plug-in's say, before what all amount to.

    Example:
        >>> panels_of([pd.DataFrame({"step": [1], "own": [0.1], "mae": [0.2], "total": [0.3]})])
        ['mae', 'own', 'total']
    """
    there = list(dict.fromkeys(str(column) for log in logs for column in log if column != "step"))
    order = [*list(LOSSES)[:-1], *(column for column in there if column not in LOSSES), list(LOSSES)[-1]]
    return [column for column in order if column in there]


#: Panels side by side on a page.
_PANELS = 4


def check_kept(runs: Sequence[Path], folder: Path) -> None:
    """Raises LinksimError where a folder holds a run or a sweep, whose own files `keep_training` would replace.

    Also where a file that it reads is none, before anything is written.
    """
    for run in runs:
        _read(run / VALIDATION)
    for name in (LOG, SETTINGS, "table.parquet", "table.csv", "journal", "parts", "checkpoint.pt"):
        if (folder / name).exists():
            raise LinksimError(f"{folder} holds a training run or results ({name}): give --out another folder")


def keep_training(runs: Sequence[Path], folder: Path) -> list[Path]:
    """Writes what the figure shows: losses and validations of all runs in one table each, and their settings.

    Args:
        runs: folders of `linksim train`.
        folder: where `losses.csv`, `validation.csv` and `run.json` go.

    Raises:
        LinksimError: a file of a run is missing or damaged.
    """
    written = []
    for name, log in (("losses.csv", LOG), (VALIDATION, VALIDATION)):
        table = pd.concat([_read(run / log).assign(run=run.resolve().name) for run in runs], ignore_index=True)
        path = folder / name
        columns = ["run", *table.columns.drop("run")]
        write_atomic(path, table[columns].to_csv(index=False, lineterminator="\n").encode())
        written.append(path)
    try:
        settings = {run.resolve().name: json.loads((run / SETTINGS).read_text()) for run in runs}
    except (OSError, ValueError) as error:
        raise LinksimError(f"{SETTINGS} of a run cannot be read ({error}): give the folder of a training run") from None
    facts = {"linksim": code_version(), "command": command_line(), "packages": package_versions(), "runs": settings}
    write_atomic(folder / "run.json", (json.dumps(facts, indent=1) + "\n").encode())
    return [*written, folder / "run.json"]


def _log(run: Path) -> pd.DataFrame:
    log = _read(run / LOG)
    if log.empty:
        raise LinksimError(
            f"{run / LOG} holds no losses yet: wait for them, or give the folder of another training run"
        )
    if "step" not in log or not any(column in log for column in LOSSES):
        raise LinksimError(f"{run / LOG} holds no losses: give the folder of a training run")
    return log


def _read(path: Path) -> pd.DataFrame:
    try:
        found: pd.DataFrame = pd.read_csv(path).apply(pd.to_numeric)
        return found
    except (OSError, ValueError, TypeError) as error:
        raise LinksimError(f"{path} cannot be read ({error}): give the folder of a training run") from None


def _settings(run: Path) -> str:
    """What of a run's settings its losses' scale depends on."""
    try:
        settings = json.loads((run / SETTINGS).read_text())
        if "fa_norm" not in settings["recipe"] or "fa" not in _read(run / LOG):
            return ""
        recipe = recipe_of(Recipe, settings["recipe"])
        spec = settings["spec"]
        j = recipe.j(channel_class(spec["channel"]).fades, stages(spec["image_shape"]))
    except (OSError, ValueError, TypeError, KeyError, LinksimError):
        return ""
    left_out = f", without {recipe.leave_out}" if recipe.leave_out != "none" else ""
    return f"; FA scale: {recipe.fa_norm}, j = {j}, weights {recipe.weights}{left_out}"
