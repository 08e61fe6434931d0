"""Being told to stop: by Ctrl-C, by SIGTERM, with which job arrays and parents end a process, or by a closed terminal.

An exception that a signal raises wherever the process happens to be can get lost: Python drops it in finalisers and in
callbacks. So what was told is kept as well, and what runs for long asks for it from time to time.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker

#: Seconds in which another signal is taken for the same request: a terminal tells a whole group of processes, and the
#: parent tells its children once more.
_SAME_SECONDS = 5.0


class Stopped(KeyboardInterrupt):
    """The process was told to stop.

    A class of its own: where a plain KeyboardInterrupt leaves code that is run from a string, Python ends the process
    by SIGINT whatever its exit code.
    """


class _State:
    """Whether the process was told to stop, when it last acted on that, and how many `held` blocks it is in."""

    told = False
    acted = -math.inf
    blocks = 0


def listen() -> None:
    """Has SIGTERM, Ctrl-C and a closed terminal raise `Stopped` from here on."""
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGTERM, _hear)
    # A shell has the background jobs of a script ignore Ctrl-C, and nohup has its command ignore the terminal.
    for name in ("SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _hear)


def forget() -> None:
    """Ends what was told: the next command of this process is not stopped by it."""
    _State.told = False


def _hear(signum: int, frame: object) -> None:
    before, _State.told = _State.told, True
    if time.monotonic() - _State.acted <= _SAME_SECONDS:
        return
    _State.acted = time.monotonic()
    # Whoever tells once more has waited in vain.
    if before or not _State.blocks:
        raise Stopped


def is_told() -> bool:
    """Whether the process was told to stop."""
    return _State.told


def stop_if_told() -> None:
    """Raises Stopped where the process was told to stop and goes on all the same."""
    if _State.told:
        _State.acted = time.monotonic()
        raise Stopped


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Has processes that begin in the block not hear what a terminal tells all of them: this one decides.

    Those that begin in threads of the block, later too, are deaf as well. What is told meanwhile is heard at its end.
    """
    # Windows has neither these signals nor masks of them.
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    told = {signal.SIGINT, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, told)
    try:
        # multiprocessing's own helper; beginning it has this thread hear Ctrl-C again.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, told)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Has the block run on when the process is told to stop; it asks itself, by `stop_if_told`."""
    _State.blocks += 1
    try:
        yield
    finally:
        _State.blocks -= 1
