"""`linksim train`: from words on the command line to weights with a card."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import TypeAdapter

from linksim.devices import check_device
from linksim.errors import LinksimError, chosen, shown, unknown
from linksim.link.config import Setting
from linksim.link.units import channel_uses, parse_rho
from linksim.schemes.learned import NO_ABLATION, SCRATCH
from linksim.train.spec import EMBEDDED, FROM_SCRATCH, ModelSpec, Spec, began_with, lineage_pairs, spec_from_json

if TYPE_CHECKING:
    from torch import nn

    from linksim.engine.config import SweepConfig
    from linksim.train.loop import State
    from linksim.train.recipe import BaseRecipe
    from linksim.train.task import Task

#: Seconds of a run, at the most.
_MAX_BUDGET = 1e9

#: In a run's folder once it has ended: its trainings, as a card's lineage has them.
HISTORY = "history.json"

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def parse_budget(text: str, option: str = "--budget") -> float:
    """`40m`, `2h`, `90s` or seconds. Raises LinksimError, with the name of the option.

    Example:
        >>> parse_budget("2h")
        7200.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise LinksimError(f"{option} {shown(text)}: write a time like 40m, 2h or 90s")
    return min(float(match[1]) * _UNITS[match[2]], _MAX_BUDGET)


def trainable() -> list[str]:
    """Names of the schemes that have networks to train."""
    from linksim.schemes.learned import Learned
    from linksim.schemes.registry import find, names

    found = []
    for name in names():
        # A plug-in that cannot be loaded is nothing to those that can.
        with suppress(LinksimError):
            if issubclass(find(name), Learned):
                found.append(name)
    return found


def model_spec(
    scheme: str, channel: str, rho: str, size: str, users: int, csi: str | None, power: str,
    ablation: str = NO_ABLATION,
) -> ModelSpec:  # fmt: skip
    """The model that the words ask for. `rho` is of one user's symbols; `csi` None is the scheme's own default.

    Raises LinksimError.
    """
    from linksim.link.config import MAX_USERS
    from linksim.link.fading import CHANNELS
    from linksim.schemes.learned import Learned
    from linksim.schemes.registry import find
    from linksim.weights import TRAINED_SHAPE

    if scheme not in trainable():
        raise unknown("scheme", scheme, trainable())
    system = find(scheme)
    assert issubclass(system, Learned)
    fields = system.Params.model_fields
    choices: dict[str, tuple[str, Sequence[str]]] = {
        "channel": (channel, [name for name in CHANNELS.names() if _has_weights(name)]),
        "size": (size, get_args(fields["size"].annotation)),
        "csi": (fields["csi"].default if csi is None else csi, get_args(fields["csi"].annotation)),
        "power": (power, ["sum", "per-ue"]),
        "ablation": (ablation, [NO_ABLATION, *system.ablations]),
    }
    for what, (word, known) in choices.items():
        if word not in known:
            raise unknown(what, word, known)
    if not 1 <= users <= MAX_USERS:
        raise LinksimError(f"--users {users}: 1 to {MAX_USERS} are possible")
    fraction, shape = parse_rho(rho), TRAINED_SHAPE
    channel_uses(fraction, shape)
    words = {what: word for what, (word, _) in choices.items()}
    system.check_csi(channel, words["csi"])
    spec = ModelSpec(system.name, rho=fraction, users=users, image_shape=shape, **words)  # type: ignore[arg-type]
    spec.build()
    return spec


def _has_weights(channel: str) -> bool:
    """Whether learned schemes are trained over a channel; a plug-in that cannot be loaded has none."""
    from linksim.link.fading import CHANNELS

    with suppress(LinksimError):
        return CHANNELS.find(channel).trained_as is None
    return False


def models_for(config: SweepConfig, shape: tuple[int, int, int]) -> list[Spec]:
    """The models that a sweep's learned schemes and refiners run on, in the order in which they are trained."""
    from linksim.schemes.learned import Learned
    from linksim.schemes.refined import Refined
    from linksim.schemes.registry import find

    found: set[Spec] = set()
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
                setting = Setting(config.link(channel), shape, rho)
                spec = system.model(setting, params)
                found.add(spec)
                if refined is not None:
                    found |= set(refined.refiner_class.models(spec, refined.refiner_params(all_params)))
    return [spec for wave in waves(found) for spec in wave]


