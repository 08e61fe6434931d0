"""Trainings side by side: told to stop, they and their parent end within a bounded time."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction

import pytest

from linksim import stopping
from linksim.errors import LinksimError
from linksim.models.spec import ModelSpec
from linksim.schemes.learned import transceiver
from linksim.stopping import Stopped
from linksim.train import parallel
from linksim.train.parallel import Processes, stop, train_all

Process = subprocess.Popen[bytes]

MODELS = [transceiver(ModelSpec("semoma", "compact", channel, Fraction(1, 24))) for channel in ("awgn", "rayleigh")]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Process]]:
    """Processes that a test began; what is left of them ends with it."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(stopping._State, "acted", -float("inf"))
    stopping.listen()
    found: list[Process] = []
    yield found
    stopping.forget()
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])
    for process in found:
        process.kill()
        process.wait()


def child(begun: list[Process], on_sigterm: str) -> Process:
    """A process whose handler for SIGTERM is this expression."""
    code = f"import os, signal, time\nsignal.signal(15, {on_sigterm})\nprint('ready', flush=True)\ntime.sleep(3600)\n"
    begun.append(process := subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE))
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


AT_ONCE = "lambda *_: os._exit(130)"
NEVER = "signal.SIG_IGN"
AT_THE_SECOND = "lambda *_: signal.signal(15, lambda *_: os._exit(130))"


def test_what_stops_when_told_is_told_once(begun: list[Process], capsys: pytest.CaptureFixture[str]) -> None:
    process = child(begun, AT_ONCE)
    stop([process])
    assert process.returncode == 130
    assert capsys.readouterr().err == ""


def test_what_does_not_stop_is_told_again(begun: list[Process], capsys: pytest.CaptureFixture[str]) -> None:
    slow, quick = child(begun, AT_THE_SECOND), child(begun, AT_ONCE)
    stop([slow, quick], grace=(0.5, 3600))
    assert (slow.returncode, quick.returncode) == (130, 130)
    assert capsys.readouterr().err == f"note: training process {slow.pid} does not stop: it is told once more\n"


def test_what_never_stops_is_killed(begun: list[Process], capsys: pytest.CaptureFixture[str]) -> None:
    process = child(begun, NEVER)
    stop([process], grace=(0.2, 0.2))
    assert process.returncode == -signal.SIGKILL
    assert "does not stop and is killed: its last checkpoint is kept" in capsys.readouterr().err


def test_what_never_stops_is_killed_at_once_where_the_parent_is_told_again(
    begun: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = child(begun, NEVER)

    def told_again(seconds: float) -> None:
        raise Stopped

    monkeypatch.setattr(parallel.time, "sleep", told_again)
    with pytest.raises(Stopped):
        stop([process])
    assert process.returncode == -signal.SIGKILL


def test_a_signal_while_a_process_is_started_leaves_none_without_its_parent(
    begun: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(words: Sequence[str], one_thread: bool) -> Process:
        process = child(begun, AT_ONCE)
        signal.raise_signal(signal.SIGTERM)
        return process

    monkeypatch.setattr(parallel, "launch", launch)
    with pytest.raises(Stopped):
        train_all([MODELS], Processes(1, []), warm=None)
    assert [process.returncode for process in begun] == [130]


def test_a_training_that_fails_ends_the_rest_after_those_beside_it(
    begun: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(words: Sequence[str], one_thread: bool) -> Process:
        begun.append(process := subprocess.Popen([sys.executable, "-c", f"exit({0 if begun else 2})"]))
        return process

    monkeypatch.setattr(parallel, "launch", launch)
    with pytest.raises(LinksimError, match=f"{MODELS[0].name} could not be trained"):
        train_all([MODELS, MODELS], Processes(2, []), warm=None)
    assert [process.returncode for process in begun] == [2, 0]
