"""`linksim train`: from words on the command line to weights with a card."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from linksim.engine.plan import chosen
from linksim.errors import LinksimError, unknown
from linksim.link.config import Setting
from linksim.link.units import channel_uses, parse_rho
from linksim.train.spec import ModelSpec

if TYPE_CHECKING:
    from linksim.engine.config import SweepConfig
    from linksim.nets.transceiver import Transceiver
    from linksim.train.loop import State

_GOLDEN_GROUPS = 32

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def parse_budget(text: str) -> float:
    """`40m`, `2h`, `90s` or seconds. Raises LinksimError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise LinksimError(f"--budget {text!r}: write a time like 40m, 2h or 90s")
    return float(match[1]) * _UNITS[match[2]]


def model_spec(scheme: str, channel: str, rho: str, size: str, users: int, csi: str, power: str) -> ModelSpec:
    """The model that the words ask for. `rho` is of one user's symbols. Raises LinksimError."""
    from linksim.link.config import MAX_USERS
    from linksim.link.fading import CHANNELS

    choices: dict[str, tuple[str, list[str]]] = {
        "scheme": (scheme, ["semoma", "semnoma", "kd"]),
        "channel": (channel, [name for name in CHANNELS if name != "rician"]),
        "size": (size, ["compact", "paper"]),
        "csi": (csi, ["own", "all", "snr"]),
        "power": (power, ["sum", "per-ue"]),
    }
    for what, (word, known) in choices.items():
        if word not in known:
            raise unknown(what, word, known)
    if not 1 <= users <= MAX_USERS:
        raise LinksimError(f"--users {users}: 1 to {MAX_USERS} are possible")
    fraction = parse_rho(rho)
    channel_uses(fraction, (3, 32, 32))
    spec = ModelSpec(scheme, size, channel, fraction, users, csi, power)  # type: ignore[arg-type]
    spec.build()
    return spec


def models_for(config: SweepConfig) -> list[ModelSpec]:
    """The models that a sweep's learned schemes need, teachers before students.

    Raises LinksimError: data other than 32x32 images.
    """
    from linksim.schemes.registry import find
    from linksim.schemes.semnoma import Learned

    found: dict[ModelSpec, None] = {}
    for variant in config.variants:
        system = find(variant.name)
        if not issubclass(system, Learned):
            continue
        for channel in config.channel:
            for rho in config.rhos:
                setting = Setting(config.link(channel), (3, 32, 32), rho)
                spec = system.model(setting, system.Params(**dict(variant.params)))
                if spec.method == "kd":
                    found.setdefault(teacher_of(spec))
                found.setdefault(spec)
    return list(found)


def teacher_of(spec: ModelSpec) -> ModelSpec:
    """The orthogonal model that teaches a "kd" model: the same symbols a user."""
    return replace(spec, method="semoma")


def run_training(
    spec: ModelSpec,
    recipe_name: str,
    data_dir: Path | None,
    out: Path,
    *,
    seconds: float | None,
    steps: int | None,
    seed: int,
    device: str,
    warm: str | None,
    report: Callable[[State, dict[str, float]], None] | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Trains and installs; returns the weights' file and their card's facts. Raises LinksimError."""
    from linksim import weights
    from linksim.data import load_cifar10_train
    from linksim.engine.provenance import code_version
    from linksim.train.loop import VALIDATION_SNRS_DB, train
    from linksim.train.recipe import RECIPES

    if recipe_name not in RECIPES:
        raise unknown("recipe", recipe_name, RECIPES)
    recipe = RECIPES[recipe_name]
    teacher = weights.load(teacher_of(spec)) if spec.method == "kd" else None
    start = None
    if spec.method == "kd":
        start = weights.load(teacher_of(spec)), weights.card(teacher_of(spec))["lineage_pairs"]
    elif warm is not None:
        card = weights.cards()[chosen(list(weights.cards()), warm)]
        start = weights.load(ModelSpec.from_json(card["model"])), card["lineage_pairs"]
    images = load_cifar10_train(data_dir)
    state = train(
        spec, recipe, images, out, seconds=seconds, steps=steps, seed=seed, device=device, start=start, teacher=teacher,
        report=report,
    )  # fmt: skip
    model = _best(spec, out)
    pairs = state.step * recipe.batch
    facts = {
        "data": "CIFAR-10 training split, 45,000 images; validation on 512 of the other 5,000",
        "recipe": recipe.name,
        "steps": state.step,
        "pairs": pairs,
        "lineage_pairs": pairs + state.lineage_pairs,
        "warm_start": teacher_of(spec).name if spec.method == "kd" else warm,
        "seconds": round(state.seconds),
        "device": _device_name(device),
        "validation_psnr_db": {
            f"{s:g}": round(p, 3) for s, p in zip(VALIDATION_SNRS_DB, state.validation, strict=True)
        },
        "code": code_version(),
        "golden_psnr_db": round(golden_psnr(spec, model), 4),
    }
    return weights.install(spec, model, facts), facts


def golden_psnr(spec: ModelSpec, model: Transceiver) -> float:
    """Mean PSNR in dB at 10 dB on the first embedded images, in float32: what `linksim verify` measures again."""
    import torch

    from linksim.data import load_dataset
    from linksim.train.loop import validate

    images = load_dataset("cifar10-mini").images[np.arange(_GOLDEN_GROUPS * spec.users)]
    half = {name: value.to(torch.float16).float() for name, value in model.state_dict().items()}
    copy = spec.build()
    copy.load_state_dict(half)
    return validate(spec, copy, images, "cpu", (10.0,), exact=True)[10.0]


def verify(name: str) -> tuple[float, float]:
    """A card's golden PSNR and the PSNR that its weights give here. Raises LinksimError for damaged weights."""
    from linksim import weights

    card = weights.cards()[name]
    spec = ModelSpec.from_json(card["model"])
    return card["golden_psnr_db"], golden_psnr(spec, weights.load(spec))


def _best(spec: ModelSpec, out: Path) -> Any:
    import torch

    model = spec.build()
    model.load_state_dict(torch.load(out / "best.pt", map_location="cpu", weights_only=True)["model"])
    return model


def _device_name(device: str) -> str:
    import platform

    import torch

    return torch.cuda.get_device_name(device) if device != "cpu" else f"CPU ({platform.machine()}, 1 thread)"
