"""Compares training recipes at one fixed budget: `python benchmarks/recipes.py --data-dir DIR [--search NAME]`.

`base`: every row trains SemOMA (compact, AWGN, rho 1/3 a user) from scratch on the same number of image pairs, with one
choice of the recipe changed. `warm`: the same for SemNOMA (compact, block Rayleigh fading, rho 1/6) from the shipped
orthogonal weights, as the shipped ones were trained. `teaching`: every row trains KD-SemNOMA there from its teacher,
with one choice of the losses changed, beside SemNOMA from the same start. `embedded`: SemNOMA and KD-SemNOMA as users
in separate channel uses at first (`linksim.schemes.semnoma.embedding`), with one choice of `finetune` changed.
`scratch`: SemOMA as in `base`, with one choice of `scratch` changed; SOAP is pytorch_optimizer's (`pip install
pytorch-optimizer`). Each gives the validation PSNR. Rows that the table in `results/recipes` holds are not run again.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from torch import nn

from linksim.data.training import TrainingData
from linksim.models import weights
from linksim.models.checkpoint import BEST, load_checkpoint
from linksim.models.spec import ModelSpec
from linksim.nets.optimizers import Optimizer
from linksim.schemes.learned import transceiver
from linksim.schemes.semnoma.recipe import RECIPES, Recipe
from linksim.train.loop import train

FOLDER = Path(__file__).parent.parent / "results" / "recipes"
COSINE = replace(RECIPES["adamw"], schedule="cosine")
FINETUNE = RECIPES["finetune"]
SCRATCH = RECIPES["scratch"]
RELEASED = replace(COSINE, weights=(10.0, 100.0, 1.0), fa_norm="released")


class Tried(Optimizer):
    """Parameter groups of one optimiser, each at a multiple of the recipe's rate.

    Args:
        optimizer: with the multiple as "times" in every group.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._parts = [optimizer]

    def step(self, rate: float | None = None) -> None:
        """See `Optimizer`."""
        for group in self._parts[0].param_groups:
            group["lr"] = group["lr"] if rate is None else rate * group["times"]
        self._parts[0].step()


def soap(model: nn.Module, name: str, learning_rate: float, weight_decay: float) -> Optimizer:
    """SOAP (Vyas et al., 2024) in the place of the recipe's optimiser."""
    from pytorch_optimizer import SOAP

    groups: list[dict[str, Any]] = [{"params": list(model.parameters()), "times": 1.0}]
    return Tried(SOAP(groups, lr=learning_rate, weight_decay=weight_decay, max_precondition_dim=1024))


def encoder_times(times: float) -> Callable[[nn.Module, str, float, float], Optimizer]:
    """AdamW whose rate for the encoder is `times` the decoders'."""

    def made(model: nn.Module, name: str, learning_rate: float, weight_decay: float) -> Optimizer:
        decoders = list(model.get_submodule("decoders").parameters())
        known = set(map(id, decoders))
        rest = [parameter for parameter in model.parameters() if id(parameter) not in known]
        groups = [{"params": decoders, "times": 1.0}, {"params": rest, "times": times}]
        return Tried(torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay, fused=True))

    return made


def tied(model: nn.Module) -> nn.Module:
    """The network with one decoder for all users, but for each decoder's first layer."""
    first, *others = model.get_submodule("decoders").children()
    for decoder in others:
        layers = decoder.get_submodule("layers")
        for number, (name, _) in enumerate(list(layers.named_children())):
            if number:
                setattr(layers, name, first.get_submodule("layers").get_submodule(name))
    return model


@dataclass(frozen=True)
class Try:
    """A training whose recipe does not say all of it.

    Args:
        spec: model.
        recipe: how.
        optimizer: takes the place of the recipe's.
        network: what is trained, made of the model's network.
        first: recipe of a part of the pairs that comes before, whose best weights the rest starts from.
        share: that part.
    """

    spec: ModelSpec
    recipe: Recipe
    optimizer: Callable[[nn.Module, str, float, float], Optimizer] = Optimizer  # type: ignore[assignment]
    network: Callable[[nn.Module], nn.Module] = lambda model: model
    first: Recipe | None = None
    share: float = 0.0


