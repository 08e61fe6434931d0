"""Training several models side by side, a process each."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Protocol, TypeVar

from linksim.errors import LinksimError
from linksim.models.owner import Model
from linksim.models.spec import ModelSpec
from linksim.stopping import held, stop_if_told

_POLL_SECONDS = 0.2

#: Seconds that a training has to stop after it is told, and after it is told once more.
_GRACE_SECONDS = (60.0, 15.0)


class Turn(Protocol):
    """Some of a model's training, on its way."""

    def poll(self) -> int | None:
        """Exit code; None until it is over. Raises LinksimError where what ran it was lost."""

    @property
    def goes_on(self) -> bool:
        """Whether only its time was over, and the training has more to do."""


T = TypeVar("T", bound=Turn)


class Turns(Protocol[T]):
    """What trains models: processes of this machine, or workers of a cluster (`linksim.train.slices`)."""

    @property
    def places(self) -> int:
        """Trainings at once."""

    def begin(self, model: Model, words: Sequence[str]) -> T:
        """Begins, or goes on with, a model's training; `words` of `linksim` say which it is."""

    def stop(self, turns: Iterable[T]) -> None:
        """Ends turns within a bounded time."""


@dataclass(frozen=True)
class Process:
    """A training in a process of this machine, to its end."""

    process: subprocess.Popen[bytes]
    goes_on: bool = False

    def poll(self) -> int | None:
        """See `Turn`."""
        return self.process.poll()


@dataclass(frozen=True)
class Processes:
    """Trainings in processes of this machine.

    Args:
        places: at once; several have one thread each, since spinning threads would slow all of them down.
        options: of `linksim train`, the same for all.
        one_thread: whether one process alone has one thread too.
    """

    places: int
    options: Sequence[str]
    one_thread: bool = False

    def begin(self, model: Model, words: Sequence[str]) -> Process:
        """See `Turns`."""
        return Process(launch([*words, *self.options], one_thread=self.one_thread or self.places > 1))

    def stop(self, turns: Iterable[Process]) -> None:
        """See `Turns`."""
        stop([turn.process for turn in turns])


def train_all(waves: Sequence[Sequence[Model]], turns: Turns[T], warm: str | None) -> None:
    """Trains models wave by wave.

    Args:
        waves: models that wait for those of the waves before.
        turns: what trains them.
        warm: start of the transceivers.

    Raises:
        LinksimError: a model failed, after those that ran beside it ended.
    """
    running: dict[Model, T] = {}
    # An exception while a process is started would leave it without a parent.
    with held():
        try:
            for wave in waves:
                waiting = list(wave)
                while waiting or running:
                    while waiting and len(running) < turns.places:
                        model = waiting.pop(0)
                        start = ["--warm", warm] if warm is not None and isinstance(model.spec, ModelSpec) else []
                        running[model] = turns.begin(model, [*model.words, "--resume", *start])
                    failed, go_on = _ended(running)
                    waiting = [*go_on, *waiting]
                    if failed:
                        while running:
                            _ended(running)
                        raise LinksimError(
                            f"{failed[0].name} could not be trained (its own line is above); the same command goes on "
                            "from here"
                        )
        finally:
            turns.stop(running.values())


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
        [sys.executable, "-m", "linksim", *words], env={**os.environ, **changed}, stdin=subprocess.DEVNULL,
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


def _ended(running: dict[Model, T]) -> tuple[list[Model], list[Model]]:
    """Waits a moment, takes out what is over, and returns what failed of it and what goes on."""
    stop_if_told()
    time.sleep(_POLL_SECONDS)
    codes = {model: code for model, turn in running.items() if (code := turn.poll()) is not None}
    over = {model: running.pop(model) for model in codes}
    return [model for model, code in codes.items() if code], [model for model, turn in over.items() if turn.goes_on]
