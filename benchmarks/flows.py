"""Compares what a flow is told of the first stage's image: `python benchmarks/flows.py --data-dir DIR`.

Concatenated: the network sees where the flow is and, beside that, the first stage's image. The start alone: it sees
where the flow is, which began at that image (Ohayon et al. 2025). Both by the published loss, and by the one that is
shipped, on one core for the same time, from scratch; then on held-out images behind every first stage, by one Euler
step and by five. Rows that the table in `results/recipes` holds are not run again.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from linksim.data.training import CIFAR10, TrainingData
from linksim.metrics import LpipsVgg, mse, psnr_from_mse
from linksim.metrics.frechet import kernel_distance
from linksim.models import weights
from linksim.models.checkpoint import BEST, load_checkpoint
from linksim.models.spec import CIFAR10_SHAPE, RefinerSpec
from linksim.nets.precision import laid_out
from linksim.refine.flow.network import FlowNetwork, flow
from linksim.refine.flow.recipe import FlowRecipe
from linksim.refine.flow.refiner import Flow
from linksim.refine.flow.training import FlowTask
from linksim.train.loop import train

TABLE = Path(__file__).parent.parent / "results" / "recipes" / "flows.csv"
SNRS_DB, STEPS = (0.0, 10.0), (1, 5)


class StartNetwork(FlowNetwork):
    """Sees where the flow is and no more; how far off the start was it is told, as the other is."""

    def forward(self, x: Tensor, shown: Tensor, time: Tensor, level: Tensor) -> Tensor:
        """See `FlowNetwork`."""
        return super().forward(x, x, time, level)


class StartAlone(Flow):
    """The flow of such a network."""

    @classmethod
    def network(cls, spec: RefinerSpec) -> StartNetwork:
        """See `Owner`."""
        return StartNetwork()


OWNERS = {"concatenated": Flow, "the start alone": StartAlone}
LOSSES = {"velocity": FlowRecipe(perceptual=0.0, adversarial=0.0), "velocity, LPIPS, critic": FlowRecipe()}


@torch.no_grad()
def measured(task: FlowTask, network: FlowNetwork, level: float) -> Iterator[dict[str, Any]]:
    """Means over held-out images at each SNR, of the first stage and by each number of steps."""
    judge = LpipsVgg("cpu")
    for snr_db in SNRS_DB:
        sent, shown, _ = (torch.cat(parts) for parts in zip(*task.shown_at(snr_db, apart=True), strict=True))
        noise = torch.randn(shown.shape, generator=torch.Generator().manual_seed(0))
        for steps in (0, *STEPS):
            images = flow(network, shown, noise, steps, level).clamp(0, 1) if steps else shown
            yield {
                "snr_db": snr_db, "steps": steps, "psnr_db": float(psnr_from_mse(mse(sent, images)).mean()),
                "lpips_vgg": float(judge(sent, images).mean()),
                "kernel_distance": kernel_distance(judge.averages(sent).numpy(), judge.averages(images).numpy(), True),
            }  # fmt: skip


def main() -> None:
    """Runs the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = TrainingData(CIFAR10, options.data_dir, None, None).load()
    known = list(csv.DictReader(TABLE.open())) if TABLE.exists() else []
    done = {(row["loss"], row["sees"], row["budget_s"]) for row in known}
    spec = RefinerSpec(Flow.name, images=CIFAR10_SHAPE)
    firsts = Flow.parts(spec)
    frozen = weights.load_all(firsts)
    for loss, recipe in LOSSES.items():
        for sees, owner in OWNERS.items():
            budget = f"{options.seconds:g}"
            if (loss, sees, budget) in done:
                continue
            task = FlowTask(owner, spec, recipe, images, 0, "cpu", None, firsts, frozen)
            with tempfile.TemporaryDirectory() as folder:
                state = train(task, Path(folder), seconds=options.seconds)
                learned = task.shipped(load_checkpoint(Path(folder) / BEST)["model"])
            network = owner.network(spec)
            network.load_state_dict(learned)
            about = {"loss": loss, "sees": sees, "budget_s": budget, "pairs": state.step * recipe.batch}
            rows = [about | row for row in measured(task, laid_out(network, "cpu"), recipe.noise_level)]
            pd.DataFrame(rows).to_csv(
                TABLE, mode="a", header=not TABLE.exists(), index=False, lineterminator="\n", float_format="%.4f"
            )
            print(*rows, sep="\n", flush=True)


if __name__ == "__main__":
    main()
