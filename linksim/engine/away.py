"""Evaluating units where nothing is shared with this machine: what they need travels, and results come back.

A delivery holds the data set, the user's weights and the assets that a sweep names. A worker puts it into its own cache
once; a unit's record and the features of its images come back as values, with the versions and the CPU that made them.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from linksim import assets, paths
from linksim.data.images import ImageSet
from linksim.devices import check_device
from linksim.engine.context import Context, assets_of, models_of
from linksim.engine.plan import Unit
from linksim.engine.variants import Variant, find
from linksim.engine.workers import Answer, evaluate
from linksim.errors import LinksimError
from linksim.files import digest, write_atomic
from linksim.models import weights
from linksim.models.checkpoint import CHECKPOINT
from linksim.paths import cache_dir
from linksim.version import code_version, numeric_versions

if TYPE_CHECKING:
    from linksim.engine.sweep import Prepared

#: Bytes of images, or of a file or folder that a parameter names, that travel; what is larger is read where the workers
#: run.
MOST_BYTES = 1 << 30

_DATA, _WEIGHTS, _ASSETS, _NAMED = "images.npy", "weights", "assets", "named"


@dataclass(frozen=True)
class Delivery:
    """What workers need that may not be where they run.

    Args:
        name: of its content, the same for equal ones.
        files: place in the delivery -> content.
        data: the data set's facts, its images apart; None where the workers read it themselves.
        named: file or folder as a parameter names it -> place in the delivery.
        versions: of the packages that may evaluate; None for any.
        code: linksim's version here.
    """

    name: str
    files: Mapping[str, bytes]
    data: ImageSet | None
    named: Mapping[str, str]
    versions: Mapping[str, str] | None
    code: str


def pack(prepared: Prepared, versions: Mapping[str, str] | None) -> Delivery:
    """What the workers of a sweep need.

    Args:
        versions: of packages, which the workers' must equal; None where they may differ.
    """
    config, files, named = prepared.config, {}, {}
    data: ImageSet | None = None
    count, shape = len(prepared.data), prepared.data.image_shape
    if count * int(np.prod(shape)) <= MOST_BYTES:
        content = io.BytesIO()
        np.save(content, np.ascontiguousarray(prepared.data.images[np.arange(count)]))
        files[_DATA] = content.getvalue()
        data = replace(prepared.data, images=np.empty((0, *shape), np.uint8))
    values = {value for variant in config.variants for _, value in variant.params}
    names = {name for model in models_of(config, shape) for name in (model.name, weights.serving(model))}
    # A parameter may name a model.
    own = own_weights(name for name in names | values if name is not None)
    files |= {f"{_WEIGHTS}/{file}": content for file, content in own.items()}
    for asset in assets_of(config):
        path = assets.path(asset)
        files[f"{_ASSETS}/{path.name}"] = path.read_bytes()
    for value in _free_texts(config.variants):
        if found := _named_files(prepared.base, value):
            named[value] = f"{_NAMED}/{digest(value.encode())[:16]}"
            files |= {f"{named[value]}/{inside}".rstrip("/."): content for inside, content in found.items()}
    return delivery_of(files, data, named, versions)


def own_weights(models: Iterable[str]) -> dict[str, bytes]:
    """Those of these models that are the user's own, and the cards, as files of a folder of weights."""
    known = weights.cards()
    found = {}
    for card in (known[name] for name in models if name in known):
        if card["folder"] != str(weights.SHIPPED) and weights.present(card):
            for file in (*card["files"], weights.MANIFEST):
                found[file] = (Path(card["folder"]) / file).read_bytes()
    return found


def delivery_of(
    files: Mapping[str, bytes],
    data: ImageSet | None = None,
    named: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
) -> Delivery:
    """A delivery, named by its content."""
    hashes = "".join(sorted(f"{place} {digest(content)}\n" for place, content in files.items()))
    return Delivery(digest(hashes.encode()), files, data, named or {}, versions, code_version())


def _free_texts(variants: Iterable[Variant]) -> set[str]:
    """The values that can name a file: of the parameters that were asked for those that take any text.

    A word among a few, as `own` of `csi`, names none, whatever folders there are.
    """
    return {
        value
        for variant in variants
        for key, value in variant.params
        if key in variant.given and find(variant.name).Params.model_fields[key].annotation is str
    }


