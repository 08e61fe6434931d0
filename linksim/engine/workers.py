"""Running units in this process, in several, or in whatever takes work: it is evaluated there and written here.

The seam is `concurrent.futures.Executor`: a pool is handed `evaluate` and its arguments, and gives a future. What comes
back goes to the journal in this process, so that resuming, merging and stopping rules are the same for all.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from linksim.devices import ONE_THREAD
from linksim.engine.audit import low_power_note
from linksim.engine.journal import JournalWriter
from linksim.engine.plan import Unit
from linksim.engine.stats import group_means
from linksim.errors import LinksimError, said
from linksim.files import write_atomic
from linksim.refine.base import Steps, silent
from linksim.stopping import deaf, stop_if_told

R = TypeVar("R")

#: What a full or read-only disk, and nothing else, says.
_DISK = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)


@dataclass(frozen=True)
class Step:
    """Steps of a refinement, done and in all."""

    done: int
    steps: int


@dataclass(frozen=True)
class Done:
    """A unit that stands in the journal.

    Args:
        unit: it.
        means: of its groups, what a stopping rule looks at.
        note: on its power.
        seconds: what it took, without what its process had to load.
    """

    unit: Unit
    means: Mapping[str, NDArray[np.float64]]
    note: str
    seconds: float


def until_means(record: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, NDArray[np.float64]]:
    """metric -> group means of a record's last stage, for the metrics (name -> column) of a stopping rule."""
    last = list(record["stages"].values())[-1]
    return {name: group_means(last[column]) for name, column in columns.items()}


def _done(unit: Unit, record: Mapping[str, Any], columns: Mapping[str, str]) -> Done:
    allowed = record["allowed_power"]
    note = low_power_note(record["tx_power"], allowed) if allowed is not None else ""
    seconds = sum(value for lap, value in record["seconds"].items() if not lap.startswith("load"))
    return Done(unit, until_means(record, columns), note, seconds)


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


@dataclass(frozen=True)
class Answer:
    """What a pool gives back for a unit: plain values that any transport can carry.

    Args:
        record: for the journal; None where the unit failed.
        message, trace: of the failure: one line, and where it came from.
        features: file name -> content of the features of images, where the pool shares no folder with this process.
    """

    record: dict[str, Any] | None
    message: str = ""
    trace: str = ""
    features: Mapping[str, bytes] = field(default_factory=dict)


#: Seconds between two looks at whether this process was told to stop, and whether a pool works at all.
LOOKS_S = 2.0

#: Seconds between two tries to begin a process that ends at once.
_BETWEEN_S = 1.0

#: Two units at once would change each other's number of threads and default types.
_BUSY = threading.Lock()


def evaluate(context: Any, unit: Unit, report: Steps = silent) -> Answer:
    """One unit, in whatever process this runs; a failure is a value, so that no pool tries it again."""
    from linksim.engine.evaluate import evaluate_unit

    if not _BUSY.acquire(blocking=False):
        return Answer(None, "a worker process was given two units at once: give it one thread (threads_per_worker=1)")
    try:
        return Answer(evaluate_unit(context, unit, report))
    except KeyboardInterrupt:
        raise
    # Whatever a plug-in may raise, an exit of its own included.
    except BaseException as error:
        return Answer(None, str(failure(unit, error)), traceback.format_exc())
    finally:
        _BUSY.release()


class WorkerLost(Exception):
    """A worker process ended in the middle of its work."""


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
            except BaseException as error:
                raise failure(unit, error) from error
            yield _done(unit, record, columns)
    finally:
        writer.close()


@dataclass(frozen=True)
class Pool:
    """What takes units, and how.

    Args:
        executor: whatever has `submit(function, *args)` that gives a `concurrent.futures.Future`.
        at_once: units on their way, at the most.
        call: what it runs for a unit, with the context before it.
        waiting: what to tell while nobody works; None while somebody does.
    """

    executor: Executor
    at_once: int
    call: Callable[..., Answer] = evaluate
    waiting: Callable[[], str | None] | None = None


