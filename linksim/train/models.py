"""Which models there are to train: those that words, cards and sweeps ask for, and whose they are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

from linksim.data import load_dataset
from linksim.data.cifar10 import IMAGE_SHAPE
from linksim.data.images import parse_size
from linksim.data.training import CIFAR10
from linksim.engine.config import SweepConfig, make_config, read_sweep_file
from linksim.engine.context import models_of
from linksim.errors import LinksimError, shown, unknown
from linksim.grammar import settled, written_params
from linksim.link.channels import CHANNELS
from linksim.link.config import MAX_USERS, LinkConfig, Setting
from linksim.link.units import parse_rho
from linksim.models import weights
from linksim.models.owner import Model
from linksim.models.spec import NO_ABLATION, ModelSpec, Spec, lineage_pairs, spec_from_json
from linksim.refine.base import Refiner
from linksim.refine.behind import Refined
from linksim.refine.learned import LearnedRefiner
from linksim.refine.registry import REFINERS
from linksim.schemes.learned import Learned, learned, transceiver
from linksim.schemes.registry import SCHEMES

#: In the name of a transceiver's model: its scheme, the ratio of one user's symbols, and N.
_IN_NAME = re.compile(r"([A-Za-z0-9.+-]+)_[^_]+_(\d+)-(\d+)_n(\d+)_")

#: Said of a refiner like `flow`.
BEHIND_ALL = "which is trained behind all schemes at once"


def model_of(spec: Spec) -> Model:
    """A model with the scheme or refiner that owns it. Raises LinksimError where that is not installed."""
    if isinstance(spec, ModelSpec):
        return transceiver(spec)
    kind = spec.to_json()["kind"]
    for refiner in _refiners():
        if kind in (owners := refiner.owners()):
            return Model(spec, owners[kind])
    raise LinksimError(f"{spec.name} is of the refiner {kind!r}, which is not there: install it again")


def model_of_card(card: Mapping[str, Any]) -> Model:
    """The model of a card. Raises LinksimError where the scheme or refiner that owns it is not installed."""
    return model_of(spec_from_json(card["model"]))


def _refiners() -> Iterator[type[Refiner]]:
    """Every refiner; a plug-in that cannot be loaded is nothing to those that can."""
    for name in REFINERS.names():
        with suppress(LinksimError):
            yield REFINERS.find(name)


def trainable() -> list[str]:
    """Names of the schemes that have networks to train."""
    found = []
    for name in SCHEMES.names():
        with suppress(LinksimError):
            if issubclass(SCHEMES.find(name), Learned):
                found.append(name)
    return found


def priors(image_shape: tuple[int, int, int] = IMAGE_SHAPE) -> dict[str, Model]:
    """What `linksim train --prior` trains for images (C, H, W), by its name there."""
    return {name: model for refiner in _refiners() for name, model in refiner.priors(image_shape).items()}


def behind_all(name: str, image_shape: tuple[int, int, int] = IMAGE_SHAPE) -> Model:
    """The model of a refiner that is trained behind many first stages at once. Raises LinksimError."""
    known = {refiner.name: model for refiner in _refiners() if (model := refiner.apart(image_shape)) is not None}
    if name not in known and name in REFINERS.names():
        raise LinksimError(f"--refiner {name}: {name} is trained behind one scheme: name it: --scheme kd")
    if name not in known:
        raise unknown("refiner to train without --scheme", name, known)
    return known[name]


def behind(text: str, first: Model, more: Mapping[str, str] | None = None) -> Model:
    """The model of a refiner on the output of a first stage.

    Args:
        text: the refiner, with the parameters that its model depends on: "cgan", "sft:sft=paper".
        first: a transceiver's model.
        more: further such parameters.

    Raises:
        LinksimError: no refiner that is trained so, or a parameter that is none.
    """
    known = {refiner.name: refiner for refiner in _refiners() if issubclass(refiner, LearnedRefiner)}
    name = text.partition(":")[0]
    assert isinstance(first.spec, ModelSpec)
    if name not in known:
        if name in REFINERS.names() and REFINERS.find(name).apart(first.spec.image_shape) is not None:
            raise LinksimError(f"--scheme is nothing to {name}, {BEHIND_ALL}: leave it out")
        raise unknown("refiner to train", name, known)
    kind = known[name].Params
    written = {**written_params("refiner", text, kind.model_fields), **(more or {})}
    params = settled("refiner", text, kind, written)
    return Model(known[name].behind(first.spec, params), known[name])


def asked_model(
    scheme: str, channel: str, rho: str, size: str | None, users: int, csi: str | None, power: str,
    ablation: str = NO_ABLATION, image_shape: tuple[int, int, int] = IMAGE_SHAPE,
) -> Model:  # fmt: skip
    """The transceiver's model that words ask for.

    Args:
        scheme, channel, power, ablation: as `linksim train` takes them.
        rho: the system's bandwidth ratio; users that do not superpose share it.
        users: N.
        csi, size: None is the scheme's own default.
        image_shape: (C, H, W).

    Raises:
        LinksimError: a word that is none, or networks that do not fit.

    Example:
        >>> asked_model("semoma", "awgn", "1/6", "compact", 2, None, "sum").name
        'semoma_awgn_1-12_n2_own_sum_32px_compact'
    """
    if scheme not in trainable():
        raise _not_trained(scheme)
    system = learned(scheme)
    fields = system.Params.model_fields
    choices: dict[str, tuple[str, Sequence[str]]] = {
        "channel": (channel, [name for name in CHANNELS.names() if _has_weights(name)]),
        "size": (fields["size"].default if size is None else size, get_args(fields["size"].annotation)),
        "csi": (fields["csi"].default if csi is None else csi, get_args(fields["csi"].annotation)),
        "power": (power, ["sum", "per-ue"]),
        "ablation": (ablation, [NO_ABLATION, *system.ablations]),
    }
    name = channel.partition(":")[0]
    if name in CHANNELS and (serving := CHANNELS.find(name).trained_as) is not None:
        raise LinksimError(f"--channel {shown(channel)}: there the weights of {serving} serve: train those")
    for what, (word, known) in choices.items():
        if word not in known:
            raise unknown(what, word, known)
    if not 1 <= users <= MAX_USERS:
        raise LinksimError(f"--users {users}: 1 to {MAX_USERS} are possible")
    words = {what: word for what, (word, _) in choices.items()}
    own = {key: words[key] for key in ("size", "csi", "ablation") if key in fields}
    setting = Setting(LinkConfig(channel, users, words["power"]), image_shape, parse_rho(rho))  # type: ignore[arg-type]
    spec = system.model(setting, system.Params(**own))
    model = transceiver(spec if "ablation" in fields else replace(spec, ablation=words["ablation"]))
    model.build()
    return model


def _not_trained(scheme: str) -> LinksimError:
    """The error for a scheme that `linksim train --scheme` does not train."""
    if not SCHEMES.names():
        SCHEMES.find(scheme)
    with suppress(LinksimError):
        system = SCHEMES.find(scheme)
        if issubclass(system, Refined):
            first, refiner = system.first_stage.name, system.refiner_class.name
            return LinksimError(
                f"--scheme {scheme}: it is {first} with {refiner} behind it: train these: --scheme {first}, and "
                f"--refiner {refiner} --scheme {first}, or --prior for a diffusion prior"
            )
        return LinksimError(f"--scheme {scheme}: there is nothing to train: {', '.join(trainable())} have weights")
    return unknown("scheme", scheme, trainable())


def _has_weights(channel: str) -> bool:
    """Whether learned schemes are trained over a channel; a plug-in that cannot be loaded has none."""
    with suppress(LinksimError):
        return CHANNELS.find(channel).trained_as is None
    return False


def with_system_rho(command: str, name: str) -> str:
    """A command of `linksim train` with the system's bandwidth ratio.

    What was written down before `--rho` meant the system's has that of one user's symbols; the model's name tells.

    Args:
        command: as a card has it.
        name: of the model that it trains.

    Example:
        >>> with_system_rho("linksim train --scheme semoma --rho 1/12", "semoma_awgn_1-12_n2_own_sum_32px_compact")
        'linksim train --scheme semoma --rho 1/6'
    """
    found = _IN_NAME.search(name)
    if found is None:
        return command
    with suppress(LinksimError):
        users = int(found[4]) if learned(found[1]).access == "oma" else 1
        command = re.sub(r"(?<=--rho )\S+", str(users * Fraction(int(found[2]), int(found[3]))), command)
    return command


def models_for(config: SweepConfig, shape: tuple[int, int, int]) -> list[Model]:
    """The models that a sweep's learned schemes and refiners run on, in the order in which they are trained."""
    return [model for wave in waves(models_of(config, shape)) for model in wave]