def with_prerequisites(specs: Iterable[Spec]) -> list[Spec]:
    """Models that have no weights, and those that their training needs and that have none either, in order."""
    from linksim import weights

    known = weights.cards()
    found: set[Spec] = set()
    waiting = list(specs)
    while waiting:
        spec = waiting.pop()
        if spec in found or (spec.name in known and weights.present(known[spec.name])):
            continue
        found.add(spec)
        waiting += [*spec.parts.values(), *([spec.source] if spec.source is not None else [])]
    return [spec for wave in waves(found) for spec in wave]


def image_shape(config: SweepConfig) -> tuple[int, int, int]:
    """(C, H, W) of a sweep's images. Raises LinksimError where they lie nowhere."""
    from linksim.data.cifar10 import IMAGE_SHAPE

    if config.image_size is not None:
        return 3, config.image_size, config.image_size
    if not config.dataset.startswith("folder:"):
        return IMAGE_SHAPE
    from linksim.data import load_dataset

    return load_dataset(config.dataset).image_shape


def waves(specs: Iterable[Spec]) -> list[list[Spec]]:
    """Models in the order of who learns from whom; those of one wave do not need each other.

    The orthogonal model with the most symbols is first, since all others can start warm from it; then come the other
    orthogonal ones, which teach; then the other transceivers; and the refiners, which are trained on their output.
    """
    models = sorted(specs, key=lambda spec: spec.name)
    links = [spec for spec in models if isinstance(spec, ModelSpec)]
    links.sort(key=lambda spec: (spec.access != "oma", spec.teacher is not None, -spec.rho, spec.name))
    apart = [spec for spec in links if spec.access == "oma"]
    rest = [spec for spec in links if spec.access != "oma"]
    found: list[list[Spec]] = [list(apart[:1]), list(apart[1:]), list(rest)]
    left = [spec for spec in models if not isinstance(spec, ModelSpec)]
    while left:
        found.append([spec for spec in left if not set(spec.parts.values()) & set(left)])
        left = [spec for spec in left if spec not in found[-1]]
    return [wave for wave in found if wave]


def nearest(spec: ModelSpec) -> str | None:
    """The trained model that a new one of `spec` best starts from, if there is any: `--warm auto`.

    It has the same kind of network and is orthogonal or of the same scheme; the same rho goes before the same channel,
    and then the one that has seen most.
    """
    from linksim import weights
    from linksim.schemes.registry import names

    ranks: dict[str, tuple[bool, bool, bool, int]] = {}
    for name, (other, card) in weights.transceivers().items():
        if (
            other.ablation != NO_ABLATION
            or other == spec
            or not weights.present(card)
            or other.method not in names()
            or other.image_shape != spec.image_shape
        ):
            continue
        alike = other.scheme.network.__func__ is spec.scheme.network.__func__  # type: ignore[attr-defined]
        if alike and other.size == spec.size and (other.access == "oma" or other.method == spec.method):
            ranks[name] = (
                other.rho == spec.rho, other.channel == spec.channel, other.access == "oma", lineage_pairs(card)
            )  # fmt: skip
    return max(ranks, key=lambda name: ranks[name], default=None)


@dataclass(frozen=True)
class Start:
    """What a training begins with.

    Args:
        model: name of the model; empty from scratch.
        embedded: its users in separate channel uses become users that superpose.
        run: the folder of an ended run whose best weights it goes on from; else the model's weights as installed.
    """

    model: str = ""
    embedded: bool = False
    run: Path | None = None

    def load(self, spec: Spec) -> tuple[nn.Module | None, list[dict[str, Any]]]:
        """The network, None from scratch, and the trainings that made it, oldest first."""
        from linksim import weights
        from linksim.train.loop import BEST, load_checkpoint

        if self.run is not None:
            content = load_checkpoint(self.run / BEST)
            network = spec.build()
            # As they are installed, so that a card's command makes the same.
            network.load_state_dict({name: value.half().float() for name, value in content["model"].items()})
            return network, json.loads((self.run / HISTORY).read_text(encoding="utf-8"))
        if not self.model:
            return None, []
        card = weights.cards()[self.model]
        # With its card, for a start needs no more: a refiner of the first stage's weights of before will do.
        return weights.load(spec_from_json(card["model"]), card), weights.history(self.model, card)


