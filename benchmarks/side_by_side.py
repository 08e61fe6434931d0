"""Models of the KDD paper, trained side by side on one GPU by the clock.

    python benchmarks/side_by_side.py sweeps/train/gpu.yaml --data-dir DIR --seconds 600

The file is a list as `linksim train --for` takes it; `bar` and `pairs` are not read. Each model has a process. All
begin at once and have their layers compiled, which takes minutes. Then the bases train, for 60% of what is left of the
seconds; then those that start from them as users in separate channel uses: 11% for the embedding, which models that
start alike share, 29% for what follows. Nobody knows how many steps fit: a rate goes by the share of its time that is
over, and the card tells the steps. The weights are installed as those of `linksim train` are (LINKSIM_WEIGHTS), in the
place of any that are there. What an earlier form of this script gave on an H200: `results/README.md`, "On a GPU".
NVIDIA's MPS helps (`nvidia-cuda-mps-control -d`).
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from linksim.data.training import CIFAR10, TrainingData
from linksim.devices import check_device, trains_in_bfloat16
from linksim.engine.config import read_sweep_file
from linksim.errors import LinksimError
from linksim.files import write_atomic
from linksim.models import weights
from linksim.models.checkpoint import State, save_atomic
from linksim.models.owner import Model
from linksim.models.recipe import changed
from linksim.models.task import draw_seed
from linksim.nets.optimizers import Optimizer
from linksim.nets.precision import laid_out
from linksim.schemes.semnoma.embedding import embedding_step
from linksim.schemes.semnoma.network import Transceiver
from linksim.schemes.semnoma.training import ConvNextTask
from linksim.train.campaign import Goal, goals_of
from linksim.train.loop import averaged
from linksim.train.run import facts_of, find_start

#: Ends of the bases' training and of the embedding, as shares of the time.
BASES, EMBEDDED = 0.60, 0.71

#: Steps over which a rate rises.
WARMUP = 200

#: Steps by which all that is compiled has been.
COMPILED = 3


class Meeting:
    """Where the processes tell each other how far they are: empty files in a folder.

    Args:
        folder: of this run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tell(self, what: str, content: bytes = b"") -> None:
        """Says that something is done."""
        write_atomic(self.folder / what, content)

    def wait(self, what: str) -> bytes:
        """Waits until it is, and gives what came with it."""
        while not (self.folder / what).exists():
            time.sleep(0.05)
        return (self.folder / what).read_bytes()


class Training:
    """One model's.

    Args:
        goal: the model, and its options of `linksim train`.
        first: name of the model that trains the embedding that this one starts from; empty for a base.
        meeting: with the others.
        data: gives the images.
        device: torch device.
    """

    def __init__(self, goal: Goal, first: str, meeting: Meeting, data: TrainingData, device: str) -> None:
        self.model, self.first, self.meeting, self.device = goal.model, first, meeting, device
        given = list(zip(goal.options[::2], goal.options[1::2], strict=True))
        options = dict(given)
        self.start = find_start(self.model, options.get("--warm"), Path("nowhere"))
        changes = dict(word.split("=", 1) for key, word in given if key == "--set")
        recipe = self.model.make_recipe(options["--recipe"], changes, warm=bool(first) or bool(self.start.model))
        self.images = data.load()
        frozen = {name: part.build() for name, part in self.model.parts.items()}
        task = self.model.task(recipe, self.images, 0, device, None, frozen)
        assert isinstance(task, ConvNextTask)
        self.task, self.state = task, State(embedded=bool(first), ema=task.recipe.ema)
        network = task.network().to(device).to(memory_format=torch.channels_last)
        assert isinstance(network, Transceiver)
        self.network = network
        if device != "cpu":
            task.compile(network)

    def run(self) -> None:
        """Compiles, waits for its turn, trains, installs."""
        source = self.model.begins_as if self.first == self.model.name else None
        orthogonal = laid_out(source.build(), self.device) if source is not None else None
        before = {name: value.clone() for name, value in self.network.state_dict().items()}
        optimizer, average = self._fresh()
        for step in range(COMPILED):
            self._step(optimizer, average, step, 1e-6)
        if orthogonal is not None:
            self._embed(orthogonal, lambda step: step / COMPILED)
        self.network.load_state_dict(before)
        self.meeting.tell(f"{self.model.name}.ready")
        bases, embedded, end = json.loads(self.meeting.wait("times"))
        if not self.first:
            start, self.state.lineage = self.start.load(self.model)
            if start is not None:
                self.network.load_state_dict(start.state_dict())
            self._train(bases)
        else:
            self._begin(source, orthogonal, embedded)
            for name, part in self.model.parts.items():
                self.meeting.wait(f"{part.name}.done")
                self.task.frozen[name].load_state_dict(weights.load(part).state_dict())
            self._train(end)
        self.meeting.tell(f"{self.model.name}.done")

    def _begin(self, source: Model | None, orthogonal: nn.Module | None, end: float) -> None:
        """Starts as users in separate channel uses, by an embedding of its own or by another model's."""
        if source is not None:
            assert isinstance(orthogonal, Transceiver)
            self.meeting.wait(f"{source.name}.done")
            learned = weights.load(source)
            assert isinstance(learned, Transceiver)
            orthogonal.load_state_dict(learned.state_dict())
            network = self.model.build()
            assert isinstance(network, Transceiver)
            network.embed(learned)
            self.network.load_state_dict(network.state_dict())
            steps = self._embed(orthogonal, _clock(end))
            made = {"model": self.network.state_dict(), "steps": steps}
            save_atomic(self.meeting.folder / f"{self.first}.embedded", made)
        made = torch.load(BytesIO(self.meeting.wait(f"{self.first}.embedded")), map_location=self.device)
        self.network.load_state_dict(made["model"])
        steps = made["steps"]
        self.task.recipe = changed(self.task.recipe, {"embed_steps": str(steps)})
        begins_as = self.model.begins_as
        assert begins_as is not None
        self.state.lineage = weights.history(begins_as.name, weights.card(begins_as))
        self.state.prepared = steps * self.task.recipe.batch

    def _embed(self, source: nn.Module, clock: Callable[[int], float]) -> int:
        """See `linksim.schemes.semnoma.embedding.train_embedding`; the steps that it took."""
        assert isinstance(source, Transceiver)
        network, task, step = self.network, self.task, 0
        network.decoders.requires_grad_(False)
        optimizer = Optimizer(network, "muon", 2e-3, 1e-4)
        network.train()
        while (share := clock(step)) < 1 or not step:
            torch.manual_seed(draw_seed(0, step, stream=1))
            rate = 2e-3 * min(1.0, (step + 1) / 60, max(0.01, (1 - share) / 0.3))
            embedding_step(network, source, task.transmission, task.recipe, task.pool, optimizer, rate)
            step += 1
        network.decoders.requires_grad_(True)
        optimizer.zero_grad()
        return step

    def _fresh(self) -> tuple[Optimizer, Any]:
        recipe = self.task.recipe
        optimizer = Optimizer(self.network, recipe.optimizer, recipe.learning_rate, recipe.weight_decay)
        return optimizer, averaged(self.network, recipe.ema)

    def _step(self, optimizer: Optimizer, average: Any, step: int, rate: float) -> Tensor:
        self.network.train()
        optimizer.zero_grad()
        torch.manual_seed(draw_seed(0, step))
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=trains_in_bfloat16(self.device)):
            total = self.task.losses(self.network)["total"]
        total.backward()
        if self.task.recipe.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.task.recipe.clip)
        optimizer.step(rate)
        average.update_parameters(self.network)
        return total.detach()

    def _train(self, end: float) -> None:
        """Trains until the time is over, measures the averaged weights and installs them."""
        recipe, state, clock = self.task.recipe, self.state, _clock(end)
        begin = time.time()
        optimizer, average = self._fresh()
        while (share := clock(state.step)) < 1 or not state.step:
            rate = recipe.learning_rate * min(1.0, (state.step + 1) / WARMUP, max(0.01, (1 - share) / recipe.fall))
            total = self._step(optimizer, average, state.step, rate)
            state.step += 1
            if state.step % 100 == 0 and not math.isfinite(value := float(total)):
                raise LinksimError(f"{self.model.name}: the loss is {value} at step {state.step}: take a lower rate")
        state.seconds = time.time() - begin
        state.validation = self.task.validate(average.module.eval())
        state.best = self.task.score(state.validation)
        best = self.model.build()
        best.load_state_dict({name: value.cpu() for name, value in average.module.state_dict().items()})
        self.task.parts = weights.part_hashes(self.model)
        weights.install(self.model, best, facts_of(self.model, self.task, state, self.images, best))
        found = ", ".join(f"{name} {value:.2f}" for name, value in state.validation.items())
        print(f"{self.model.name}: {state.step} steps in {state.seconds:.0f} s, {found}", flush=True)


