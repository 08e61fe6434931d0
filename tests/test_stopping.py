"""A process that is told to stop does so, wherever it is."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from linksim import stopping
from linksim.stopping import Stopped, held, stop_if_told


@pytest.fixture(autouse=True)
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    # A shell starts its background jobs with Ctrl-C ignored, which linksim would respect.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(stopping._State, "acted", -float("inf"))
    stopping.listen()
    yield
    stopping.forget()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_what_runs(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_what_python_drops_stops_at_the_next_question(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dropping:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    stop_if_told()
    dropped: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda given: dropped.append(given.exc_type))
    Dropping()
    assert dropped == [Stopped]
    with pytest.raises(Stopped):
        stop_if_told()


def test_a_held_block_runs_on_and_asks_itself() -> None:
    with held():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped):
            stop_if_told()


def test_a_second_signal_is_one_request_with_the_first_until_somebody_waits_in_vain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    monkeypatch.setattr(stopping, "_SAME_SECONDS", -1.0)
    with pytest.raises(Stopped), held():
        signal.raise_signal(signal.SIGTERM)


def test_ctrl_c_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopping.listen()
    signal.raise_signal(signal.SIGINT)
    stop_if_told()


def test_the_next_command_is_not_stopped_by_what_the_last_was_told() -> None:
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGTERM)
    stopping.forget()
    stop_if_told()


def test_the_exit_code_is_130_wherever_the_signal_comes() -> None:
    # A plain KeyboardInterrupt that leaves code of a string has Python end the process by SIGINT.
    code = (
        "import signal, sys\nfrom linksim import stopping\nstopping.listen()\n"
        "try:\n    exec('signal.raise_signal(signal.SIGTERM)')\nexcept KeyboardInterrupt:\n    sys.exit(130)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert (done.returncode, done.stderr) == (130, "")
