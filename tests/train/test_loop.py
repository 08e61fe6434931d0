"""The training loop: it learns, goes on where it was cut, and refuses what cannot work."""

import contextlib
import csv
import itertools
import signal
import sys
import threading
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from linksim import stopping
from linksim.data.training import training_set_of
from linksim.errors import LinksimError
from linksim.models.batch import Batch
from linksim.models.checkpoint import State
from linksim.models.fidelity import fidelity
from linksim.models.pool import Pool
from linksim.models.recipe import BaseRecipe
from linksim.models.spec import ModelSpec
from linksim.models.task import Share, Task, draw_seed
from linksim.nets.depthwise import DepthwiseConv2d
from linksim.schemes.learned import learned, transceiver
from linksim.schemes.semnoma.recipe import RECIPES, Recipe
from linksim.schemes.semnoma.training import ConvNextTask, taught_losses
from linksim.schemes.training import compile_networks
from linksim.stopping import Stopped
from linksim.train import loop
from linksim.train.logs import Logs
from linksim.train.models import asked_model
from linksim.train.run import parse_budget
from tests.models.build import build

pytestmark = pytest.mark.usefixtures("small_networks")

SPEC = ModelSpec("semnoma", "compact", "rayleigh", Fraction(1, 12))
TINY = replace(RECIPES["adamw"], batch=2)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    y, x = np.mgrid[0:32, 0:32] / 8
    waves = [np.stack([np.sin(x + n + c) * np.cos(y - c * n) for c in range(3)]) for n in range(40)]
    return (127 + 100 * np.stack(waves)).astype(np.uint8)


def train(spec: ModelSpec, recipe: Recipe, images: np.ndarray, folder: Path, seed: int = 0, **more: Any) -> State:
    return loop.train(transceiver(spec).task(recipe, training_set_of(images, 8), seed, "cpu", None), folder, **more)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["model"]


