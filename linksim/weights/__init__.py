"""Trained weights: a card each, found through one manifest, hashed before use.

Two folders are looked at: the user's own (`$LINKSIM_WEIGHTS`, else the user's data folder), where `linksim train`
leaves what it trained, and then this one, what the package ships.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from linksim.errors import LinksimError, NoWeights
from linksim.paths import weights_dir

if TYPE_CHECKING:
    from linksim.nets.network import Network
    from linksim.train.spec import ModelSpec

MANIFEST = "manifest.json"
SHIPPED = Path(__file__).parent

Card = Mapping[str, Any]


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        cards = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LinksimError(f"{folder / MANIFEST} cannot be read ({error}): repair it or take it away") from None
    return {name: {**card, "folder": str(folder)} for name, card in cards.items()}


def cards() -> dict[str, dict[str, Any]]:
    """Every card by the name of its model; the user's own go before those that are shipped."""
    return {**_read(SHIPPED), **_read(weights_dir())}


def card(spec: ModelSpec) -> dict[str, Any]:
    """The card of a model. Raises NoWeights where nobody trained it: which are there, and how to train it."""
    known = cards()
    if spec.name not in known:
        near = sorted(name for name in known if name.startswith(f"{spec.method}_"))
        there = f"there are {', '.join(near)}" if near else f"there are none for {spec.method}"
        raise NoWeights(f"no weights {spec.name}: {there}; train them: {spec.command}")
    return known[spec.name]


def _file(found: Card) -> Path:
    return Path(found["folder"]) / found["file"]


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load(spec: ModelSpec) -> Network:
    """The trained network, ready to evaluate. Raises LinksimError: no such weights, or not what their card says."""
    from safetensors.torch import load as load_tensors

    found = card(spec)
    path = _file(found)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LinksimError(f"{path}: {error.strerror}: install linksim again, or train: {spec.command}") from None
    if hashlib.sha256(data).hexdigest() != found["sha256"]:
        raise LinksimError(
            f"{path} is damaged (its SHA-256 is not its card's): install linksim again, or train: {spec.command}"
        )
    model = spec.build()
    model.load_state_dict({name: value.float() for name, value in load_tensors(data).items()})
    return model.eval().requires_grad_(False)


def install(spec: ModelSpec, model: Network, facts: Card, folder: Path | None = None) -> Path:
    """Writes a model's weights in half precision with their card, into the user's own folder unless told otherwise."""
    import torch
    from safetensors.torch import save

    from linksim.engine.provenance import write_atomic

    folder = folder or weights_dir()
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.to(torch.float16).contiguous() for name, value in model.state_dict().items()}
    data = save(tensors)
    path = folder / f"{spec.name}.safetensors"
    # Several models are trained side by side and end when they like.
    with FileLock(folder / f".{MANIFEST}.lock"):
        write_atomic(path, data)
        _enter(folder, spec, {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), **facts})
    return path


def _enter(folder: Path, spec: ModelSpec, facts: Card) -> None:
    from linksim.engine.provenance import write_atomic

    known = {name: {k: v for k, v in card.items() if k != "folder"} for name, card in _read(folder).items()}
    known[spec.name] = {**facts, "model": spec.to_json(), "command": spec.command}
    write_atomic(folder / MANIFEST, (json.dumps(dict(sorted(known.items())), indent=1) + "\n").encode())
