"""Compares training recipes at one fixed budget: `python benchmarks/recipes.py --data-dir DIR [--search NAME]`.

`base`: every row trains SemOMA (compact, AWGN, rho 1/3 a user) from scratch on the same number of image pairs, with one
choice of the recipe changed. `warm`: the same for SemNOMA (compact, block Rayleigh fading, rho 1/6) from the shipped
orthogonal weights, as the shipped ones were trained. `teaching`: every row trains KD-SemNOMA there from its teacher,
with one choice of the losses changed, beside SemNOMA from the same start. `embedded`: SemNOMA and KD-SemNOMA as users
in separate channel uses at first (`linksim.schemes.semnoma.embedding`), with one choice of `finetune` changed. Each
gives the validation PSNR. Rows whose choices the table in `results/recipes` holds are not run again.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import pandas as pd

from linksim.data.training import TrainingData
from linksim.models import weights
from linksim.models.spec import ModelSpec
from linksim.schemes.learned import transceiver
from linksim.schemes.semnoma.recipe import RECIPES, Recipe
from linksim.train.loop import train

FOLDER = Path(__file__).parent.parent / "results" / "recipes"
COSINE = replace(RECIPES["adamw"], schedule="cosine")
FINETUNE = RECIPES["finetune"]
RELEASED = replace(COSINE, weights=(10.0, 100.0, 1.0), fa_norm="released")


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
    rows: Mapping[str, tuple[ModelSpec, Recipe]]
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
        },
        embedded=True,
    ),
}


def main() -> None:
    """Runs the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--search", choices=SEARCHES, default="base")
    parser.add_argument("--pairs", type=int, help="budget of a row")
    options = parser.parse_args()
    images = TrainingData(data_dir=options.data_dir).load()
    search = SEARCHES[options.search]
    pairs = options.pairs or search.pairs
    path = FOLDER / search.table
    done = list(csv.DictReader(path.open())) if path.exists() else []
    for name, (spec, recipe) in search.rows.items():
        choices = {key: str(getattr(recipe, key)) for key in search.choices}
        row = {"recipe": name, "model": spec.method, **choices, "pairs": str(pairs)}
        if any(all(known[key] == value for key, value in row.items() if key != "recipe") for known in done):
            continue
        model = transceiver(spec)
        origin = model.begins_as if search.embedded else transceiver(search.start) if search.start is not None else None
        start = weights.load(origin) if origin is not None else None
        task = model.task(recipe, images, 0, "cpu", start)
        task.embedded = search.embedded
        with tempfile.TemporaryDirectory() as folder:
            state = train(task, Path(folder), steps=pairs // recipe.batch, embedded=search.embedded)
        row |= {"seconds": str(round(state.seconds))}
        row |= {measure: f"{psnr:.2f}" for measure, psnr in state.validation.items()} | {"mean_db": f"{state.best:.2f}"}
        pd.DataFrame([row]).to_csv(path, mode="a", header=not path.exists(), index=False, lineterminator="\n")
        print(row, flush=True)


if __name__ == "__main__":
    main()