def trained_on_others(models: Iterable[Model], dataset: str) -> list[str]:
    """Names of models, and of what their training needs, whose weights are of another data set.

    Args:
        models: that are asked for.
        dataset: as a card names it.
    """
    known, found, waiting = weights.cards(), set(), list(models)
    while waiting:
        model = waiting.pop()
        card = known.get(model.name)
        if card is not None and weights.present(card) and card.get("dataset", CIFAR10) != dataset:
            found.add(model.name)
        waiting += [*model.parts.values(), *([model.begins_as] if model.begins_as is not None else [])]
    return sorted(found)


def with_prerequisites(models: Iterable[Model], without: Sequence[str] = ()) -> list[Model]:
    """Models that have no weights, and those that their training needs and that have none either, in order.

    Args:
        models: that are asked for.
        without: names of models whose weights do not count.
    """
    known = {name: card for name, card in weights.cards().items() if name not in without}
    found: set[Model] = set()
    waiting = list(models)
    while waiting:
        model = waiting.pop()
        if model in found or (model.name in known and weights.present(known[model.name])):
            continue
        found.add(model)
        waiting += [*model.parts.values(), *([model.begins_as] if model.begins_as is not None else [])]
    return [model for wave in waves(found) for model in wave]


def image_shape(config: SweepConfig) -> tuple[int, int, int]:
    """(C, H, W) of a sweep's images. Raises LinksimError where they lie nowhere."""
    if config.image_size is not None:
        return 3, *parse_size(config.image_size)
    if not config.dataset.startswith("folder:"):
        return IMAGE_SHAPE
    return load_dataset(config.dataset).image_shape