def _named_files(base: Path, value: str) -> dict[str, bytes]:
    """The files that a parameter's value names, by their place in it: a file itself, or all of a folder."""
    place = base / Path(value).expanduser()
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        inside = [place] if place.is_file() else [path for path in sorted(place.rglob("*")) if path.is_file()]
        # Of a run its weights, and not the four times as much with which its training goes on.
        inside = [path for path in inside if path == place or path.name != CHECKPOINT]
        if sum(path.stat().st_size for path in inside) <= MOST_BYTES:
            return {path.relative_to(place).as_posix(): path.read_bytes() for path in inside}
    return {}


#: Deliveries that this process has, by name.
_RECEIVED: dict[str, tuple[Delivery, Path]] = {}

#: Why this process does not have others, by name.
_REFUSED: dict[str, str] = {}

#: Where this process keeps its assets when none came to it.
_OWN_ASSETS = os.environ.get("LINKSIM_ASSETS")


def received(name: str) -> tuple[Delivery, Path]:
    """A delivery that this process has, and its folder. Raises LinksimError where it has none of that name."""
    if name not in _RECEIVED:
        here = platform.node()
        raise LinksimError(_REFUSED.get(name) or f"a worker on {here} lacks what this needs: start its workers anew")
    return _RECEIVED[name]


def receive(delivery: Delivery) -> None:
    """Puts a delivery into this machine's cache.

    Raises:
        LinksimError: this machine runs another version of linksim, or of what its numbers depend on.
    """
    try:
        _receive(delivery)
    except LinksimError as error:
        # A worker that comes late is asked for units nevertheless.
        _REFUSED[delivery.name] = str(error)
        raise


def _receive(delivery: Delivery) -> None:
    if (code := code_version()) != delivery.code:
        raise LinksimError(
            f"a worker on {platform.node()} runs linksim {code}, this sweep is from {delivery.code}: install that there"
        )
    here = numeric_versions()
    for name, wanted in (delivery.versions or {}).items():
        if here.get(name) != wanted:
            raise LinksimError(
                f"a worker on {platform.node()} has {name} {here.get(name)}, here it is {wanted}: install the same, or "
                "--allow-versions to mix them"
            )
    folder = cache_dir() / "delivered" / delivery.name
    for place, content in delivery.files.items():
        path = folder / place
        if not path.is_file() or path.stat().st_size != len(content) or digest(path.read_bytes()) != digest(content):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
    _RECEIVED[delivery.name] = replace(delivery, files={}), folder


@functools.cache
def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def evaluate_away(name: str, context: Context, unit: Unit) -> Answer:
    """One unit on a worker that received the delivery `name`; see `linksim.engine.workers.evaluate`."""
    from linksim.engine import evaluate as evaluation

    try:
        delivery, folder = received(name)
    except LinksimError as error:
        return Answer(None, str(error))
    try:
        check_device(context.device)
    except LinksimError as error:
        return Answer(None, f"a worker on {platform.node()}: {error}")
    # Nothing of another sweep's delivery, nor weights of the worker's own: the one who asks decides.
    os.environ["LINKSIM_WEIGHTS"] = str(folder / _WEIGHTS)
    if (folder / _ASSETS).is_dir():
        os.environ["LINKSIM_ASSETS"] = str(folder / _ASSETS)
    elif _OWN_ASSETS is not None:
        os.environ["LINKSIM_ASSETS"] = _OWN_ASSETS
    else:
        os.environ.pop("LINKSIM_ASSETS", None)
    paths.ELSEWHERE.clear()
    paths.ELSEWHERE.update({written: folder / place for written, place in delivery.named.items()})
    if delivery.data is not None:
        images = np.load(folder / _DATA, mmap_mode="r")
        evaluation.DELIVERED[context.data_hash] = replace(delivery.data, images=images)
    features = folder / f"features-{os.getpid()}"
    features.mkdir(exist_ok=True)
    answer = evaluate(replace(context, features_dir=features), unit)
    content = {}
    for path in features.iterdir():
        content[path.name] = path.read_bytes()
        path.unlink()
    if answer.record is not None:
        answer.record.update(versions=numeric_versions(), cpu=_cpu(), host=platform.node())
    return replace(answer, features=content)
