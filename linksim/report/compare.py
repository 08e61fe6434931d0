"""Paired differences between schemes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from linksim.engine.provenance import USUAL
from linksim.engine.stats import difference_of_trainings
from linksim.errors import LinksimError, chosen, shown, unknown
from linksim.grammar import without_weights

_POINT = ["channel", "rho", "snr_db"]
#: Column: which of a variant's trainings a row is of, where they are told apart.
TRAINING = "training"
_COUNTS = ["trainings", "baseline_trainings"]
_COLUMNS = [
    "variant", "stage", "baseline", "baseline_stage", *_POINT, "metric", "difference", "difference_ci95", "groups",
    "clear",
]  # fmt: skip
_NOT_METRICS = {*_POINT, "stage", "variant", "scheme", "group", "user", "image", "lost", "envelope_of", TRAINING}

#: Of a sweep's identity, what makes image groups, fading and noise the same: their draws are keyed by it.
_DRAWS = ("dataset", "data_hash", "image_size", "users", "antennas", "power", "csi_error_var", "pixels", "seed")


def other_draws(run: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """What two sweeps differ in, so that nothing in them is a pair; None where there are pairs.

    Args:
        run, other: their `run.json`.

    Example:
        >>> other_draws({"identity": {"users": 2, "seed": 0}}, {"identity": {"users": 2, "seed": 1, "antennas": 1}})
        'seed is 0 and 1'
    """
    for key in _DRAWS:
        mine, theirs = (facts["identity"].get(key, USUAL.get(key)) for facts in (run, other))
        if mine != theirs:
            return f"{key} is {shown(mine)} and {shown(theirs)}"
    return None


def together(tables: Mapping[str, tuple[pd.DataFrame, Mapping[str, Any] | None]]) -> pd.DataFrame:
    """The tables of image groups of several results folders as one.

    Args:
        tables: by folder, what `linksim.load_groups` gives of it, and its `run.json`.

    Raises:
        LinksimError: one is of other images or other draws than the first, so that nothing in them is a pair.
    """
    (first, (whole, run)), *others = tables.items()
    for folder, (table, facts) in others:
        if not run or not facts:
            raise LinksimError(
                f"{folder if run else first} has no run.json, which says what its draws are: sweep again"
            )
        if words := other_draws(run, facts):
            raise LinksimError(f"{first} and {folder} have no pairs: {words}: sweep again with the same")
        known, own = set(whole["variant"]), set(table["variant"])
        short, long = (f" ({place})" for place in (folder.rstrip("/").rpartition("/")[2], folder))
        ending = long if any(f"{name}{short}" in known for name in own) else short
        named = table["variant"].where(~table["variant"].isin(known), table["variant"] + ending)
        whole = pd.concat([whole, table.assign(variant=named)], ignore_index=True)
    return whole


def common(whole: pd.DataFrame, tables: Mapping[str, tuple[pd.DataFrame, Mapping[str, Any] | None]]) -> pd.DataFrame:
    """The rows of `together` at the channels, bandwidth ratios and SNRs that every folder has.

    Args:
        whole: what `together` gives of `tables`.
        tables: see there.

    Raises:
        LinksimError: there are none.
    """
    point = pd.MultiIndex.from_frame(whole[_POINT])
    shared = np.logical_and.reduce(
        [point.isin(pd.MultiIndex.from_frame(table[_POINT])) for table, _ in tables.values()]
    )
    if len(tables) > 1 and not shared.any():
        raise LinksimError(
            f"{' and '.join(tables)} have no channel, rho and SNR in common: sweep one of them at the other's points"
        )
    return whole[shared]


def by_training(groups: pd.DataFrame) -> pd.DataFrame:
    """The rows with variants that differ in `weights` alone as trainings of one, called by its other parameters.

    Args:
        groups: see `paired_differences`.

    Example:
        >>> rows = pd.DataFrame({"variant": ["kd:ablation=fa,weights=runs/a", "kd:weights=runs/b", "klt"]})
        >>> by_training(rows)["variant"].tolist()
        ['kd:ablation=fa', 'kd', 'klt']
    """
    names = {variant: without_weights(variant) for variant in groups["variant"].unique()}
    return groups.assign(**{TRAINING: groups["variant"], "variant": groups["variant"].map(names)})


def paired_differences(
    groups: pd.DataFrame, baseline: str, metric: str = "psnr_db", stage: str | None = None
) -> pd.DataFrame:
    """Mean difference of each variant's stages from the baseline at each point, over the groups that both evaluated.

    Args:
        groups: one row a group, point and stage, as `linksim.load_groups` gives it; those of single images do too.
            Those that `by_training` gives have trainings told apart: means are over them, and chance in them is in the
            intervals (`difference_of_trainings`).
        baseline: the variant that the others are compared with.
        metric: its column.
        stage: of the baseline; None takes its last.

    Returns:
        One row a variant, stage and point: `difference` (variant - baseline), `difference_ci95` (half-width of the 95%
        interval, Student's t over groups), `groups`, and `clear` where the interval leaves zero out; none where no
        group has a finite value of both. With trainings told apart, also how many there are of both.

    Raises:
        LinksimError: unknown variant or metric, or nothing to compare with.
    """
    columns = [column for column in groups.columns if column not in _NOT_METRICS]
    if metric not in columns:
        raise unknown("metric column", metric, columns)
    labels = list(dict.fromkeys(groups["variant"]))
    counted = TRAINING in groups
    name = chosen(labels, without_weights(baseline) if counted else baseline, trainings=not counted)
    stages = {label: list(dict.fromkeys(rows["stage"])) for label, rows in groups.groupby("variant", sort=False)}
    stage = stages[name][-1] if stage is None else stage
    if stage not in stages[name]:
        raise unknown(f"stage of {name}", stage, stages[name])
    others = [(label, own) for label in labels for own in stages[label] if (label, own) != (name, stage)]
    if not others:
        raise LinksimError(f"only {name} is in these results: sweep two schemes at once to compare them")
    if groups[metric].dtype.kind not in "iuf":
        raise LinksimError(f"{metric} is no number: take another column")
    told = groups if counted else groups.assign(**{TRAINING: groups["variant"]})
    means = told.groupby(["variant", "stage", TRAINING, *_POINT, "group"], sort=False)[metric].mean().sort_index()
    base = means.loc[name, stage].unstack(TRAINING)
    rows = []
    for label, own in others:
        both = pd.concat({"one": means.loc[label, own].unstack(TRAINING), "base": base}, axis=1, join="inner")
        for point, values in both.groupby(level=_POINT, sort=False):
            there = values.dropna(axis=1, how="all")
            there = there[np.isfinite(there).all(axis=1)]
            if there.empty or set(there.columns.get_level_values(0)) != {"one", "base"}:
                continue
            mine, theirs = there["one"].to_numpy().T, there["base"].to_numpy().T
            mean, half = difference_of_trainings(mine, theirs)
            facts = dict(zip(_POINT, point, strict=True))
            rows.append(
                {
                    "variant": label,
                    "stage": own,
                    "baseline": name,
                    "baseline_stage": stage,
                    **facts,
                    "metric": metric,
                    "difference": mean,
                }
                | {"difference_ci95": half, "groups": len(there), "clear": bool(abs(mean) > half)}
                | dict(zip(_COUNTS, (len(mine), len(theirs)), strict=True))
            )
    return pd.DataFrame(rows, columns=[*_COLUMNS, *(_COUNTS if counted else [])])
