"""From the journal's records to the two tables: one row a curve point, one row an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from linksim.columns import VS_FIRST
from linksim.data import Grouping
from linksim.data.training import CIFAR10
from linksim.engine.audit import low_power_note
from linksim.engine.config import SweepConfig
from linksim.engine.context import FIRST, fact_name
from linksim.engine.plan import Plan, Point
from linksim.engine.stats import (
    binomial_interval,
    clustered_binomial_interval,
    group_means,
    mean_and_half_width,
    units_needed,
)
from linksim.engine.variants import Variant, find
from linksim.engine.workers import until_means
from linksim.link.units import source_size
from linksim.metrics import METRICS, ImageMetric, SetMetric
from linksim.schemes.base import Reference
from linksim.schemes.learned import TRAINED, TRAINED_CHANNEL, TRAINED_DATA, TRAINED_IMAGES, TRAINED_SNR, trained_note

Record = Mapping[str, Any]
Records = Mapping[tuple[str, int, int], Record]


@dataclass(frozen=True)
class PointResult:
    """A finished point: the records of its units, in order, and why it ended."""

    point: Point
    records: Sequence[Record]
    stop_reason: str

    @property
    def groups(self) -> int:
        """Image groups that were evaluated."""
        return sum(record["stop"] - record["start"] for record in self.records)

    @property
    def stages(self) -> list[str]:
        """Names of the stages, the first before the refined."""
        return list(self.records[0]["stages"])

    def column(self, stage: str, name: str) -> np.ndarray:
        """A per-image column, float64 [groups, users]."""
        return np.concatenate([np.asarray(record["stages"][stage][name], np.float64) for record in self.records])


def image_columns(config: SweepConfig) -> dict[str, str]:
    """Per-image metrics of a sweep: name -> column."""
    return {name: METRICS[name].column for name in config.metrics if not METRICS[name].of_a_set}


def set_metrics(config: SweepConfig) -> list[str]:
    """Metrics of a sweep that are of a whole set of images."""
    return [name for name in config.metrics if METRICS[name].of_a_set]


def set_metric(name: str) -> type[SetMetric]:
    """The class of a metric of a whole set."""
    kind = METRICS[name]
    assert issubclass(kind, SetMetric)
    return kind


def finished(config: SweepConfig, plan: Plan, point: Point, records: Records) -> PointResult | None:
    """The point's result when the journal holds all that it takes, else None."""
    in_order: list[Record] = []
    for run in plan.runs:
        record = records.get((point.key, *run))
        if record is None:
            break
        in_order.append(record)
    if config.until:
        columns = {name: METRICS[name].column for name in config.half_widths}
        needed = units_needed(
            [until_means(record, columns) for record in in_order], config.half_widths, config.least_groups
        )
        if needed is not None:
            asked = ",".join(f"{name}={width:g}" for name, width in config.until)
            return PointResult(point, in_order[:needed], f"until {asked}")
    if len(in_order) < len(plan.runs):
        return None
    reason = "all groups" if plan.groups == plan.available else "max-groups" if config.until else "groups"
    return PointResult(point, in_order, reason)


def per_image_frame(config: SweepConfig, plan: Plan, results: Iterable[PointResult], n_images: int) -> pd.DataFrame:
    """One row an image, user, point and stage."""
    frames = []
    stride = n_images // config.users
    for result in results:
        point, groups, users = result.point, result.groups, config.users
        group = np.repeat(np.arange(groups), users)
        user = np.tile(np.arange(users), groups)
        lost = (
            np.concatenate([np.asarray(record["lost"], bool) for record in result.records]).ravel()
            if all(record["lost"] is not None for record in result.records)
            else None
        )
        for stage in result.stages:
            frame = pd.DataFrame(
                {
                    "variant": point.variant.label,
                    "scheme": point.variant.name,
                    "stage": stage,
                    "channel": point.channel,
                    "rho": float(point.rho),
                    "snr_db": point.snr_db,
                    "group": group,
                    "user": user,
                    "image": user * stride + group,
                    "mse": result.column(stage, "mse").ravel(),
                    **{column: result.column(stage, column).ravel() for column in image_columns(config).values()},
                    "lost": pd.array(lost if lost is not None else [None] * len(group), dtype="boolean"),
                }
            )
            frames.append(frame)
    return _with_envelopes(plan, pd.concat(frames, ignore_index=True))


