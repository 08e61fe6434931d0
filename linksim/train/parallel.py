"""Training several models side by side, a process each."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence

from linksim.errors import LinksimError
from linksim.models.owner import Model
from linksim.models.spec import ModelSpec


def train_all(waves: Sequence[Sequence[Model]], options: Sequence[str], jobs: int, warm: str | None) -> None:
    """Trains models wave by wave, `jobs` of them at once.

    Args:
        waves: models that wait for those of the waves before.
        options: of `linksim train`, the same for all.
        warm: start of the transceivers.
        jobs: processes; several have one thread each, since spinning threads would slow all of them down.

    Raises:
        LinksimError: a model failed, after those that ran beside it ended.
    """
    running: dict[Model, subprocess.Popen[bytes]] = {}
    try:
        for wave in waves:
            waiting = list(wave)
            while waiting or running:
                while waiting and len(running) < jobs:
                    model = waiting.pop(0)
                    start = ["--warm", warm] if warm is not None and isinstance(model.spec, ModelSpec) else []
                    running[model] = launch([*model.words, *options, *start], one_thread=jobs > 1)
                _reap(running)
                time.sleep(0.2)
    finally:
        stop(running.values())


def launch(words: Sequence[str], one_thread: bool) -> subprocess.Popen[bytes]:
    """`linksim` with these words, in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} if one_thread else None
    return subprocess.Popen([sys.executable, "-m", "linksim.cli", *words], env=environment, stdin=subprocess.DEVNULL)


def stop(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Ends trainings; each keeps its last checkpoint."""
    waiting = list(processes)
    for process in waiting:
        process.terminate()
    for process in waiting:
        process.wait()


def _reap(running: dict[Model, subprocess.Popen[bytes]]) -> None:
    for model, process in list(running.items()):
        code = process.poll()
        if code is None:
            continue
        del running[model]
        if code:
            for other in running.values():
                other.wait()
            running.clear()
            raise LinksimError(
                f"{model.name} could not be trained (its own line is above); the same command goes on from here"
            )