def run_training(
    spec: Spec,
    recipe: BaseRecipe,
    data_dir: Path | None,
    out: Path,
    *,
    start: Start,
    seconds: float | None,
    steps: int | None,
    seed: int,
    device: str,
    replace: bool = False,
    report: Callable[[State, Mapping[str, float]], None] | None = None,
) -> tuple[list[Path], dict[str, Any]]:
    """Trains and installs; returns the weights' files and their card's facts.

    There are no files where better weights of the same model are there: those stay.

    Args:
        start: of a new run, see `find_start`; a run that `out` holds goes on as it began.
        replace: put these weights in the place of better ones.

    Raises:
        LinksimError: no such device, no teacher, no first stage, no data, and what `train` raises.
    """
    import torch

    from linksim import weights
    from linksim.data import load_cifar10_train
    from linksim.data.cifar10 import VALIDATION
    from linksim.files import exclusive, remove_parts, write_atomic
    from linksim.train.loop import BEST, CHECKPOINT, load_checkpoint, train
    from linksim.version import code_version

    if isinstance(spec, ModelSpec) and spec.image_shape != weights.TRAINED_SHAPE:
        raise LinksimError(f"{spec.name}: linksim trains on CIFAR-10 alone, images of 32x32")
    check_device(device)
    if not next(path for path in (out, *out.absolute().parents) if path.exists()).is_dir():
        raise LinksimError(f"--out {out}: a file is in the way: take another --out")
    if seconds is None and steps is None and not (out / CHECKPOINT).exists():
        raise LinksimError("no budget given: --budget 40m, or --steps")
    parts = weights.part_hashes(spec)
    images = load_cifar10_train(data_dir)
    weights.ready_to_install()
    out.mkdir(parents=True, exist_ok=True)
    with exclusive(out / ".lock", out):
        remove_parts(out)
        network, lineage = (None, []) if (out / CHECKPOINT).exists() else start.load(spec)
        if start.embedded and network is not None:
            assert isinstance(spec, ModelSpec)
            task: Task = spec.task(recipe, images, seed, device, network, embedded=True)
        else:
            task = spec.task(recipe, images, seed, device, network)
        task.parts = parts
        try:
            state = train(
                task, out, seconds=seconds, steps=steps, lineage=lineage, embedded=start.embedded, report=report
            )
        except torch.OutOfMemoryError:
            raise LinksimError(
                f"{spec.name}: the GPU has no room for {recipe.batch} groups a step: take a smaller --set batch=... "
                "and another --out, or --device cpu"
            ) from None
        best = spec.build()
        best.load_state_dict(task.shipped(load_checkpoint(out / BEST)["model"]))
        facts: dict[str, Any] = {
            "data": f"CIFAR-10 training split, 45,000 images; validation on {task.validated} of the other "
            f"{VALIDATION:,}",
            "recipe": recipe.words,
            "settings": task.settings(),
            "steps": state.step,
            "pairs": state.prepared + state.step * recipe.batch,
            "lineage": state.lineage,
            **({"embedded": True} if state.embedded else {}),
            "seed": seed,
            "parts": parts,
            "seconds": round(state.seconds),
            "device": _device_name(device),
            "validation": {name: round(value, 4) for name, value in state.validation.items()},
            "score": round(state.best, 5),
            "code": code_version(),
            "golden_psnr_db": round(golden_psnr(spec, best), 4),
        }
        facts["command"] = spec.command_of(facts)
        files = weights.files(spec, best)
        made = {**facts, "files": {name: weights.digest(data) for name, data in files.items()}}
        write_atomic(out / HISTORY, (json.dumps(weights.history(spec.name, made), indent=1) + "\n").encode())
        there = weights.cards().get(spec.name)
        if there is not None and weights.present(there) and not replace and _better(spec, there, facts):
            return [], facts
        return weights.install(spec, best, facts), facts