@dataclass(frozen=True)
class Search:
    """Recipes to compare.

    Args:
        table: file in `results/recipes`.
        choices: fields of the recipe that the table shows.
        pairs: budget of a row.
        rows: model and recipe by name; a model starts from the shipped weights of `start`.
        start: None is from scratch.
        embedded: every row starts as the orthogonal model of its share of the symbols.
    """

    table: str
    choices: tuple[str, ...]
    pairs: int
    rows: Mapping[str, tuple[ModelSpec, Recipe] | Try]
    start: ModelSpec | None = None
    embedded: bool = False


BASE = ModelSpec("semoma", "compact", "awgn", Fraction(1, 3))
STUDENT = ModelSpec("kd", "compact", "rayleigh", Fraction(1, 6))
UNTAUGHT = replace(STUDENT, method="semnoma")
TEACHER = replace(STUDENT, method="semoma")
CHOICES = ("learning_rate", "schedule", "batch", "ema", "clip", "loss", "layer_scale", "flip")
SEARCHES = {
    "base": Search(
        "recipes.csv",
        CHOICES,
        12_800,
        {
            "paper": (BASE, RECIPES["paper"]),
            "paper, layer scale from 0.1": (BASE, replace(RECIPES["paper"], layer_scale=0.1)),
            "cosine": (BASE, COSINE),
            "cosine, batch 32": (BASE, replace(COSINE, batch=32)),
            "cosine, batch 8": (BASE, replace(COSINE, batch=8)),
            "cosine, MSE": (BASE, replace(COSINE, loss="mse")),
            "cosine, without EMA": (BASE, replace(COSINE, ema=0.0)),
            "cosine, rate 2e-3": (BASE, replace(COSINE, learning_rate=2e-3)),
            "constant rate": (BASE, replace(COSINE, schedule="constant")),
            "cosine, layer scale from 1e-6": (BASE, replace(COSINE, layer_scale=1e-6)),
        },
    ),
    "warm": Search(
        "warm.csv",
        CHOICES,
        6_400,
        {
            "cosine": (UNTAUGHT, COSINE),
            "constant rate": (UNTAUGHT, replace(COSINE, schedule="constant")),
            "cosine, MSE": (UNTAUGHT, replace(COSINE, loss="mse")),
            "cosine, rate 2e-3": (UNTAUGHT, replace(COSINE, learning_rate=2e-3)),
            "constant rate 2e-3": (UNTAUGHT, replace(COSINE, schedule="constant", learning_rate=2e-3)),
            "constant rate, batch 8": (UNTAUGHT, replace(COSINE, schedule="constant", batch=8)),
        },
        TEACHER,
    ),
    "teaching": Search(
        "teaching.csv",
        ("schedule", "weights", "fa_norm", "cross_layer", "clip"),
        6_400,
        {
            "semnoma, no teacher": (UNTAUGHT, RELEASED),
            "paper's weights, released FA": (STUDENT, RELEASED),
            "paper's weights, FA by eq. 14": (STUDENT, replace(RELEASED, fa_norm="mean")),
            **{
                f"FA by eq. 14, weight {weight:g}": (STUDENT, replace(COSINE, weights=(10.0, weight, 1.0)))
                for weight in (0.3, 1.0, 3.0)
            },
            "FA by eq. 14, weight 1, CrossKD weight 5": (STUDENT, replace(COSINE, weights=(10.0, 1.0, 5.0))),
            "CrossKD weight 5": (STUDENT, replace(RELEASED, weights=(10.0, 100.0, 5.0))),
            "CrossKD at layer 4": (STUDENT, replace(RELEASED, cross_layer=4)),
            # The losses' sum is ten times SemNOMA's, and so are its gradients.
            "gradients cut at 10": (STUDENT, replace(RELEASED, clip=10.0)),
            "CrossKD at layer 6": (STUDENT, replace(RELEASED, cross_layer=6)),
        },
        TEACHER,
    ),
    "embedded": Search(
        "embedded.csv",
        (
            "optimizer",
            "learning_rate",
            "batch",
            "loss",
            "dropout",
            "ema",
            "fall",
            "weights",
            "cross_layer",
            "embed_steps",
        ),
        6_400,
        {
            "semnoma": (UNTAUGHT, FINETUNE),
            **{
                f"semnoma, embedding of {steps} steps": (UNTAUGHT, replace(FINETUNE, embed_steps=steps))
                for steps in (150, 500, 6000)
            },
            "semnoma, MAE": (UNTAUGHT, replace(FINETUNE, loss="mae")),
            "semnoma, dropout": (UNTAUGHT, replace(FINETUNE, dropout=True)),
            "semnoma, Muon 6e-4": (UNTAUGHT, replace(FINETUNE, optimizer="muon", learning_rate=6e-4)),
            "semnoma, without EMA": (UNTAUGHT, replace(FINETUNE, ema=0.0)),
            "semnoma, batch 32": (UNTAUGHT, replace(FINETUNE, batch=32)),
            **{
                f"kd, weights {fidelity:g}/{fa:g}/{cross:g}": (
                    STUDENT,
                    replace(FINETUNE, weights=(fidelity, fa, cross)),
                )
                for fidelity, fa, cross in ((10.0, 1.0, 1.0), (10.0, 0.1, 1.0), (10.0, 1.0, 0.0), (10.0, 0.0, 1.0))
            },
            "kd, CrossKD at layer 6": (STUDENT, replace(FINETUNE, cross_layer=6)),
            **{
                f"semnoma, encoder at {times:g} times the rate": Try(UNTAUGHT, FINETUNE, encoder_times(times))
                for times in (0.3, 3.0)
            },
            "semnoma, one decoder for both users but for its first layer": Try(UNTAUGHT, FINETUNE, network=tied),
            "semnoma, the last quarter in batches of 32": Try(
                UNTAUGHT, replace(FINETUNE, batch=32), first=replace(FINETUNE, schedule="constant"), share=0.75
            ),
        },
        embedded=True,
    ),
    "scratch": Search(
        "scratch.csv",
        ("optimizer", "learning_rate", "batch", "ema", "loss"),
        12_800,
        {
            "scratch": (BASE, SCRATCH),
            "AdamW 1e-3": (BASE, replace(SCRATCH, optimizer="adamw", learning_rate=1e-3)),
            "SOAP 1e-3": Try(BASE, replace(SCRATCH, learning_rate=1e-3), soap),
            "SOAP 3e-3": Try(BASE, replace(SCRATCH, learning_rate=3e-3), soap),
            "without EMA": (BASE, replace(SCRATCH, ema=0.0)),
            "batch 16": (BASE, replace(SCRATCH, batch=16)),
            "the last quarter in batches of 32": Try(
                BASE, replace(SCRATCH, batch=32, fall=0.5), first=replace(SCRATCH, schedule="constant"), share=0.75
            ),
            "parts of 16x16 for the first half": Try(
                BASE, SCRATCH, first=replace(SCRATCH, crop=16, schedule="constant"), share=0.5
            ),
        },
    ),
}


