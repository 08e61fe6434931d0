"""Training several models side by side, a process each."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import IO

from linksim.errors import LinksimError
from linksim.models.owner import Model
from linksim.models.spec import ModelSpec
from linksim.stopping import held, stop_if_told

_POLL_SECONDS = 0.2

#: Seconds that a training has to stop after it is told, and after it is told once more.
_GRACE_SECONDS = (60.0, 15.0)


def train_all(waves: Sequence[Sequence[Model]], options: Sequence[str], jobs: int, warm: str | None) -> None:
    """Trains models wave by wave, `jobs` of them at once.

    Args:
        waves: models that wait for those of the waves before.
        options: of `linksim train`, the same for all.
        jobs: processes; several have one thread each, since spinning threads would slow all of them down.
        warm: start of the transceivers.

    Raises:
        LinksimError: a model failed, after those that ran beside it ended.
    """
    running: dict[Model, subprocess.Popen[bytes]] = {}
    # An exception while a process is started would leave it without a parent.
    with held():
        try:
            for wave in waves:
                waiting = list(wave)
                while waiting or running:
                    while waiting and len(running) < jobs:
                        model = waiting.pop(0)
                        start = ["--warm", warm] if warm is not None and isinstance(model.spec, ModelSpec) else []
                        running[model] = launch([*model.words, *options, *start], one_thread=jobs > 1)
                    if failed := _ended(running):
                        while running:
                            _ended(running)
                        raise LinksimError(
                            f"{failed[0].name} could not be trained (its own line is above); the same command goes on "
                            "from here"
                        )
        finally:
            stop(running.values())


def launch(
    words: Sequence[str],
    one_thread: bool,
    environment: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """`linksim` with these words, in a process of its own.

    Args:
        one_thread: for processes side by side.
        environment: what differs from this process's.
        output: of both streams; None leaves them where this process's go.
    """
    changed = {**(environment or {}), **({"OMP_NUM_THREADS": "1"} if one_thread else {})}
    return subprocess.Popen(
        [sys.executable, "-m", "linksim.cli", *words], env={**os.environ, **changed}, stdin=subprocess.DEVNULL,
        stdout=output, stderr=output,
    )  # fmt: skip


def stop(processes: Iterable[subprocess.Popen[bytes]], grace: Sequence[float] = _GRACE_SECONDS) -> None:
    """Ends trainings within a bounded time; each keeps its last checkpoint, which is never written by halves.

    Args:
        grace: seconds that they have after each request; those that are left then are killed, and so they are where
            this process is itself told once more.
    """
    left = list(processes)
    try:
        for number, seconds in enumerate(grace):
            if number and left:
                _say(left, "does not stop: it is told once more")
            for process in left:
                process.terminate()
            until = time.monotonic() + seconds
            while (left := [process for process in left if process.poll() is None]) and time.monotonic() < until:
                time.sleep(_POLL_SECONDS)
    finally:
        if left:
            _say(left, "does not stop and is killed: its last checkpoint is kept")
        for process in left:
            process.kill()
        for process in left:
            process.wait()


def _say(processes: Sequence[subprocess.Popen[bytes]], what: str) -> None:
    for process in processes:
        print(f"note: training process {process.pid} {what}", file=sys.stderr, flush=True)


def _ended(running: dict[Model, subprocess.Popen[bytes]]) -> list[Model]:
    """Waits a moment, takes out what has ended, and returns what failed of it."""
    stop_if_told()
    time.sleep(_POLL_SECONDS)
    ended = {model: process.returncode for model, process in running.items() if process.poll() is not None}
    for model in ended:
        del running[model]
    return [model for model, code in ended.items() if code]
