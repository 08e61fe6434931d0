"""Running units in this process or in several: each worker evaluates, appends to its own journal, and reports."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linksim.engine.audit import low_power_note
from linksim.engine.journal import JournalWriter
from linksim.engine.plan import Unit
from linksim.engine.stats import group_means
from linksim.errors import LinksimError
from linksim.refine.base import Steps, silent
from linksim.stopping import stop_if_told

#: What a full or read-only disk, and nothing else, says.
_DISK = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)

_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Step:
    """Steps of a refinement, done and in all."""

    done: int
    steps: int


@dataclass(frozen=True)
class Done:
    """A unit that stands in the journal, the group means that a stopping rule looks at, and a note on its power."""

    unit: Unit
    means: Mapping[str, NDArray[np.float64]]
    note: str = ""


def until_means(record: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, NDArray[np.float64]]:
    """metric -> group means of a record's last stage, for the metrics (name -> column) of a stopping rule."""
    last = list(record["stages"].values())[-1]
    return {name: group_means(last[column]) for name, column in columns.items()}


def _done(unit: Unit, record: Mapping[str, Any], columns: Mapping[str, str]) -> Done:
    allowed = record["allowed_power"]
    note = low_power_note(record["tx_power"], allowed) if allowed is not None else ""
    return Done(unit, until_means(record, columns), note)


def failure(unit: Unit, error: BaseException) -> LinksimError:
    """The one line for whatever ended a unit."""
    if isinstance(error, LinksimError):
        return error
    where = f"{unit.point.variant.label} at {unit.point.snr_db:g} dB, rho {unit.point.rho}"
    if isinstance(error, OSError) and error.errno in _DISK:
        return LinksimError(
            f"{error.filename or 'results folder'}: {error.strerror}: what is done is kept; "
            "make room or rights and run the same command again"
        )
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return LinksimError(
            f"{error.filename or 'results folder'}: {error.strerror}: what is done is kept; raise the limit on a "
            "file's size (ulimit -f), or take a file system without it, and run the same command again"
        )
    # Of torch, on a GPU.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return LinksimError(
            f"out of memory in {where}: what is done is kept; run the same command with fewer --workers, or with "
            "--device cpu"
        )
    text = " ".join(str(error).split())[:300]
    return LinksimError(
        f"scheme {unit.point.variant.name!r} raised {type(error).__name__}: {text} ({where}, groups {unit.start} to "
        f"{unit.stop - 1}): what is done is kept; mend the scheme and run the same command (a plug-in that was edited "
        "begins anew: with --out, add --force-new; --debug: traceback)"
    )


def run_here(
    context: Any, units: Iterator[Unit], journal: Path, columns: Mapping[str, str], report: Steps = silent
) -> Iterator[Done]:
    """Evaluates units one by one in this process; `report` is told the steps of refinements."""
    from linksim.engine.evaluate import evaluate_unit

    writer = JournalWriter(journal)
    try:
        for unit in units:
            stop_if_told()
            try:
                record = evaluate_unit(context, unit, report)
                writer.append(record)
            except KeyboardInterrupt:
                raise
            # Whatever a plug-in may raise, an exit of its own included.
            except BaseException as error:
                raise failure(unit, error) from error
            yield _done(unit, record, columns)
    finally:
        writer.close()


def _work(pipe: Connection, context: Any, journal: Path, columns: Mapping[str, str]) -> None:
    # Ctrl-C reaches the whole process group: the parent decides, and a worker ends when its pipe closes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.formatwarning = lambda message, *where, **more: f"note: {message}\n"
    warnings.filterwarnings("ignore", module="PIL")
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        writer: JournalWriter | None = None
        while (unit := pipe.recv()) is not None:
            try:
                from linksim.engine.evaluate import evaluate_unit

                writer = writer or JournalWriter(journal)
                record = evaluate_unit(context, unit, lambda done, steps: pipe.send(Step(done, steps)))
                writer.append(record)
            except BaseException as error:
                pipe.send((str(failure(unit, error)), traceback.format_exc()))
                continue
            pipe.send(_done(unit, record, columns))


def run_workers(
    context: Any,
    units: Iterator[Unit],
    journal_of: Callable[[int], Path],
    columns: Mapping[str, str],
    workers: int,
    report: Steps = silent,
) -> Iterator[Done]:
    """Evaluates units in `workers` processes of one thread each; yields them as they end, in no fixed order.

    `report` is told the steps of refinements, whichever worker they are from. `units` is asked for the next one only
    when a worker is free, so that a stopping rule can end points meanwhile.
    """
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[Connection, SpawnProcess] = {}
    at_work: dict[Connection, Unit] = {}
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        for index in range(workers):
            here, there = spawn.Pipe()
            process = spawn.Process(target=_work, args=(there, context, journal_of(index), columns), daemon=True)
            process.start()
            there.close()
            pipes[here] = process
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def hand_out(pipe: Connection) -> None:
        unit = next(units, None)
        if unit is not None:
            at_work[pipe] = unit
            pipe.send(unit)

    try:
        for pipe in pipes:
            hand_out(pipe)
        while at_work:
            stop_if_told()
            for ready in wait(list(at_work)):
                assert isinstance(ready, Connection)
                try:
                    answer = ready.recv()
                    if isinstance(answer, Step):
                        report(answer.done, answer.steps)
                        continue
                    del at_work[ready]
                except (EOFError, ConnectionResetError):
                    pipes[ready].join(5)
                    raise LinksimError(
                        f"a worker process ended (exit code {pipes[ready].exitcode}; out of memory?): what is done is "
                        "kept; run the same command again, with fewer --workers if memory is short"
                    ) from None
                if isinstance(answer, tuple):
                    message, trace = answer
                    raise LinksimError(message) from RuntimeError(f"in a worker:\n{trace}")
                yield answer
                hand_out(ready)
    finally:
        for pipe, process in pipes.items():
            with contextlib.suppress(OSError):
                pipe.send(None)
            pipe.close()
            if pipe in at_work:
                process.terminate()
        for process in pipes.values():
            process.join(10)
            # Python waits for its children at its end, without a limit.
            if process.is_alive():
                process.kill()
