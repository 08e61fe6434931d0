"""Slices of a training on a cluster: each one advances it, and what advances no more is given up."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import pytest

from linksim.engine.workers import Pool
from linksim.errors import LinksimError
from linksim.models.checkpoint import CHECKPOINT, State, save_atomic
from linksim.models.spec import ModelSpec
from linksim.schemes.learned import transceiver
from linksim.train import parallel, slices
from linksim.train.parallel import train_all
from linksim.train.run import alone_in
from linksim.train.slices import Slice, Slices, train_slice

MODEL = transceiver(ModelSpec("semoma", "compact", "awgn", Fraction(1, 24)))

#: A training that has something to do before it saves, and then goes on for long, or ends.
TRAINING = """
import pathlib, sys, time
time.sleep(0.4)
if sys.argv[2] == "saves":
    file = pathlib.Path(sys.argv[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_name("part").write_bytes(b"after")
    file.with_name("part").replace(file)
    time.sleep(3600)
print("no room")
sys.exit(2)
"""


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Slice]:
    """A slice of no seconds of a training that saves, or fails, with these files sent."""
    monkeypatch.setattr(slices, "received", lambda name: (None, tmp_path))
    monkeypatch.setattr(slices, "_LOOK_S", 0.1)

    def found(does: str, files: dict[str, bytes]) -> Slice:
        def launch(words: Sequence[str], output: IO[bytes], **how: object) -> "subprocess.Popen[bytes]":
            file = Path(words[words.index("--out") + 1]) / MODEL.name / CHECKPOINT
            return subprocess.Popen([sys.executable, "-c", TRAINING, str(file), does], stdout=output)

        monkeypatch.setattr(slices, "launch", launch)
        return train_slice("any", ["train"], [], MODEL.name, files, {}, 0.05)

    return found


@pytest.mark.parametrize("sent", [{}, {CHECKPOINT: b"before"}])
def test_a_slice_ends_once_its_checkpoint_goes_further(training: Callable[..., Slice], sent: dict[str, bytes]) -> None:
    found = training("saves", sent)
    assert (found.code, found.files[CHECKPOINT]) == (None, b"after")


def test_a_slice_ends_with_its_training(training: Callable[..., Slice]) -> None:
    found = training("fails", {CHECKPOINT: b"before"})
    assert (found.code, found.said, found.files) == (2, "no room", {CHECKPOINT: b"before"})


class Given(Executor):
    """In place of workers: what comes back of one slice after the other."""

    def __init__(self, found: Sequence[Slice]) -> None:
        self.left = list(found)

    def submit(self, function: object, /, *args: object, **named: object) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(self.left.pop(0))
        return future


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Slices]:
    """Slices that come back with checkpoints of these steps; None is of none at all, and stopped."""
    monkeypatch.setattr(parallel, "_POLL_SECONDS", 0.0)

    def of(*steps: int | None, code: int | None = None) -> Slices:
        found = []
        for step in steps:
            files = {}
            if step is not None:
                content = {"identity": {}, "model": {}, "state": asdict(State(step=step, steps=9))}
                save_atomic(tmp_path / "made", content)
                files[CHECKPOINT] = (tmp_path / "made").read_bytes()
            found.append(Slice(files, code, "stopped"))
        found.append(Slice(found[-1].files, 0, "done"))
        return Slices(Pool(Given(found), 1), "any", [], tmp_path / "runs", [])

    return of


@pytest.mark.parametrize("code", [None, 130])
def test_one_slice_that_brings_nothing_new_is_sent_again(
    given: Callable[..., Slices], capsys: pytest.CaptureFixture[str], code: int | None
) -> None:
    """Whether its time was over, or its machine told it to stop."""
    train_all([[MODEL]], given(None, 0, 0, 4, 4, 8, code=code), warm=None)
    assert "nothing new" not in capsys.readouterr().out


@pytest.mark.parametrize("steps", [(None, None), (0, 4, 4, 4)])
def test_a_training_that_advances_no_more_is_a_failure(
    given: Callable[..., Slices], capsys: pytest.CaptureFixture[str], steps: Sequence[int | None]
) -> None:
    turns = given(*steps)
    with pytest.raises(LinksimError, match=f"{MODEL.name} could not be trained"):
        train_all([[MODEL]], turns, warm=None)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(steps) + 1
    assert said[-1].startswith(f"{MODEL.name}: 2 slices running brought nothing new")


def test_the_folder_of_a_run_is_held_while_a_slice_of_it_is_on_its_way(given: Callable[..., Slices]) -> None:
    turns = given(0)
    words = [*MODEL.words, "--resume"]
    for end in (lambda turn: turn.poll(), lambda turn: turns.stop([turn])):
        turn = turns.begin(MODEL, words)
        with pytest.raises(LinksimError, match="another process works there"):
            turns.begin(MODEL, words)
        end(turn)
    with alone_in(turns.out / MODEL.name):
        pass