def test_a_run_that_was_cut_and_gone_on_with_equals_one_that_was_not(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(Exception):
        pass

    real = ConvNextTask.losses

    def until_step_4(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise Cut
        return real(*args)  # type: ignore[arg-type]

    train(SPEC, TINY, images, tmp_path / "whole", steps=7, seed=3)
    calls = 0
    monkeypatch.setattr(ConvNextTask, "losses", until_step_4)
    with pytest.raises(Cut):
        train(SPEC, TINY, images, tmp_path / "cut", steps=7, seed=3)
    monkeypatch.setattr(ConvNextTask, "losses", real)
    state = train(SPEC, TINY, images, tmp_path / "cut", seed=3)
    assert (state.step, state.steps) == (7, 7)
    for file, key in (("checkpoint.pt", "model"), ("checkpoint.pt", "averages"), ("best.pt", "model")):
        whole, cut = (torch.load(tmp_path / run / file, weights_only=True)[key] for run in ("whole", "cut"))
        torch.testing.assert_close(cut, whole, rtol=0, atol=0)


def test_losses_are_logged_alike_wherever_a_run_was_told_to_stop(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_INTERVAL", 3)
    train(SPEC, TINY, images, tmp_path / "whole", steps=30, seed=3)
    steps = iter(range(100))

    def told() -> None:
        if next(steps) in (4, 12):
            raise Stopped

    monkeypatch.setattr(loop, "stop_if_told", told)
    for _ in range(2):
        with pytest.raises(Stopped):
            train(SPEC, TINY, images, tmp_path / "stopped", steps=30, seed=3)
    train(SPEC, TINY, images, tmp_path / "stopped", seed=3)
    whole, stopped = ((tmp_path / run / "train.csv").read_text() for run in ("whole", "stopped"))
    assert stopped == whole


def test_a_budget_is_of_validations_too(images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Known(Exception):
        pass

    def fitting(seconds: float, step: float, check: float) -> int:
        assert seconds == 5.0
        assert 0 < step < 5.0
        # One validation for each of the averages.
        assert check >= 3 * 0.2
        raise Known

    real = ConvNextTask.validate

    def slow(self: ConvNextTask, model: torch.nn.Module) -> dict[str, float]:
        time.sleep(0.2)
        return real(self, model)

    monkeypatch.setattr(ConvNextTask, "validate", slow)
    monkeypatch.setattr(ConvNextTask, "decays", (0.9, 0.99, 0.999))
    monkeypatch.setattr(loop, "_fitting", fitting)
    with pytest.raises(Known):
        train(SPEC, TINY, images, tmp_path, seconds=5.0)


@pytest.mark.parametrize(("seconds", "step", "check"), [(60, 0.25, 0.0), (60, 0.25, 2.0), (9000, 0.5, 30.0), (1, 2, 3)])
def test_steps_and_their_validations_fill_a_budget(seconds: float, step: float, check: float) -> None:
    def taken(steps: int) -> float:
        interval = max(1, min(500, steps // 10))
        return steps * step + -(-steps // interval) * check

    found = loop._fitting(seconds, step, check)
    assert found == 1 or 0.9 * seconds < taken(found) <= seconds * 1.01


def test_runs_of_different_seeds_draw_differently(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU's generator reads 32 bits of a seed, so that one kept in the others changes nothing."""
    drawn: dict[int, list[Batch]] = {}
    real = ConvNextTask.draw

    def kept(self: ConvNextTask) -> Batch:
        drawn.setdefault(self.seed, []).append(batch := real(self))
        return batch

    monkeypatch.setattr(ConvNextTask, "draw", kept)
    for seed in (0, 1, 2):
        train(SPEC, TINY, images, tmp_path / str(seed), steps=3, seed=seed)
    batches = [batch for own in drawn.values() for batch in own]
    assert len(batches) == 9
    for one, other in itertools.combinations(batches, 2):
        assert not torch.equal(one.snr_db, other.snr_db)
        assert not torch.equal(one.images, other.images)


def test_every_step_of_every_run_has_draws_of_its_own() -> None:
    streams: tuple[Literal[0], Literal[1]] = (0, 1)
    seeds = {draw_seed(seed, step, stream) for seed in range(20) for step in (0, 1, 10**6) for stream in streams}
    assert len({seed % 2**32 for seed in seeds}) == 20 * 3 * 2
    assert draw_seed(999_999_999, 10**9, stream=1) < 2**32
    # Runs of neighbouring seeds are far from each other's steps.
    begins = sorted(draw_seed(seed, 0) for seed in range(100))
    assert min(after - before for before, after in itertools.pairwise(begins)) > 10**6
    parts = []
    for index in range(4):
        torch.manual_seed(5)
        Share(index, 4).begin()
        parts.append(torch.rand(3))
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(parts, 2))


def test_a_checkpoint_is_saved_between_validations(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(Exception):
        pass

    def cut(state: loop.State, losses: object) -> None:
        if state.step == 5:
            raise Cut

    monkeypatch.setattr(loop, "_LOG_STEPS", 2)
    monkeypatch.setattr(loop, "_INTERVAL", 7)
    for seconds, kept in ((0.0, 4), (3600.0, 0)):
        monkeypatch.setattr(loop, "_SAVE_SECONDS", seconds)
        folder = tmp_path / str(kept)
        with pytest.raises(Cut):
            train(SPEC, TINY, images, folder, steps=70, seed=3, report=cut)
        assert torch.load(folder / "checkpoint.pt", weights_only=True)["state"]["step"] == kept


def test_a_run_keeps_its_length(images: np.ndarray, tmp_path: Path) -> None:
    """Its rate goes by it: made longer, no command would make the same weights again."""
    train(SPEC, TINY, images, tmp_path, steps=2)
    for steps in (1, 4):
        with pytest.raises(LinksimError, match=f"is of 2 steps, not {steps}: leave --steps out; after its end --more"):
            train(SPEC, TINY, images, tmp_path, steps=steps)
    for given in ({"steps": 2}, {"seconds": 1.0}, {}):
        assert train(SPEC, TINY, images, tmp_path, **given).step == 2  # type: ignore[arg-type]


def test_training_learns_and_logs_what_it_does(images: np.ndarray, tmp_path: Path) -> None:
    state = train(SPEC, replace(TINY, batch=8, learning_rate=1e-3), images, tmp_path, steps=60)
    with (tmp_path / "validation.csv").open() as file:
        rows = list(csv.DictReader(file))
    first, last = float(rows[0]["psnr_10db"]), float(rows[-1]["psnr_10db"])
    # Five seeds gain 0.24 to 0.85.
    assert last > first + 0.15
    assert state.best == pytest.approx(max(np.mean([float(row[f"psnr_{s}db"]) for s in (0, 10, 20)]) for row in rows))
    with (tmp_path / "train.csv").open() as file:
        logged = list(csv.DictReader(file))
    assert [int(row["step"]) for row in logged] == sorted({*range(6, 61, 6), 50})
    assert set(logged[0]) == {"step", "mae", "total"}
    assert [path.name for path in tmp_path.glob("events.out.tfevents.*")]


@pytest.mark.parametrize("last", [False, True])
def test_the_best_weights_are_kept_or_the_last_ones(
    last: bool, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validations that fall from the second on."""
    scores = iter([1.0, 3.0, 2.5, 2.0, 1.5])
    monkeypatch.setattr(ConvNextTask, "score", lambda *_: next(scores))
    monkeypatch.setattr(ConvNextTask, "last", last)
    state = train(SPEC, TINY, images, tmp_path, steps=5)
    kept = torch.load(tmp_path / "best.pt", weights_only=True)["state"]
    assert (state.best, kept["step"]) == ((1.5, 5) if last else (3.0, 2))


def test_logs_close_wherever_a_signal_cut_them(tmp_path: Path) -> None:
    """An exception at every line that runs while a row is written, as a signal raises it."""

    def cut_at(line: int) -> bool:
        left = line

        def trace(frame: Any, event: str, given: object) -> Any:
            nonlocal left
            left -= event == "line"
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
            return trace

        with Logs(tmp_path, 0) as logs:
            try:
                sys.settrace(trace)
                logs.losses(1, {"total": 1.0})
                logs.validation(1, {"psnr_0db": 1.0})
            except KeyboardInterrupt:
                return True
            finally:
                sys.settrace(None)
        return False

    lines: list[int] = []
    work = threading.Thread(target=lambda: lines.extend(itertools.takewhile(cut_at, itertools.count())), daemon=True)
    work.start()
    work.join(300)
    assert not work.is_alive()
    assert len(lines) > 50


def test_a_training_that_lost_the_exception_of_a_signal_stops_after_its_step(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    stopping.listen()

    def dropped(state: loop.State, losses: object) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)

    try:
        with pytest.raises(KeyboardInterrupt):
            train(SPEC, TINY, images, tmp_path, steps=50, report=dropped)
    finally:
        stopping.forget()
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]["step"] == 1
    assert not (tmp_path / "validation.csv").exists()


def test_a_checkpoint_of_another_run_is_refused(images: np.ndarray, tmp_path: Path) -> None:
    train(SPEC, TINY, images, tmp_path, steps=1)
    with pytest.raises(LinksimError, match="another run"):
        train(SPEC, TINY, images, tmp_path, steps=1, seed=1)
    with pytest.raises(LinksimError, match="another run"):
        train(SPEC, replace(TINY, learning_rate=2e-3), images, tmp_path, steps=1)


def test_a_checkpoint_of_another_version_is_refused(images: np.ndarray, tmp_path: Path) -> None:
    train(SPEC, TINY, images, tmp_path, steps=1)
    path = tmp_path / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    # As version 0.1.0 of November 2026 wrote it: one average, whose decay stood in the recipe alone.
    content["average"] = content.pop("averages")[0]
    del content["state"]["ema"]
    torch.save(content, path)
    with pytest.raises(LinksimError, match=rf"{path} is of another version of linksim: .* take another --out"):
        train(SPEC, TINY, images, tmp_path, steps=1)
    assert torch.load(path, weights_only=True)["state"] == content["state"]


def test_a_loss_that_is_not_finite_stops_with_the_last_good_weights_kept(images: np.ndarray, tmp_path: Path) -> None:
    wild = replace(TINY, learning_rate=1e12, warmup=0.0, clip=0.0)
    with pytest.raises(LinksimError, match="lower learning rate"):
        train(SPEC, wild, images, tmp_path, steps=30)
    assert all(bool(value.isfinite().all()) for value in weights(tmp_path).values())


def test_budgets_that_cannot_be_are_refused(images: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(LinksimError, match="too short for one step"):
        train(SPEC, TINY, images, tmp_path / "a", seconds=1e-6)
    with pytest.raises(LinksimError, match="no budget"):
        train(SPEC, TINY, images, tmp_path / "b")
    with pytest.raises(LinksimError, match=r"no weights semoma_rayleigh_1-16.*train them: linksim train"):
        train(replace(SPEC, method="kd", rho=Fraction(1, 16)), TINY, images, tmp_path / "c", steps=1)
    for text in ("", "0m", "-1h", "m", "1d", "nan"):
        with pytest.raises(LinksimError, match="--budget"):
            parse_budget(text)
    assert [parse_budget(text) for text in ("90s", "40m", "1.5h", "7")] == [90, 2400, 5400, 7]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("semnom", "awgn", "1/6", "compact", 2, "own", "sum"), "did you mean 'semnoma'"),
        (("semnoma", "rician", "1/6", "compact", 2, "own", "sum"), "channel"),
        (("semnoma", "awgn", "1/7", "compact", 2, "own", "sum"), "whole number"),
        (("semnoma", "awgn", "25/768", "compact", 2, "own", "sum"), "feature maps"),
        (("semnoma", "awgn", "1/6", "tiny", 2, "own", "sum"), "size"),
        (("semnoma", "awgn", "1/6", "compact", 9, "own", "sum"), "--users"),
    ],
)
def test_models_that_cannot_be_are_refused(words: tuple[str, str, str, str, int, str, str], hint: str) -> None:
    with pytest.raises(LinksimError, match=hint):
        asked_model(*words)


def test_the_learning_rate_rises_and_falls_as_its_schedule_says() -> None:
    recipe = Recipe(learning_rate=1.0, warmup=0.1)
    rates = [recipe.rate(step, 1000) for step in range(1000)]
    assert max(rates) == pytest.approx(1.0, abs=0.02)
    assert rates.index(max(rates)) == pytest.approx(100, abs=2)
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)
    assert {RECIPES["paper"].rate(step, 1000) for step in (0, 10, 999)} == {1e-4}
    late = replace(recipe, schedule="wsd")
    assert [late.rate(step, 1000) for step in (100, 500, 800)] == [1.0] * 3
    assert late.rate(900, 1000) == pytest.approx(0.5)
    assert late.rate(999, 1000) == pytest.approx(0.01)
    assert late.rate(50, 1000) == recipe.rate(50, 1000)


@pytest.mark.parametrize("method", ["kd", "deepjscc-noma"])
def test_compiled_networks_give_the_same_losses_and_gradients(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: there the depthwise convolution is the library's.

    oneDNN's backward pass of it crashes on some CPUs with AVX2 alone: the library's own is taken.
    """
    monkeypatch.setattr(DepthwiseConv2d, "forward", torch.nn.Conv2d.forward)
    torch.manual_seed(0)
    spec = replace(SPEC, method=method)
    sends = learned(method).transmission(spec)
    model = build(spec) if method == "kd" else transceiver(spec).build()
    teacher = build(replace(spec, method="semoma")) if method == "kd" else None
    if teacher is not None:
        teacher.eval().requires_grad_(False)
    pool = Pool(training_set_of(torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8).numpy(), 8))

    def losses_and_gradient() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(0)
        batch = sends.draw(TINY, pool)
        if teacher is not None:
            losses = taught_losses(sends, TINY, model.eval(), teacher, batch)  # type: ignore[arg-type]
        else:
            losses = {"total": fidelity(TINY.loss, sends.images(model.eval(), batch), batch.images)}  # type: ignore[arg-type]
        losses["total"].backward()
        return losses, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    with torch.backends.mkldnn.flags(enabled=False):
        plain, gradient = losses_and_gradient()
        compile_networks(*filter(None, (model, teacher)), backend="aot_eager")
        compiled, its_gradient = losses_and_gradient()
    torch.testing.assert_close(compiled, plain)
    # Sums are taken in another order: single elements in which large terms cancel say nothing, their sum of squares
    # does. Each is off by some 1e-7 of the terms, of which there are up to 1e5.
    assert float((its_gradient - gradient).norm() / gradient.norm()) < 1e-7 * 1e5**0.5


class Line(Task):
    """One number that grows by a tenth a step; what is validated is how near to `target` its average is."""

    collapse = 100.0
    target = 0.0
    decays = (0.0, 0.5, 0.9)
    last = True

    def network(self) -> torch.nn.Module:
        return torch.nn.Linear(1, 1, bias=False)

    def losses(self, model: torch.nn.Module) -> dict[str, torch.Tensor]:
        return {"total": -model(torch.ones(1, 1)).sum()}

    def identity(self) -> dict[str, Any]:
        return {}

    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        return {"near": -abs(float(model.weight.detach()) - self.target)}  # type: ignore[arg-type]

    @property
    def validated(self) -> int:
        return 1


@pytest.mark.parametrize("decay", Line.decays)
def test_of_several_averages_the_best_is_kept(decay: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = BaseRecipe(learning_rate=0.1, weight_decay=0.0, warmup=0.0, schedule="constant", clip=0.0)

    def run(target: float, folder: str, steps: int) -> State:
        task = Line(recipe)
        task.target = target
        return loop.train(task, tmp_path / folder, steps=steps)

    # Where the average of this decay is after 12 steps of 0.1, by hand; a decay rises as (1 + done) / (10 + done).
    run(0.0, "known", 1)
    known = torch.load(tmp_path / "known" / "checkpoint.pt", weights_only=True)
    start = float(known["model"]["weight"]) - 0.1
    average = start
    for done in range(12):
        kept = min(decay, (1 + done) / (10 + done)) if decay else 0.0
        average = kept * average + (1 - kept) * (start + 0.1 * (done + 1))
    state = run(average, "whole", 12)
    assert state.ema == decay
    assert state.best == pytest.approx(0, abs=1e-5)
    best = torch.load(tmp_path / "whole" / "best.pt", weights_only=True)
    assert float(best["model"]["weight"]) == pytest.approx(average, abs=1e-5)
    # One that is gone on with has the averages of one that was not.
    asked = itertools.count()

    def after_five() -> None:
        if next(asked) == 5:
            raise Stopped

    monkeypatch.setattr(loop, "stop_if_told", after_five)
    with pytest.raises(Stopped):
        run(average, "cut", 12)
    assert torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)["state"]["step"] == 5
    assert run(average, "cut", 12).best == state.best


class Breaks(Line):
    """From step 4 on its loss is not finite, or is and has a gradient that is not."""

    broken = "loss"

    def begin(self, model: torch.nn.Module, step: int, steps: int) -> None:
        self.step = step

    def losses(self, model: torch.nn.Module) -> dict[str, torch.Tensor]:
        total = super().losses(model)["total"]
        if self.step >= 4:
            total = total + (torch.nan if self.broken == "loss" else (total * 0).sqrt())
        return {"total": total}


@pytest.mark.parametrize("broken", ["loss", "gradient"])
@pytest.mark.parametrize("stops", [True, False])
def test_no_checkpoint_is_of_a_state_that_is_not_finite(
    broken: str, stops: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where a run is told to stop between two looks at its losses, nor where a step broke the weights alone."""
    task = Breaks(BaseRecipe(warmup=0.0, clip=0.0))
    task.broken = broken
    monkeypatch.setattr(loop, "_SAVE_SECONDS", 0.0)
    monkeypatch.setattr(loop, "_LOG_STEPS", 3 if stops else 5)
    asked = itertools.count()

    def after_five() -> None:
        if stops and next(asked) == 5:
            raise Stopped

    monkeypatch.setattr(loop, "stop_if_told", after_five)
    with pytest.raises(Stopped if stops else LinksimError):
        loop.train(task, tmp_path, steps=200)
    found = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert found["state"]["step"] == (3 if stops else 0)
    assert all(bool(value.isfinite().all()) for value in found["model"].values())
    # What goes on from there says what is wrong.
    with pytest.raises(LinksimError, match="the loss is not finite at step"):
        loop.train(task, tmp_path)