def run_pool(
    pool: Pool,
    context: Any,
    units: Iterator[Unit],
    journal: Path,
    columns: Mapping[str, str],
    tell: Callable[[str], None] | None = None,
) -> Iterator[Done]:
    """Evaluates units in a pool; yields them as they end, in no fixed order.

    `units` is asked for the next one only when fewer than `pool.at_once` are on their way, so that a stopping rule can
    end points meanwhile.

    Args:
        pool: where they go.
        context: of the sweep.
        journal: file that the records are written to.
        columns: see `until_means`.
        tell: told what the pool is waiting for.

    Raises:
        LinksimError: a scheme failed, a worker was lost, or the journal could not be written.
    """
    writer = JournalWriter(journal)
    on_the_way: dict[Future[Answer], Unit] = {}
    try:
        while True:
            while len(on_the_way) < pool.at_once and (unit := next(units, None)) is not None:
                on_the_way[pool.executor.submit(pool.call, context, unit)] = unit
            if not on_the_way:
                return
            stop_if_told()
            done = wait(on_the_way, LOOKS_S, FIRST_COMPLETED).done
            if not done and pool.waiting is not None and tell is not None:
                tell(pool.waiting() or "")
            # What ended well beside what failed is kept, too.
            for future in sorted(done, key=_failed):
                unit = on_the_way.pop(future)
                answer = result_of(future, "a unit")
                if answer.record is None:
                    raise LinksimError(answer.message) from RuntimeError(f"in a worker:\n{answer.trace}")
                try:
                    for name, content in answer.features.items():
                        write_atomic(context.features_dir / name, content)
                    writer.append(answer.record)
                except OSError as error:
                    raise failure(unit, error) from error
                yield _done(unit, answer.record, columns)
    except (WorkerLost, BrokenExecutor) as error:
        raise LinksimError(
            f"a worker process ended ({error}; out of memory?): what is done is kept; run the same command again, with "
            "fewer --workers if memory is short"
        ) from None
    finally:
        for future in on_the_way:
            future.cancel()
        writer.close()


def _failed(future: Future[Answer]) -> bool:
    """Whether a future that is done has no record."""
    return future.cancelled() or future.exception() is not None or future.result().record is None


def result_of(future: Future[R], what: str) -> R:
    """What came back from a pool.

    Args:
        what: was lost, where something was.

    Raises:
        LinksimError: the pool itself failed, which is no doing of what it ran.
        WorkerLost, BrokenExecutor: a process of this machine ended.
    """
    try:
        return future.result()
    except (WorkerLost, BrokenExecutor):
        raise
    except (Exception, CancelledError) as error:
        words = said(error)
        if "Cancelled" in type(error).__name__:
            words = "what schedules it is gone, or the connection to it"
        # Of dask, on units that no worker outlives.
        elif type(error).__name__ == "KilledWorker":
            words = "every worker that took it ended, out of memory or killed: ask for more, like memory=8GB"
        raise LinksimError(
            f"the pool lost {what} ({words}): what is done is kept; the same command goes on with it"
        ) from error


