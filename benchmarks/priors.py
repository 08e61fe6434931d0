"""Compares ways to train a diffusion prior at equal core-seconds: `python benchmarks/priors.py --data-dir DIR`.

Every row trains a prior for CIFAR-10 from scratch on one core for the same time, with one choice of the recipe or of
the network changed. It gives the PSNR of held-out images that it denoises, and the speed of one evaluation, which a
refinement pays many times. Rows that the table in `results/recipes` holds are not run again.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from linksim.data.training import CIFAR10, TrainingData
from linksim.models.spec import PriorSpec
from linksim.refine.ddim.model import unet
from linksim.refine.ddim.recipe import PriorRecipe
from linksim.refine.ddim.training import PriorTask
from linksim.train.loop import train

TABLE = Path(__file__).parent.parent / "results" / "recipes" / "priors.csv"
SMALL, SPEC = (32, 64, 128, 128), PriorSpec("small")
ADAMW = PriorRecipe(learning_rate=8e-4, batch=16)
MUON = replace(ADAMW, optimizer="muon", learning_rate=2e-3)
ROWS: dict[str, tuple[tuple[int, ...], PriorRecipe]] = {
    "AdamW": (SMALL, ADAMW),
    "Muon": (SMALL, MUON),
    "Muon, all steps alike": (SMALL, replace(MUON, early_share=0.0)),
    "Muon, min-SNR": (SMALL, replace(MUON, weighting="min-snr")),
    "Muon, EMA 0.99": (SMALL, replace(MUON, ema=0.99)),
    "Muon, 64 wide": ((64, 128, 128), MUON),
    "Muon, 64 wide, four levels": ((64, 128, 128, 128), MUON),
    "Muon, 96 wide": ((96, 128, 192, 192), MUON),
}


@torch.no_grad()
def milliseconds(network: nn.Module, images: int = 32) -> float:
    """Milliseconds a core takes for one evaluation of one image, in float32; the least of five."""
    x, when = torch.randn(images, *SPEC.image_shape).contiguous(memory_format=torch.channels_last), torch.tensor(100)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        network(x, when)
        times.append(time.perf_counter() - begin)
    return 1000 * min(times) / images


def main() -> None:
    """Runs the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--only", choices=ROWS, action="append")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = TrainingData(CIFAR10, options.data_dir, None, None).load()
    done = {(row["recipe"], row["budget_s"]) for row in csv.DictReader(TABLE.open())} if TABLE.exists() else set()
    for name in options.only or ROWS:
        if (name, f"{options.seconds:g}") in done:
            continue
        widths, recipe = ROWS[name]
        make = partial(unet, widths, 1, SPEC.image_shape[1:])
        task = PriorTask(SPEC, lambda _, make=make: make(), recipe, images)  # type: ignore[misc]
        with tempfile.TemporaryDirectory() as folder:
            state = train(task, Path(folder), seconds=options.seconds)
        network = make().eval().to(memory_format=torch.channels_last)
        row = {
            "recipe": name, "budget_s": f"{options.seconds:g}", "widths": "/".join(map(str, widths)),
            "parameters": sum(value.numel() for value in network.parameters()), "images": state.step * recipe.batch,
            **{what: f"{value:.3f}" for what, value in state.validation.items()}, "mean_db": f"{state.best:.3f}",
            "ms": f"{milliseconds(network):.1f}",
        }  # fmt: skip
        pd.DataFrame([row]).to_csv(TABLE, mode="a", header=not TABLE.exists(), index=False, lineterminator="\n")
        print(row, flush=True)


if __name__ == "__main__":
    main()
