"""A campaign trains its models in turns, the one furthest behind its bar first."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from linksim import LinksimError
from linksim.cli import main
from linksim.engine.config import read_sweep_file
from linksim.models import weights
from linksim.models.owner import Model
from linksim.models.spec import lineage_pairs
from linksim.train import campaign
from linksim.train.campaign import Goal, Standing, goals_of, most_behind, run_campaign, standing
from linksim.train.parallel import Processes
from tests.conftest import ROOT
from tests.train.test_command import folder, train

__all__ = ["folder"]

BASE = {"scheme": "semoma", "rho": "1/12", "bar": 30.0}


def test_the_model_furthest_behind_comes_first_and_one_without_weights_before_all() -> None:
    rows = [{"scheme": "semoma", "rho": rho, "bar": bar} for rho, bar in (("2/3", 32), ("1/3", 31), ("1/6", 26))]
    near, far, met = goals = goals_of({"models": rows})
    there = {near: Standing(31.5, 0), far: Standing(29.0, 0), met: Standing(26.5, 0)}
    assert most_behind(goals, there) == far
    assert most_behind([near, met], there) == near
    assert most_behind([met], there) is None
    assert most_behind(goals, {**there, near: Standing(None, 0)}) == near
    # What was stopped half-way goes on first, its bar met or not.
    assert most_behind(goals, {**there, met: Standing(26.5, 0, ended=False)}) == met


def test_a_model_whose_pairs_are_spent_ends_and_one_waits_for_what_it_starts_as(folder: Path) -> None:
    student, source = goals_of({"models": [
        {"scheme": "semnoma", "rho": "1/24", "bar": 40, "pairs": 100}, {**BASE, "rho": "1/24"}
    ]})  # fmt: skip
    none = {student: Standing(None, 0), source: Standing(None, 0)}
    assert most_behind([student], none) is None
    assert most_behind([student, source], none) == source
    train(folder, "--scheme", "semoma", "--rho", "1/24", "--steps", "1")
    assert most_behind([student], none) == student
    assert most_behind([student], {student: Standing(20.0, 99)}) == student
    assert most_behind([student], {student: Standing(20.0, 100)}) is None


class Here:
    """In place of a training's process: the same command, run in this one to its end."""

    def __init__(self, words: Sequence[str], one_thread: bool) -> None:
        self.code = main(list(words))

    def poll(self) -> int:
        return self.code


def test_turns_begin_runs_go_on_after_their_end_and_leave_alone_what_stands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("linksim.train.parallel.launch", Here)
    small = {"set": {"batch": 2, "embed_steps": 2, "learning_rate": 1e-6}}
    goals = goals_of({"models": [{**BASE, "rho": "1/24", **small}]})
    out, step = folder / "runs", ["--steps", "1"]
    here = Processes(1, ["--data-dir", str(folder / "data"), "--out", str(out)])
    run_campaign(goals, out, step, here)
    # The first turn gives it weights; two more at a rate of nothing stand.
    assert lineage_pairs(weights.cards()[goals[0].model.name]) >= 2
    assert standing(goals[0], out).pairs == 6
    assert "6 pairs of its own, and stands there" in capsys.readouterr().out
    spent = [Goal(goals[0].model, 40.0, 6, goals[0].options)]
    run_campaign(spent, out, step, here)
    assert standing(goals[0], out).pairs == 6
    broken = goals_of({"models": [{**BASE, "set": {"learning_rate": 1e6, "warmup": 0, "clip": 0, "batch": 2}}]})
    with pytest.raises(LinksimError, match="semoma_awgn_1-24_n2_own_sum_32px_compact failed"):
        run_campaign(broken, out, ["--steps", "30"], Processes(1, ["--data-dir", str(folder / "none")]))


class Sliced:
    """In place of a cluster: each turn is of so many slices, and its last one raises no score."""

    places = 1

    def __init__(self, slices: int, gain: float) -> None:
        self.slices, self.gain = slices, gain
        self.done, self.score = 0, 20.0

    @property
    def goes_on(self) -> bool:
        return self.done % self.slices != 0

    def begin(self, model: Model, words: Sequence[str]) -> "Sliced":
        return self

    def poll(self) -> int:
        self.done += 1
        if self.goes_on:
            self.score += self.gain / (self.slices - 1)
        return 0

    def stop(self, turns: object) -> None:
        pass


@pytest.mark.parametrize(("gain", "turns"), [(1.0, 3), (0.01, 2)])
def test_a_turn_of_several_slices_is_judged_by_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gain: float, turns: int
) -> None:
    goals, sliced = goals_of({"models": [{**BASE, "bar": 22.5}]}), Sliced(5, gain)
    monkeypatch.setattr(campaign, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(campaign, "standing", lambda goal, out: Standing(sliced.score, 0, not sliced.goes_on))
    run_campaign(goals, tmp_path, ["--steps", "1"], sliced)
    assert sliced.done == 5 * turns


def test_the_campaign_of_the_papers_figures_can_be_read() -> None:
    goals = goals_of(read_sweep_file(ROOT / "sweeps" / "train" / "cifar10.yaml"))
    assert {goal.model.spec.method for goal in goals} == {"semoma", "semnoma", "kd"}
    # All of a comparison see as many pairs.
    assert {goal.pairs for goal in goals if goal.model.owner.access == "noma"} == {100_000}


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"models": []}, "write a list of models"),
        ({"models": [1]}, "write a list of models"),
        ({"models": [{**BASE, "chanel": "awgn"}]}, "did you mean 'channel'"),
        ({"models": [{"scheme": "semoma"}]}, "bar: field required"),
        ({"models": [{**BASE, "bar": "high"}]}, "bar: input should be a valid number"),
        ({"models": [{**BASE, "bar": True}]}, "bar: input should be a valid number"),
        ({"models": [{**BASE, "users": True}]}, "users: input should be a valid integer"),
        ({"models": [{**BASE, "pairs": True}]}, "pairs: input should be a valid integer"),
        ({"models": [{**BASE, "set": {"batc": 2}}]}, "did you mean 'batch'"),
        ({"models": [BASE, BASE]}, "is there twice"),
        ({"models": [BASE], "snr": 10}, "unknown key of a campaign 'snr'"),
        ({"models": [{**BASE, "scheme": "semnoma", "rho": "1/24"}]}, "needs semoma_awgn_1-48_n2_own_sum_32px_compact"),
    ],
)
def test_a_list_that_is_none_is_refused_in_one_line(values: dict[str, object], hint: str) -> None:
    with pytest.raises(LinksimError, match=hint.replace("(", r"\(")):
        goals_of(values)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--set", "batch=2"], "the list's to say"),
        (["--recipe", "adamw"], "the list's to say"),
        (["--warm", "auto"], "the list's to say"),
        (["--replace"], "--replace is nothing to a list"),
        (["--devices", "2"], "--devices is nothing to a list"),
    ],
)
def test_what_a_list_says_itself_or_does_not_do_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], hint: str
) -> None:
    file = tmp_path / "list.yaml"
    file.write_text("models: [{scheme: semoma, rho: 1/12, bar: 30}]\n")
    assert main(["train", "--for", str(file), "--steps", "1", *words]) == 2
    assert hint in capsys.readouterr().err
    assert main(["train", "--for", str(file)]) == 2
    assert "give the length of a turn" in capsys.readouterr().err