class ProcessPool(Executor):
    """Processes of one thread each on this machine; they end with this one, however it ends.

    Args:
        workers: processes.
        report: told the steps of refinements, whichever process they are from.
        first: what each process calls before all else, with its arguments.
        renew: whether another process takes the place of one that is lost.
    """

    def __init__(
        self,
        workers: int,
        report: Steps = silent,
        first: tuple[Callable[..., object], tuple[Any, ...]] | None = None,
        renew: bool = False,
    ) -> None:
        self._report, self._one_at_a_time = report, threading.Lock()
        self._first, self._renew, self._ended = first, renew, False
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._processes: list[BaseProcess] = []
        began = [self._begin() for _ in range(workers)]
        #: What came of `first` in each process.
        self.ready: list[Future[Any]] = [Future() for _ in began]
        self._threads = [
            threading.Thread(target=self._serve, args=(*one, ready), daemon=True)
            for one, ready in zip(began, self.ready, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def _begin(self) -> tuple[Connection, BaseProcess]:
        """A process, and the pipe to it."""
        context = _processes()
        before = {name: os.environ.get(name) for name in ONE_THREAD}
        os.environ.update(ONE_THREAD)
        try:
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(there, dict(os.environ)), daemon=True)
            with deaf(), without_main():
                process.start()
            there.close()
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
        self._processes.append(process)
        return here, process

    def submit(self, function: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        """See `concurrent.futures.Executor`."""
        future: Future[Any] = Future()
        self._calls.put(_Call(future, function, args, named))
        return future

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        # What is not waited for any more is not finished either.
        self.shutdown(cancel_futures=kind is not None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the processes; with `cancel_futures` those at work too, at once."""
        self._ended = True
        if cancel_futures:
            with contextlib.suppress(queue.Empty):
                while True:
                    if (call := self._calls.get_nowait()) is not None:
                        call.future.cancel()
            for process in list(self._processes):
                process.terminate()
        for _ in self._threads:
            self._calls.put(None)
        if wait:
            for thread in self._threads:
                thread.join(10)
            for process in list(self._processes):
                process.join(10)

    def _serve(self, pipe: Connection, process: BaseProcess, ready: Future[Any]) -> None:
        """Hands calls to one process until there are no more, or it has ended and none takes its place."""
        while True:
            with pipe:
                stillborn = self._first is not None and not self._call(pipe, process, _Call(ready, *self._first, {}))
                lost = stillborn
                while not lost and (call := self._calls.get()) is not None:
                    if call.future.set_running_or_notify_cancel():
                        lost = not self._call(pipe, process, call)
            if not lost or not self._renew or self._ended:
                return
            if stillborn:
                time.sleep(_BETWEEN_S)
            self._processes.remove(process)
            (pipe, process), ready = self._begin(), Future()

    def _call(self, pipe: Connection, process: BaseProcess, call: _Call) -> bool:
        """Whether the process is there after a call."""
        try:
            pipe.send((call.function, call.args, call.named))
            while isinstance(answer := pipe.recv(), Step):
                with self._one_at_a_time:
                    self._report(answer.done, answer.steps)
        except (EOFError, OSError):
            process.join(5)
            call.future.set_exception(WorkerLost(f"exit code {process.exitcode}"))
            return False
        # What cannot be sent at all.
        except BaseException as error:
            call.future.set_exception(error)
            return True
        if isinstance(answer, BaseException):
            call.future.set_exception(answer)
        else:
            call.future.set_result(answer)
        return True


class _Main:
    """The module that this program runs, while it is hidden, and the blocks that hide it."""

    lock = threading.Lock()
    module: ModuleType | None = None
    blocks = 0


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Has processes that begin in the block not run the program's script once more: they need nothing of it.

    So a script may call linksim outside of `if __name__ == "__main__":`.
    """
    with _Main.lock:
        if _Main.blocks == 0:
            _Main.module = sys.modules["__main__"]
            sys.modules["__main__"] = ModuleType("__main__")
        _Main.blocks += 1
    try:
        yield
    finally:
        with _Main.lock:
            _Main.blocks -= 1
            if _Main.blocks == 0 and _Main.module is not None:
                sys.modules["__main__"], _Main.module = _Main.module, None


def _processes() -> Any:
    """How processes begin: forked from one that has imported what all need, where the system has such; else anew.

    That one is a process of its own, without threads and of this program's files alone.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["linksim.engine.evaluate"])
    return context


@dataclass(frozen=True)
class _Call:
    future: Future[Any]
    function: Callable[..., Any]
    args: tuple[Any, ...]
    named: dict[str, Any]


def _work(pipe: Connection, environment: dict[str, str]) -> None:
    # What it was forked from may have begun under another.
    os.environ.clear()
    os.environ.update(environment)
    # A terminal tells the whole process group: the parent decides, and a worker ends when its pipe closes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.formatwarning = lambda message, *where, **more: f"note: {message}\n"
    warnings.filterwarnings("ignore", module="PIL")

    def report(done: int, steps: int) -> None:
        pipe.send(Step(done, steps))

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            function, args, named = pipe.recv()
            if function is evaluate:
                named["report"] = report
            try:
                answer = function(*args, **named)
            except BaseException as error:
                answer = error
            pipe.send(answer)
