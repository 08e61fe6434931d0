"""Compares training recipes at one fixed budget: `python benchmarks/recipes.py --data-dir DIR`.

Every row trains SemOMA (compact, AWGN, rho 1/3 a user) from scratch on the same number of image pairs, with one choice
of the recipe changed, and gives the validation PSNR. Rows whose choices `results/recipes/recipes.csv` holds are not run
again.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from linksim.data import load_cifar10_train
from linksim.train.loop import train
from linksim.train.recipe import RECIPES, Recipe
from linksim.train.spec import ModelSpec
from linksim.train.transceivers import TransceiverTask

TABLE = Path(__file__).parent.parent / "results" / "recipes" / "recipes.csv"
CHOICES = ("learning_rate", "schedule", "batch", "ema", "clip", "loss", "layer_scale", "flip")
FAST = RECIPES["fast"]
ROWS: dict[str, Recipe] = {
    "paper": RECIPES["paper"],
    "paper, layer scale from 0.1": replace(RECIPES["paper"], layer_scale=0.1),
    "fast": FAST,
    "fast, batch 32": replace(FAST, batch=32),
    "fast, batch 8": replace(FAST, batch=8),
    "fast, MSE": replace(FAST, loss="mse"),
    "fast, without EMA": replace(FAST, ema=0.0),
    "fast, rate 2e-3": replace(FAST, learning_rate=2e-3),
    "fast, constant rate": replace(FAST, schedule="constant"),
    "fast, layer scale from 1e-6": replace(FAST, layer_scale=1e-6),
}


def main() -> None:
    """Runs the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--pairs", type=int, default=12_800)
    options = parser.parse_args()
    images = load_cifar10_train(options.data_dir)
    spec = ModelSpec("semoma", "compact", "awgn", Fraction(1, 3))
    done = list(csv.DictReader(TABLE.open())) if TABLE.exists() else []
    for name, recipe in ROWS.items():
        choices = {key: str(getattr(recipe, key)) for key in CHOICES} | {"pairs": str(options.pairs)}
        if any(all(row[key] == value for key, value in choices.items()) for row in done):
            continue
        with tempfile.TemporaryDirectory() as folder:
            state = train(TransceiverTask(spec, recipe, images), Path(folder), steps=options.pairs // recipe.batch)
        row = {"recipe": name, **choices, "seconds": round(state.seconds)}
        row |= {name: f"{psnr:.2f}" for name, psnr in state.validation.items()}
        row["mean_db"] = f"{state.best:.2f}"
        new = not TABLE.exists()
        with TABLE.open("a", newline="") as file:
            writer = csv.DictWriter(file, row.keys())
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(row, flush=True)


if __name__ == "__main__":
    main()
