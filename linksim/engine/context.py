"""What the units of a sweep share, apart from the work itself: light enough for the process that hands units out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from linksim.data import ImageSet, load_dataset
from linksim.engine.config import RESULTS_VERSION, SweepConfig
from linksim.engine.variants import find
from linksim.files import digest
from linksim.link.config import Setting
from linksim.metrics import METRICS, ImageMetric, SetMetric
from linksim.models.owner import Model
from linksim.refine.behind import Refined
from linksim.schemes.learned import Learned, WeightsParams, transceiver
from linksim.source import source_digest

FEATURES_FOLDER = "features"
FEATURES_SUFFIX = ".features"

#: The stage that every scheme has.
FIRST = "first"


@dataclass(frozen=True)
class Context:
    """What every unit of a sweep shares: its settings, and where it runs. Small enough to send to a worker.

    Args:
        config: the sweep.
        data_hash: fingerprint of the data set; a worker that finds another one stops.
        sweep: hash of the sweep's identity, which every record carries.
        device: torch device.
        features_dir: where set metrics leave the features of a unit's images.
        facts: what the schemes depended on when the sweep began, as in its identity.
        base: folder that relative paths of the sweep are from.
    """

    config: SweepConfig
    data_hash: str
    sweep: str
    device: str
    features_dir: Path
    facts: tuple[tuple[str, str], ...] = ()
    base: Path = field(default_factory=Path.cwd)


def open_data(config: SweepConfig, base: Path) -> ImageSet:
    """The data set of a sweep, whose relative paths are from `base`. Raises LinksimError."""
    spec, (kind, _, place) = config.dataset, config.dataset.partition(":")
    data_dir = Path(config.data_dir) if config.data_dir else None
    if data_dir is not None and not str(data_dir).startswith("~"):
        data_dir = base / data_dir
    if kind == "folder" and place and not place.startswith("~"):
        spec = f"{kind}:{base / place}"
    return replace(load_dataset(spec, data_dir, config.image_size), name=config.dataset)


def fact_name(variant: str, channel: str, rho: Fraction, key: str) -> str:
    """Name of a thing that a scheme depends on, in a sweep's identity.

    Args:
        variant: its label, as tables have it.
        channel, rho: where.
        key: of what the scheme tells (`Scheme.provenance`).

    Example:
        >>> fact_name("kd", "awgn", Fraction(1, 6), "weights")
        'kd awgn 1/6 weights'
    """
    return f"{variant} {channel} {rho} {key}"


def features_path(folder: Path, shown: str, metric: SetMetric) -> Path:
    """The file of the features of a unit's images.

    It goes by the images' own hash: a first stage that stands before several refiners is looked at once. What fixes the
    features is in its name too: a plug-in that was edited finds none of before.

    Args:
        shown: digest of the images.
        metric: whose features.
    """
    made_by = digest(f"{metric.identity()}\n{source_digest(type(metric))}".encode())
    return folder / f"{shown}-{metric.features_name}-{made_by[:16]}{FEATURES_SUFFIX}"


def features_of(stage: Mapping[str, Any], name: str) -> str:
    """Name of the file of the features that a record's stage left for the metric `name`.

    Example:
        >>> features_of({"features": {"kid": "0123-inception-4567.features"}}, "kid")
        '0123-inception-4567.features'
        >>> features_of({"features": "0123"}, "kid")
        '0123-inception.features'
    """
    files = stage.get("features")
    if isinstance(files, dict):
        return str(files.get(name, ""))
    # Journals of before have the digest of the images.
    kind = METRICS[name]
    assert issubclass(kind, SetMetric)
    return f"{files}-{kind.features_name}{FEATURES_SUFFIX}"


def columns_path(folder: Path, sent: str, shown: str, metrics: Sequence[ImageMetric]) -> Path:
    """The file of the metrics of a unit's images, beside their features and until these go.

    Args:
        sent, shown: digests of the images.
        metrics: which, in order; their code is in the name too.
    """
    asked = [f"{metric.column} {source_digest(type(metric))}" for metric in metrics]
    names = digest("\n".join([str(RESULTS_VERSION), *asked]).encode())
    return folder / f"{sent[:16]}-{shown}-{names[:16]}.columns"


def setting_of(config: SweepConfig, data: ImageSet, channel: str, rho: Fraction, device: str) -> Setting:
    """What a scheme may know beforehand at one channel and bandwidth ratio of a sweep."""
    return Setting(config.link(channel), data.image_shape, rho, tuple(data.train_mean), device, config.precision)


def models_of(config: SweepConfig, shape: tuple[int, int, int]) -> set[Model]:
    """The models that a sweep's learned schemes and refiners run on, for images of `shape` (C, H, W).

    A scheme that is told which weights to take (`weights=MODEL`, a run, a file) runs on these, and on none of its own.
    """
    found: set[Model] = set()
    for variant in config.variants:
        system = find(variant.name)
        params, refined = system.Params(**dict(variant.params)), None
        if issubclass(system, Refined):
            refined, all_params = system, params
            system, params = refined.first_stage, refined.first_params(all_params)
        if not issubclass(system, Learned):
            if refined is not None:
                found |= set(refined.refiner_class.models(None, refined.refiner_params(all_params)))
            continue
        for channel in config.channel:
            for rho in config.rhos:
                spec = system.model(Setting(config.link(channel), shape, rho), params)
                if not isinstance(params, WeightsParams) or params.weights in ("auto", "shipped"):
                    found.add(transceiver(spec))
                if refined is not None:
                    found |= set(refined.refiner_class.models(spec, refined.refiner_params(all_params)))
    return found


def assets_of(config: SweepConfig) -> set[str]:
    """The assets that a sweep's metrics and refiners need."""
    found = {asset for name in config.metrics if (asset := METRICS[name].asset) is not None}
    for variant in config.variants:
        system = find(variant.name)
        if issubclass(system, Refined):
            params = system.Params(**dict(variant.params))
            found |= set(system.refiner_class.assets(system.refiner_params(params)))
    return found
