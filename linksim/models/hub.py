"""Models as folders in Hugging Face's layout: `model.safetensors`, `config.json` and a model card, `README.md`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from linksim.errors import LinksimError, said, shown
from linksim.files import digest, write_atomic
from linksim.models import weights
from linksim.models.owner import Model
from linksim.models.spec import NO_ABLATION, ModelSpec, Spec, spec_from_json
from linksim.version import __version__

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"

_WRITTEN = "give a folder that linksim card --export wrote"

#: Bytes of a config.json at the most.
_CONFIG_BYTES = 1 << 20


def export(model: Model, network: nn.Module, folder: Path) -> list[Path]:
    """Writes a model into a folder that is new or empty.

    Args:
        model: with its spec and owner.
        network: its weights, which are kept in half precision; where they are those of its card, that goes along.
        folder: where to.

    Returns:
        The files written.

    Raises:
        LinksimError: there is something in the folder already.
    """
    from safetensors.torch import save

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LinksimError(f"{folder} is not empty: give a new folder")
    hashes = [digest(data) for data in weights.files(model, network).values()]
    found = weights.cards().get(model.name, {})
    same = list(found.get("files", {}).values()) == hashes
    facts = weights.checked_facts(found) if same else {}
    config: dict[str, Any] = {"library_name": "linksim", "linksim_version": __version__, "name": model.name}
    config |= {"model": model.spec.to_json()} | ({"card": facts} if facts else {})
    content = {
        WEIGHTS: save(weights.halved(network), {"format": "pt"}),
        CONFIG: (json.dumps(config, indent=1) + "\n").encode(),
        CARD: _card(model, facts).encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        write_atomic(folder / name, data)
    return [folder / name for name in content]


def read(folder: Path) -> tuple[Spec, dict[str, Any]]:
    """What a folder's weights are of, and the facts of their card, none where it has none. Raises LinksimError."""
    path = folder / CONFIG
    try:
        config = json.loads(_bytes(path, _CONFIG_BYTES))
        spec = spec_from_json(config["model"])
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", spec.name):
            raise ValueError
        return spec, dict(config.get("card", {}))
    except OSError as error:
        raise LinksimError(f"{path}: {error.strerror}: {_WRITTEN}") from None
    except (ValidationError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
        raise LinksimError(
            f"{path} is of no model of linksim: give a folder that linksim card --export wrote"
        ) from None


def _bytes(path: Path, most: int | None = None) -> bytes:
    """Of a file that is one: a pipe would be waited for."""
    if not path.is_file():
        raise LinksimError(f"{path} is no file: {_WRITTEN}")
    with path.open("rb") as file:
        return file.read(most)


def install(model: Model, facts: Mapping[str, Any], folder: Path, replace: bool) -> None:
    """Puts a folder's model among the user's own weights, from where schemes take it.

    Args:
        model: what `read` found, with its owner.
        facts: of its card.
        folder: that has its weights.
        replace: whether it goes in the place of own weights of the same model.

    Raises:
        LinksimError: no card, weights of another network, or own ones that would go.
    """
    if not facts:
        raise LinksimError(
            f"{folder} has weights without a card: run on them with weights={folder / WEIGHTS}, or load_model's "
            "Transceiver.from_pretrained"
        )
    known = weights.cards().get(model.name)
    if known is not None and not weights.is_shipped(known) and not replace:
        raise LinksimError(f"there are own weights of {model.name}: --replace puts these in their place")
    try:
        facts = weights.checked_facts(facts)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise LinksimError(f"{folder / CONFIG}: its card is none ({where}: {shown(first['msg'])})") from None
    network = fitted(model, folder)
    weights.ready_to_install()
    weights.install(model, network, facts)


def fitted(model: Model, folder: Path) -> nn.Module:
    """The network with a folder's weights. Raises LinksimError where no network of linksim is of this model."""
    known = getattr(model.owner, "ablations", {})
    if isinstance(model.spec, ModelSpec) and model.spec.ablation not in (NO_ABLATION, *known):
        raise LinksimError(f"{folder / CONFIG}: {model.spec.method} has no ablation {shown(model.spec.ablation)}")
    try:
        return weights.fitted(model, tensors(folder), str(folder / WEIGHTS))
    # What a network of some size or part raises that nobody can build.
    except (KeyError, ValueError, RuntimeError, MemoryError) as error:
        raise LinksimError(f"{folder / CONFIG}: no network fits it ({said(error, 100)})") from None


def tensors(folder: Path) -> dict[str, Tensor]:
    """A folder's weights. Raises LinksimError."""
    path = folder / WEIGHTS
    try:
        return weights.read_tensors(_bytes(path), str(path))
    except OSError as error:
        raise LinksimError(f"{path}: {error.strerror}") from None


def _card(model: Model, facts: Mapping[str, Any]) -> str:
    """A model card, with what Hugging Face reads at its top."""
    other = "citation" in facts or not facts
    head = ["---", "library_name: linksim", f"license: {'other' if other else 'mit'}"]
    head += ["tags:", "- semantic-communication", "- joint-source-channel-coding", "---"]
    lines = [f"# {model.name}", "", "Weights of linksim, an end-to-end link simulator for semantic image transmission."]
    if isinstance(model.spec, ModelSpec):
        lines += ["", "```python", "from linksim.modules import Transceiver", "",
                  'model = Transceiver.from_pretrained("this folder")', "```"]  # fmt: skip
    lines += [
        "",
        "Among your own weights, where sweeps take it: `linksim card --import FOLDER`.",
        "",
        "| | |",
        "|---|---|",
    ]
    rows = {
        "Model": ", ".join(f"{key} {value}" for key, value in model.spec.to_json().items()),
        "Data": facts.get("data"),
        "Cite": facts.get("citation"),
        "Validation": ", ".join(f"{key} {value:.4g}" for key, value in facts.get("validation", {}).items()),
        "Recipe": facts.get("recipe"),
    }
    lines += [f"| {key} | {value} |" for key, value in rows.items() if value]
    return "\n".join([*head, *lines]) + "\n"