def _clock(end: float) -> Callable[[int], float]:
    """The share of the time from now until `end` that is over."""
    begin = time.time()
    return lambda step: (time.time() - begin) / max(end - begin, 1e-3)


def _firsts(goals: list[Goal]) -> dict[str, str]:
    """For each model the one that trains its embedding: the first in the list that starts alike; empty for a base."""
    found: dict[Any, str] = {}
    firsts = {}
    for goal in goals:
        source, spec = goal.model.begins_as, goal.model.spec
        key = source and (source.name, spec.rho, spec.users, spec.channel)  # type: ignore[attr-defined]
        firsts[goal.model.name] = found.setdefault(key, goal.model.name) if source else ""
    return firsts


def main() -> None:
    """Begins a process for each model, and one after the other lets them train."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="a list of models")
    parser.add_argument("--seconds", type=float, required=True, help="in all, compiling included")
    parser.add_argument("--data-dir", type=Path, help="where CIFAR-10 lies")
    parser.add_argument("--device", default="cuda", help="cuda (default) or cpu")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    end = time.time() + args.seconds
    check_device(args.device)
    goals = goals_of(read_sweep_file(args.file))
    firsts = _firsts(goals)
    data = TrainingData(CIFAR10, args.data_dir, None, None)
    if args.one:
        torch.set_num_threads(1)
        name, folder = args.one
        goal = next(goal for goal in goals if goal.model.name == name)
        Training(goal, firsts[name], Meeting(Path(folder)), data, args.device).run()
        return
    data.load()
    weights.ready_to_install()
    with tempfile.TemporaryDirectory() as folder:
        meeting = Meeting(Path(folder))
        command = [sys.executable, *sys.argv]
        running = {name: subprocess.Popen([*command, "--one", name, folder]) for name in firsts}
        try:
            bases = [name for name, first in firsts.items() if not first]
            while not all((meeting.folder / f"{name}.ready").exists() for name in bases or firsts):
                _check(running)
            now = time.time()
            meeting.tell("times", json.dumps([now + share * (end - now) for share in (BASES, EMBEDDED, 1.0)]).encode())
            while any(process.poll() is None for process in running.values()):
                _check(running)
        finally:
            for process in running.values():
                process.kill()


def _check(running: dict[str, subprocess.Popen[bytes]]) -> None:
    time.sleep(0.2)
    for name, process in running.items():
        if process.poll():
            raise LinksimError(f"{name} failed (the lines are above)")


if __name__ == "__main__":
    try:
        main()
    except LinksimError as error:
        sys.exit(f"side_by_side: {error}")