def _fact(facts: Mapping[str, Any], point: Point, key: str) -> str | None:
    return facts.get(fact_name(point.variant.label, point.channel, point.rho, key))


def note_of_training(config: SweepConfig, facts: Mapping[str, Any], point: Point) -> str:
    """What a row must say of weights that were trained elsewhere than at its point; empty for a scheme without any."""
    trained = _fact(facts, point, TRAINED_CHANNEL), _fact(facts, point, TRAINED_SNR)
    images = _fact(facts, point, TRAINED_IMAGES)
    # On other images than CIFAR-10 it is no news that weights know others.
    data = _fact(facts, point, TRAINED_DATA) if config.dataset.startswith(CIFAR10) else None
    return trained_note(*trained, point.channel, point.snr_db, config.antennas, images, data)


def point_rows(
    config: SweepConfig,
    results: Iterable[PointResult],
    n_images: int,
    image_shape: tuple[int, int, int],
    set_values: Mapping[tuple[str, str, str], float],
    facts: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """One row a point and stage, first stage before refined.

    Args:
        set_values: (point key, stage, metric) -> value of the metrics of a whole set.
        facts: what the schemes depended on, by `fact_name`.
    """
    rows = []
    for result in results:
        point, records = result.point, result.records
        system = find(point.variant.name)
        params = dict(point.variant.params)
        for stage in result.stages:
            row: dict[str, Any] = {
                "scheme": point.variant.name,
                "variant": point.variant.label,
                "kind": "reference" if issubclass(system, Reference) else "scheme",
                "stage": stage,
                "dataset": config.dataset,
                "channel": point.channel,
                "antennas": config.antennas,
                "detector": own if (own := params.get("detector", "link")) != "link" else config.detector,
                "rho": float(point.rho),
                "users": config.users,
                "snr_db": point.snr_db,
                "power": config.power,
                "csi": params.get("csi", system.csi),
                "csi_error_var": config.csi_error_var,
                **{key: value for key, value in params.items() if key not in ("csi", "split", "detector")},
                "split": records[0]["split"] or params.get("split", ""),
            }
            for name, column in image_columns(config).items():
                values = {column: group_means(result.column(stage, column))}
                metric = METRICS[name]
                if issubclass(metric, ImageMetric) and metric.pooled is not None:
                    values[metric.pooled.name] = metric.of_pooled(group_means(result.column(stage, "mse")))
                for shown, groups in values.items():
                    mean, half = mean_and_half_width(groups)
                    row |= {shown: mean, f"{shown}_ci95": half}
                if stage != FIRST:
                    gains = values[column] - group_means(result.column(FIRST, column))
                    mean, half = mean_and_half_width(gains)
                    row |= {f"{column}{VS_FIRST}": mean, f"{column}{VS_FIRST}_ci95": half}
            for name in set_metrics(config):
                value = row[METRICS[name].column] = set_values[point.key, stage, name]
                if stage != FIRST:
                    row[f"{METRICS[name].column}{VS_FIRST}"] = value - set_values[point.key, FIRST, name]
                row[f"{METRICS[name].column}_note"] = set_metric(name).note(result.groups * config.users)
            blocks = sum(record["blocks"] for record in records)
            errors = sum(record["block_errors"] for record in records)
            low, high = _block_error_interval(records)
            lost = [np.asarray(record["lost"], bool) for record in records if record["lost"] is not None]
            weights = [record["stop"] - record["start"] for record in records]
            powers = [record["tx_power"] for record in records]
            tx_power = np.nan if powers[0] is None else float(np.average(powers, weights=weights))
            # Journals of before do not know what was allowed.
            allowed = records[0].get("allowed_power")
            notes = [records[0]["power_note"], low_power_note(tx_power, allowed) if allowed is not None else ""]
            uses = records[0]["channel_uses"]
            row |= {
                "n_images": result.groups * config.users,
                "n_groups": result.groups,
                "n_left_out": Grouping(n_images, config.users).left_out,
                "n_blocks": blocks,
                "n_block_errors": errors,
                "bler": errors / blocks if blocks else np.nan,
                "bler_low": low,
                "bler_high": high,
                "loss_rate": float(np.concatenate(lost).mean()) if lost else np.nan,
                "tx_power": tx_power,
                "power_note": "; ".join(filter(None, notes)),
                "channel_uses": uses,
                "rho_total": uses / source_size(image_shape),
                "rho_user": records[0]["user_uses"] / source_size(image_shape),
                TRAINED: float(_fact(facts, point, TRAINED) or "nan"),
                "trained_note": note_of_training(config, facts, point),
                "stop_reason": result.stop_reason,
                "seconds": _seconds(records, without=REFINEMENT if stage == FIRST else ()),
                **_refinement(result, stage, config.users),
                "seed": config.seed,
            }
            rows.append(row)
    return rows


def _block_error_interval(records: Sequence[Record]) -> tuple[float, float]:
    """Of the block error rate: over clusters of blocks where every unit has them, else over blocks."""
    if any(record["block_clusters"] is None for record in records):
        return binomial_interval(
            sum(record["block_errors"] for record in records), sum(record["blocks"] for record in records)
        )
    pairs = [pair for record in records for pair in record["block_clusters"]]
    return clustered_binomial_interval([errors for _, errors in pairs], [blocks for blocks, _ in pairs])


#: Laps of a unit that belong to the second stage.
REFINEMENT = ("load_refiner", "refine", "refined_metrics")


def _seconds(records: Sequence[Record], without: Sequence[str]) -> float:
    found: float = sum(value for record in records for lap, value in record["seconds"].items() if lap not in without)
    return found


def _refinement(result: PointResult, stage: str, users: int) -> dict[str, float]:
    """What the second stage cost; nothing for the first."""
    if stage == FIRST:
        return {}
    seconds = sum(record["seconds"]["refine"] for record in result.records)
    return {
        **{f"refine_{name}": value for name, value in result.records[0]["refinement"].items()},
        "refine_seconds": seconds,
        "refine_images_per_s": result.groups * users / seconds if seconds else np.nan,
    }


def point_frame(plan: Plan, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The table: rows in the plan's order, envelopes after their members; text columns without NaN."""
    return without_gaps(_with_envelopes(plan, pd.DataFrame(rows)))


def without_gaps(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with empty text where a text column has no value."""
    texts = frame.select_dtypes(include=["object", "string"]).columns
    frame[texts] = frame[texts].fillna("")
    return frame


def _with_envelopes(plan: Plan, frame: pd.DataFrame) -> pd.DataFrame:
    """Adds the derived variants: at each point the rows of the member with the highest mean PSNR."""
    if not plan.derived:
        return frame
    keys = ["stage", "channel", "rho", "snr_db"]
    parts = [frame]
    for variant, members in plan.derived.items():
        labels = {member.label: member for member in members}
        mine = frame[frame["variant"].isin(list(labels))]
        means = mine.groupby([*keys, "variant"], sort=False)["psnr_db"].mean().reset_index()
        best = means.loc[means.groupby(keys, sort=False)["psnr_db"].idxmax(), [*keys, "variant"]]
        place = {(p.channel, float(p.rho), p.snr_db): index for index, p in enumerate(plan.points)}
        picked = mine.merge(best, on=[*keys, "variant"], how="inner")
        order = [place[point] for point in zip(picked["channel"], picked["rho"], picked["snr_db"], strict=True)]
        picked = picked.iloc[np.argsort(order, kind="stable")]
        picked = picked.assign(envelope_of=picked["variant"], variant=variant.label)
        if variant.best_of in picked.columns:
            picked[variant.best_of] = "envelope"
        parts.append(picked)
    return pd.concat(parts, ignore_index=True)


def variants_of(plan: Plan) -> list[Variant]:
    """The simulated variants, each once."""
    return list(dict.fromkeys(point.variant for point in plan.points))
