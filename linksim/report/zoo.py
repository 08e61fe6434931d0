"""The model zoo: every model with a card, what it reaches, and what it is for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linksim.errors import LinksimError
from linksim.models.spec import lineage_pairs, spec_from_json
from linksim.models.weights import cards, place, present
from linksim.paths import shipped

if TYPE_CHECKING:
    import pandas as pd

    from linksim.models.owner import Model

_PSNR = ("psnr_0db", "psnr_10db", "psnr_20db")


def zoo() -> pd.DataFrame:
    """Every model with a card, one a row.

    Returns:
        `model`; `psnr_db`, on validation at 0/10/20 dB, or what else it is validated by; `trained`, image groups
        (pairs; images of a prior) of its training and of all before it; `mb` of its weights, 0 where its card alone is
        there; `licence`; `figures`, linksim's own sweeps that it stands in; `note`, where its weights lie unless they
        are shipped.

    Example:
        >>> import linksim
        >>> table = linksim.zoo().set_index("model")
        >>> table.loc["ngf_awgn_1-12_n1_none_sum_32px_paper", "figures"]
        'gsc-fig04'
    """
    import pandas as pd

    known = cards()
    used = _used(known)
    return pd.DataFrame([_row(name, card, known, used) for name, card in known.items()])


def _row(
    name: str, card: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]], used: Mapping[str, list[str]]
) -> dict[str, Any]:
    validation, where = card["validation"], place(card)
    if all(key in validation for key in _PSNR):
        reached = "/".join(f"{validation[key]:.2f}" for key in _PSNR)
    else:
        reached = ", ".join(f"{key} {value:.4g}" for key, value in list(validation.items())[:1])
    files = [Path(card["folder"]) / file for file in card["files"]]
    return {
        "model": name,
        "psnr_db": reached,
        "trained": f"{lineage_pairs(card)} {spec_from_json(card['model']).unit}",
        "mb": round(sum(file.stat().st_size for file in files) / 1e6, 1) if present(card) else 0.0,
        # Who trained on what has terms of its own brings them along.
        "licence": "see card" if "citation" in card else "MIT" if where.endswith("shipped") else "",
        "figures": " ".join(used.get(name, ())),
        "note": "; ".join(filter(None, ("" if where == "shipped" else where, _behind_others(card, known)))),
    }


def _used(known: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Names of linksim's own sweeps by the models that they run on."""
    found: dict[str, list[str]] = {}
    for file in sorted(shipped(Path("sweeps/fig06.yaml")).parent.glob("*.yaml")):
        # One of images that lie nowhere, or that is no sweep; and what a sweep would note of its settings.
        with suppress(LinksimError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for model in _models(file, known):
                found.setdefault(model.name, []).append(file.stem)
    return found


def _models(file: Path, known: Mapping[str, Mapping[str, Any]]) -> Iterator[Model]:
    from linksim.engine.config import make_config, read_sweep_file
    from linksim.models.weights import serving
    from linksim.train.models import image_shape, model_of_card, models_for

    config = make_config(read_sweep_file(file))
    for model in models_for(config, image_shape(config)):
        yield model
        # Weights of another size that are taken where there are none of this one.
        if model.name not in known and (other := serving(model)) is not None:
            yield model_of_card(known[other])


def _behind_others(card: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> str:
    """What is to be said of a refiner whose first stages have other weights than those that it was trained behind."""
    parts = card.get("parts", {})
    others = [name for name, files in parts.items() if name in known and list(known[name]["files"].values()) != files]
    if "first" in parts:
        from linksim.train.models import model_of_card

        # The refiner, or the first stage's scheme, may be of a plug-in that has gone.
        with suppress(LinksimError):
            first = model_of_card(card).parts["first"]
            there = known.get(first.name)
            if there is None or list(there["files"].values()) != parts["first"]:
                others.append(first.name)
    return f"trained behind weights of {', '.join(others)} that are no longer there" if others else ""