def _better(spec: Spec, there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether the weights that are there score higher; other metrics or other parts do not compare."""
    alike = there["validation"].keys() == here["validation"].keys()
    behind = isinstance(spec, ModelSpec) or there.get("parts") == here["parts"]
    return bool(alike and behind and there["score"] > here["score"])


def find_start(spec: Spec, warm: str | None, out: Path) -> Start:
    """What a training starts from, or what the run in `out` began with.

    Args:
        warm: name of a model, whose weights are adopted as far as they fit; "embedded": as users in separate channel
            uses; "auto": the `nearest` model; "none": from scratch. None is "embedded" for a model that has a source
            for it, and "none" for every other.
        out: folder of the run.

    Raises:
        LinksimError: no such model, or another start than that of the run in `out`.
    """
    from linksim.train.loop import CHECKPOINT, load_checkpoint

    if not (out / CHECKPOINT).exists():
        return _new_start(spec, warm)
    state = load_checkpoint(out / CHECKPOINT)["state"]
    saved = Start(began_with(state), state["embedded"])
    if warm not in (None, "auto") and _new_start(spec, warm) != saved:
        began = f"{saved.model}, {EMBEDDED}" if saved.embedded else saved.model or "scratch"
        raise LinksimError(f"--warm {shown(warm)}: the run in {out} began from {began}: take another --out")
    return saved


def _new_start(spec: Spec, warm: str | None) -> Start:
    from linksim import weights

    if warm == FROM_SCRATCH or (warm is None and spec.source is None):
        return Start()
    if not isinstance(spec, ModelSpec):
        others = {name: spec_from_json(card["model"]) for name, card in weights.cards().items()}
        return Start(chosen([name for name, other in others.items() if other.shape == spec.shape], str(warm), "model"))
    known = weights.transceivers()
    source = spec.source
    if warm in (None, EMBEDDED):
        if source is None:
            raise LinksimError(f"--warm {EMBEDDED}: {spec.name} has no orthogonal model to start as: leave it out")
        _check_embedding(spec, source)
        if source.name not in known:
            raise LinksimError(
                f"{spec.name} starts as {source.name}, users in separate channel uses, which has no weights: train it "
                f"first: {source.command}; or start without: --warm {FROM_SCRATCH}"
            )
        return Start(source.name, embedded=True)
    if warm == "auto":
        if source is not None and source.name in known:
            return Start(source.name, embedded=True)
        return Start(nearest(spec) or "" if spec.ablation != SCRATCH else "")
    name = chosen([*known, EMBEDDED, "auto", FROM_SCRATCH], str(warm), "model")
    if spec.ablation == SCRATCH != known[name][0].ablation:
        raise LinksimError(f"--warm {name}: {SCRATCH} starts from nothing, or from a model that is {SCRATCH} too")
    return Start(name)


def _check_embedding(spec: ModelSpec, source: ModelSpec) -> None:
    """Raises LinksimError where the maps do not divide among the users."""
    try:
        spec.build().embed(source.build())
    except LinksimError as error:
        raise LinksimError(
            f"{spec.name} cannot start as {spec.users} users in separate channel uses ({error}): take another --rho or "
            f"--users, or --warm {FROM_SCRATCH}"
        ) from None


def go_on_from(spec: Spec, out: Path) -> tuple[Start, BaseRecipe, int]:
    """What it takes to go on with a run after its end: from its best weights, by a schedule of its own.

    The ended run's folder is set aside as `MODEL.1`, `MODEL.2`, ..., with its best weights and logs.

    Args:
        spec: of the run.
        out: its folder.

    Returns:
        Start and recipe of the training that goes on, and a seed by which it draws anew.

    Raises:
        LinksimError: there is no run, or it has not ended.
    """
    from linksim.train.loop import BEST, CHECKPOINT, load_checkpoint

    if (out / CHECKPOINT).exists():
        state = load_checkpoint(out / CHECKPOINT)["state"]
        if state["step"] < state["steps"] or not (out / HISTORY).exists():
            raise LinksimError(f"the run in {out} has not ended: --resume goes on with it")
        out.rename(_aside(out, len(set_aside(out)) + 1))
    done = set_aside(out)
    if not done:
        raise LinksimError(f"{out} holds no run to go on with: leave --more out")
    # It cannot be gone on with any more, and is the largest of its files.
    (done[-1] / CHECKPOINT).unlink(missing_ok=True)
    identity = load_checkpoint(done[-1] / BEST)["identity"]
    recipe = TypeAdapter(spec.recipe).validate_python(identity["recipe"])
    return Start(spec.name, run=done[-1]), recipe, identity["seed"] + 1


def _aside(out: Path, number: int) -> Path:
    return out.with_name(f"{out.name}.{number}")


def set_aside(out: Path) -> list[Path]:
    """Folders of the runs that others went on from, in order."""
    return list(itertools.takewhile(Path.exists, (_aside(out, number) for number in itertools.count(1))))


def golden_psnr(spec: Spec, model: nn.Module) -> float:
    """A PSNR in dB of a model's shipped, half-precision weights: what `linksim verify` measures again."""
    import torch

    half = {name: value.to(torch.float16).float() for name, value in model.state_dict().items()}
    copy = spec.build().eval()
    copy.load_state_dict(half)
    return spec.golden_psnr(copy)


def verify(name: str) -> tuple[float, float]:
    """A card's golden PSNR and the PSNR that its weights give here. Raises LinksimError for damaged weights."""
    from linksim import weights

    card = weights.cards()[name]
    spec = spec_from_json(card["model"])
    return card["golden_psnr_db"], golden_psnr(spec, weights.load(spec))


def _device_name(device: str) -> str:
    import platform

    import torch

    if device != "cpu":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}, threads: {torch.get_num_threads()})"