def training_command(config: SweepConfig, file: Path) -> str | None:
    """The command that trains all that a sweep lacks; None where nothing lacks that can be trained, or not by the file.

    Args:
        config: the sweep as it is run.
        file: the sweep file that it is of; what else was asked for, it does not say.
    """
    shape = image_shape(config)
    lacking = with_prerequisites(weights.unserved(models_for(config, shape)))
    by_file = with_prerequisites(models_for(make_config(read_sweep_file(file)), shape))
    if not lacking or not set(lacking) <= set(by_file):
        return None
    words = ["linksim", "train", "--for", shlex.quote(str(file))]
    words += ["--dataset", "folder:DIR"] if shape != IMAGE_SHAPE else []
    return " ".join([*words, "--budget", "8h"])


def waves(models: Iterable[Model]) -> list[list[Model]]:
    """Models in the order of who learns from whom; those of one wave do not need each other.

    The orthogonal model with the most symbols is first, since all others can start warm from it; then come the other
    orthogonal ones, which teach; then the other transceivers; and the refiners, which are trained on their output.
    """
    models = sorted(models, key=lambda model: model.name)
    links = [(learned(model.spec.method), model.spec, model) for model in models if isinstance(model.spec, ModelSpec)]
    links.sort(key=lambda link: (link[0].access != "oma", link[0].teacher is not None, -link[1].rho, link[1].name))
    apart = [model for scheme, _, model in links if scheme.access == "oma"]
    rest = [model for scheme, _, model in links if scheme.access != "oma"]
    found: list[list[Model]] = [apart[:1], apart[1:], rest]
    left = [model for model in models if not isinstance(model.spec, ModelSpec)]
    while left:
        found.append([model for model in left if not set(model.parts.values()) & set(left)])
        left = [model for model in left if model not in found[-1]]
    return [wave for wave in found if wave]


def nearest(spec: ModelSpec) -> str | None:
    """The trained model that a new one of `spec` best starts from, if there is any: `--warm auto`.

    It has the same kind of network and is orthogonal or of the same scheme; the same rho goes before the same channel,
    and then the one that has seen most.
    """
    own = learned(spec.method)
    ranks: dict[str, tuple[bool, bool, bool, int]] = {}
    for name, (other, card) in weights.transceivers().items():
        if (
            other.ablation != NO_ABLATION
            or other == spec
            or not weights.present(card)
            or other.method not in SCHEMES
            or other.image_shape != spec.image_shape
        ):
            continue
        scheme = learned(other.method)
        alike = scheme.network.__func__ is own.network.__func__  # type: ignore[attr-defined]
        apart = scheme.access == "oma"
        if alike and other.size == spec.size and (apart or other.method == spec.method):
            ranks[name] = other.rho == spec.rho, other.channel == spec.channel, apart, lineage_pairs(card)
    return max(ranks, key=lambda name: ranks[name], default=None)