def main() -> None:
    """Runs the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--search", choices=SEARCHES, default="base")
    parser.add_argument("--pairs", type=int, help="budget of a row")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = TrainingData(data_dir=options.data_dir).load()
    search = SEARCHES[options.search]
    pairs = options.pairs or search.pairs
    path = FOLDER / search.table
    done = list(csv.DictReader(path.open())) if path.exists() else []
    for name, asked in search.rows.items():
        tried = asked if isinstance(asked, Try) else Try(*asked)
        choices = {key: str(getattr(tried.recipe, key)) for key in search.choices}
        row = {"recipe": name, "model": tried.spec.method, **choices, "pairs": str(pairs)}
        if any(all(known[key] == value for key, value in row.items()) for known in done):
            continue
        model = transceiver(tried.spec)
        origin = model.begins_as if search.embedded else transceiver(search.start) if search.start is not None else None
        start = weights.load(origin) if origin is not None else None
        seconds, embedded = 0.0, search.embedded
        parts = [(tried.first, tried.share)] if tried.first is not None else []
        for recipe, share in [*parts, (tried.recipe, 1 - tried.share)]:
            task = model.task(recipe, images, 0, "cpu", start)
            task.embedded = embedded
            network = tried.network(task.network())
            with (
                tempfile.TemporaryDirectory() as folder,
                patch("linksim.train.loop.Optimizer", tried.optimizer),
                patch.object(task, "network", return_value=network),
            ):
                steps = round(share * pairs / recipe.batch)
                state = train(task, Path(folder), steps=steps, embedded=embedded)
                start = model.build()
                start.load_state_dict(load_checkpoint(Path(folder) / BEST)["model"])
            seconds, embedded = seconds + state.seconds, False
        row |= {"seconds": str(round(seconds))}
        row |= {measure: f"{psnr:.2f}" for measure, psnr in state.validation.items()} | {"mean_db": f"{state.best:.2f}"}
        pd.DataFrame([row]).to_csv(path, mode="a", header=not path.exists(), index=False, lineterminator="\n")
        print(row, flush=True)


if __name__ == "__main__":
    main()
