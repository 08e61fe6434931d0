"""Trained weights: a card each, found through one manifest, hashed before use.

Two folders are looked at: the user's own (`$LINKSIM_WEIGHTS`, else the user's data folder), where `linksim train`
leaves what it trained, and then this one, what the package ships.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from linksim.errors import LinksimError, NoWeights
from linksim.paths import weights_dir

if TYPE_CHECKING:
    from torch import Tensor

    from linksim.nets.network import Network
    from linksim.train.spec import ModelSpec

MANIFEST = "manifest.json"
SHIPPED = Path(__file__).parent

#: Bytes of one file at the most; larger models are cut into several.
SHARD = 16 * 2**20

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
    """The card of a model whose weights are there.

    Raises NoWeights where they are not: which are there, and how to train it.
    """
    known = cards()
    if spec.name not in known:
        near = sorted(name for name in known if name.startswith(f"{spec.method}_"))
        there = f"there are {', '.join(near)}" if near else f"there are none for {spec.method}"
        raise NoWeights(f"no weights {spec.name}: {there}; train them: {spec.command}")
    if not present(known[spec.name]):
        raise NoWeights(f"{spec.name}: weights not shipped, their card alone is; train them: {spec.command}")
    return known[spec.name]


def present(found: Card) -> bool:
    """Whether a card's weights are there, and not the card alone."""
    return all(path.is_file() for path in _paths(found))


def _paths(found: Card) -> list[Path]:
    return [Path(found["folder"]) / name for name in found["files"]]


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def load(spec: ModelSpec) -> Network:
    """The trained network, ready to evaluate.

    Raises:
        NoWeights: no such weights.
        LinksimError: not what their card says.
    """
    from safetensors.torch import load as load_tensors

    found = card(spec)
    tensors: dict[str, Tensor] = {}
    for path, sha256 in zip(_paths(found), found["files"].values(), strict=True):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise LinksimError(f"{path}: {error.strerror}: install linksim again, or train: {spec.command}") from None
        if digest(data) != sha256:
            raise LinksimError(
                f"{path} is damaged (its SHA-256 is not its card's): install linksim again, or train: {spec.command}"
            )
        tensors |= load_tensors(data)
    model = spec.build()
    model.load_state_dict({name: value.float() for name, value in tensors.items()})
    return model.eval().requires_grad_(False)


def install(spec: ModelSpec, model: Network, facts: Card, folder: Path | None = None) -> list[Path]:
    """Writes a model's weights in half precision with their card, into the user's own folder unless told otherwise."""
    import torch
    from safetensors.torch import save

    from linksim.engine.provenance import write_atomic

    folder = folder or weights_dir()
    folder.mkdir(parents=True, exist_ok=True)
    shards = list(_shards({n: v.to(torch.float16).contiguous() for n, v in model.state_dict().items()}))
    files: dict[str, str] = {}
    # Several models are trained side by side and end when they like.
    with FileLock(folder / f".{MANIFEST}.lock"):
        for number, tensors in enumerate(shards, 1):
            part = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
            data = save(tensors)
            write_atomic(folder / f"{spec.name}{part}.safetensors", data)
            files[f"{spec.name}{part}.safetensors"] = digest(data)
        known = {name: {k: v for k, v in card.items() if k != "folder"} for name, card in _read(folder).items()}
        known[spec.name] = {"files": files, "model": spec.to_json(), **facts, "command": spec.command}
        write_atomic(folder / MANIFEST, (json.dumps(dict(sorted(known.items())), indent=1) + "\n").encode())
    return [folder / name for name in files]


def _shards(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    part: dict[str, Tensor] = {}
    # Each tensor has some bytes of header.
    sizes = {name: value.numel() * value.element_size() + 256 for name, value in tensors.items()}
    for name, value in tensors.items():
        if part and sum(sizes[n] for n in part) + sizes[name] > SHARD:
            yield part
            part = {}
        part[name] = value
    yield part
