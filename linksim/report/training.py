"""Losses of training runs over their steps (KDD paper, figure 9)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from linksim.engine.provenance import command_line
from linksim.errors import LinksimError
from linksim.files import write_atomic
from linksim.link.channels import channel_class
from linksim.models.recipe import recipe_of
from linksim.report.figures import COLUMN_WIDTH, save, style
from linksim.schemes.semnoma.recipe import Recipe, stages
from linksim.train.logs import LOSSES as LOG
from linksim.train.logs import VALIDATION
from linksim.train.loop import SETTINGS
from linksim.version import code_version, package_versions

#: Columns of a training log, with their titles, in the order of the paper's figure.
LOSSES = {
    "fa": "FA", "crosskd": "CrossKD", "mae": "MAE", "mse": "MSE", "lpips": "LPIPS", "adversarial": "Adversarial",
    "discriminator": "Discriminator", "kl": "KL", "total": "Total loss",
}  # fmt: skip


def draw_training(runs: Sequence[Path], folder: Path, formats: tuple[str, ...] = ("png", "pdf")) -> list[Path]:
    """Draws the losses of training runs, a panel each and a line a run.

    Args:
        runs: folders of `linksim train`.
        folder: where `losses.<format>` go.

    Raises:
        LinksimError: no log there, or two runs of the same name.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    logs = {run.resolve().name: _log(run) for run in runs}
    if len(logs) < len(runs):
        raise LinksimError("two of these runs have the same name: give runs of different models")
    shown = [column for column in LOSSES if any(column in log for log in logs.values())]
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(style()):
        height = 2.0 + 0.15 * len(runs) * (len(runs) > 1)
        figure = Figure(figsize=(COLUMN_WIDTH * len(shown) / 2, height), layout="constrained")
        for panel, column in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            for index, log in enumerate(logs.values()):
                if column in log:
                    panel.plot(log["step"], log[column], linewidth=0.8, color=f"C{index}")
            panel.set_title(LOSSES[column])
            panel.set_xlabel("step")
        titles = [f"{name}{_settings(run)}" for name, run in zip(logs, runs, strict=True)]
        if len(runs) == 1:
            figure.suptitle(titles[0], fontsize=7)
        else:
            lines = [Line2D([], [], color=f"C{index}") for index in range(len(runs))]
            figure.legend(lines, titles, loc="outside lower center", ncols=1)
    return save(figure, folder / "losses", formats)


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
        if "fa_norm" not in settings["recipe"]:
            return ""
        recipe = recipe_of(Recipe, settings["recipe"])
        spec = settings["spec"]
        j = recipe.j(channel_class(spec["channel"]).fades, stages(spec["image_shape"]))
    except (OSError, ValueError, TypeError, KeyError, LinksimError):
        return ""
    left_out = f", without {recipe.leave_out}" if recipe.leave_out != "none" else ""
    return f"; FA scale: {recipe.fa_norm}, j = {j}, weights {recipe.weights}{left_out}"
