"""What a training run leaves to look at: two CSV files, and the same as TensorBoard's events."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

from linksim.files import write_atomic

LOSSES, VALIDATION = "train.csv", "validation.csv"


class Logs:
    """Writes a run's losses and validations; rows of steps that a run goes over again are taken out first.

    Args:
        folder: of the run.
        step: steps that the run has done.
        written: False writes nothing: another process does.
    """

    def __init__(self, folder: Path, step: int, written: bool = True) -> None:
        self._folder = folder
        self._events: RecordWriter | None = None
        if not written:
            return
        for name in (LOSSES, VALIDATION):
            _cut(folder / name, step)
        # Not by a SummaryWriter, which hands events on through locks, a queue and two threads: where a signal comes
        # between, closing it waits for ever.
        self._events = RecordWriter(str(folder / f"events.out.tfevents.{time.time_ns()}"))
        self._event(Event(file_version="brain.Event:2"))
        if step:
            # TensorBoard drops what earlier files have from there on.
            self._event(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def __enter__(self) -> Logs:
        return self

    def losses(self, step: int, means: Mapping[str, float]) -> None:
        """Means over the steps since the last call."""
        if self._events is None:
            return
        self._row(LOSSES, step, means)
        self._scalars("loss", step, means)

    def validation(self, step: int, figures: Mapping[str, float]) -> None:
        """The figures of a validation by name."""
        if self._events is None:
            return
        self._row(VALIDATION, step, figures)
        self._scalars("validation", step, figures)
        self._events.flush()

    def _scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._event(Event(step=step, summary=scalar(f"{kind}/{name}", value)))

    def _event(self, event: Event) -> None:
        assert self._events is not None
        event.wall_time = time.time()
        self._events.write(event.SerializeToString())

    def _row(self, name: str, step: int, values: Mapping[str, float]) -> None:
        path = self._folder / name
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, ["step", *values], lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow({"step": step, **values})

    def __exit__(self, *error: object) -> None:
        if self._events is not None:
            self._events.close()


def _cut(path: Path, step: int) -> None:
    if not path.exists():
        return
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    kept = [line for line in lines[1:] if line.endswith("\n") and _step(line) <= step]
    write_atomic(path, "".join([*lines[:1], *kept]).encode())


def _step(line: str) -> float:
    try:
        return int(line.partition(",")[0])
    except ValueError:
        return math.inf
