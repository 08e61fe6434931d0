"""The training loop, top to bottom."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from linksim.devices import trains_in_bfloat16
from linksim.errors import LinksimError
from linksim.files import write_atomic
from linksim.models.checkpoint import BEST, CHECKPOINT, State, damaged, load_checkpoint, save_atomic
from linksim.models.recipe import BaseRecipe, recipe_of
from linksim.models.task import Share, Task, draw_seed
from linksim.nets.optimizers import Optimizer
from linksim.stopping import Stopped, held, is_told, stop_if_told
from linksim.train.logs import Logs
from linksim.train.team import Team

Tensors = tuple[Tensor, ...] | list[Tensor]

SETTINGS = "settings.json"
_CALIBRATION_STEPS = 12

#: Weights in an average before the first step, those of the start; PyTorch would begin with those after it.
_BEFORE = 1

#: Steps between two validations, at the most.
_INTERVAL = 500

#: Steps of a run, at the most.
MAX_STEPS = 10**9

#: Steps between two lines of losses. A checkpoint is saved with a line, so that the next one is whole after a resume.
_LOG_STEPS = 50

#: Seconds of work between two checkpoints, at the least.
_SAVE_SECONDS = 60.0


def train(
    task: Task,
    folder: Path,
    *,
    data: str = "",
    seconds: float | None = None,
    steps: int | None = None,
    lineage: Iterable[dict[str, Any]] = (),
    embedded: bool = False,
    team: Team | None = None,
    report: Callable[[State, Mapping[str, float]], None] | None = None,
    preparing: Callable[[int, int], None] | None = None,
) -> State:
    """Trains what `task` says, or goes on with it, and leaves its best weights, or its last ones, in `folder`.

    Args:
        task: networks, losses, validation.
        folder: for `checkpoint.pt`, `best.pt`, `settings.json`, `train.csv`, `validation.csv` and TensorBoard's events;
            a checkpoint there is gone on with.
        data: fingerprint of what is trained on; empty for CIFAR-10.
        seconds: time to spend on steps and validations; it becomes a number of steps when the run begins, so that a
            run that was cut short and gone on with equals one that was not.
        steps: number of steps, in place of `seconds`; a run that is gone on with has its own.
        lineage: of a new run that starts warm: the trainings that made what it starts from.
        embedded: of a new run: whether it starts as users in separate channel uses.
        team: processes that train together; None is this one alone.
        report: called after every step with the state and the losses over the last steps, which are empty at first.
        preparing: told the steps that come before the first one of a new run, done and in all.

    Raises:
        LinksimError: no budget, a checkpoint of another run or length, or a loss that is not finite (the last good
            weights are kept).
    """
    recipe, device = task.recipe, task.device
    team = team or Team(device)
    shares = team.size * recipe.accumulate
    torch.manual_seed(task.seed)
    folder.mkdir(parents=True, exist_ok=True)
    model = task.network().to(device).to(memory_format=torch.channels_last)
    state = State(lineage=[*lineage], embedded=embedded)
    if device != "cpu":  # on a CPU it is slower
        task.compile(model)
    identity = _plain({**task.identity(), "parts": dict(task.parts), "recipe": asdict(recipe), "seed": task.seed})
    if data:
        identity["data"] = data
    checkpoint = folder / CHECKPOINT
    saved = load_checkpoint(checkpoint, device, ("optimizer", "averages")) if checkpoint.exists() else None
    if saved is not None and _as_known(saved["identity"], recipe) != identity:
        raise LinksimError(f"{checkpoint} is of another run, or of other images: take another --out")
    if saved is not None and steps not in (None, saved["state"]["steps"]):
        # The rate goes by the length: half of a run and half of a longer one are no run that could be made again.
        raise LinksimError(
            f"the run in {folder} is of {saved['state']['steps']} steps, not {steps}: leave --steps out; after its end "
            "--more goes on"
        )
    if saved is None and steps is None and seconds is None:
        raise LinksimError("no budget given: --budget 40m, or --steps")

    half = trains_in_bfloat16(device)
    # Losses since the last line of the log.
    window: list[dict[str, Tensor]] = []
    told = False

    def at_the_start() -> tuple[Optimizer, list[AveragedModel]]:
        optimizer = Optimizer(model, recipe.optimizer, recipe.learning_rate, recipe.weight_decay)
        return optimizer, [averaged(model, decay) for decay in task.decays]

    def one_step(step: int) -> dict[str, Tensor]:
        """One step; nothing in it waits for a GPU."""
        nonlocal told
        model.train()
        task.begin(model, step, max(state.steps, 1))
        optimizer.zero_grad()
        found: list[dict[str, Tensor]] = []
        for part in range(recipe.accumulate):
            # Whatever a step draws, images, noise and dropout alike, is of (seed, step) alone.
            torch.manual_seed(draw_seed(task.seed, step))
            task.share = Share(team.index * recipe.accumulate + part, shares)
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
                losses = task.losses(model)
            (losses["total"] / recipe.accumulate if recipe.accumulate > 1 else losses["total"]).backward()
            found.append({name: value.detach() for name, value in losses.items()})
        if team.size > 1:
            told = team.mean((p.grad for p in model.parameters() if p.grad is not None), is_told())
        if recipe.clip:
            for parameters in task.clipped(model):
                nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimizer.step(recipe.rate(step, max(state.steps, 1)))
        for average in averages:
            average.update_parameters(model)
        return found[0] if len(found) == 1 else {name: mean_of(row[name] for row in found) for name in found[0]}

    def stop_if_diverged(value: float) -> None:
        if not math.isfinite(value):
            raise LinksimError(
                f"the loss is not finite at step {state.step}: what was good before is kept in {folder}; take another "
                "--out and a lower learning rate"
            )

    def is_sound() -> bool:
        """Whether the losses since the last look are finite, and the weights that the last step made."""
        values = [*model.parameters(), *(row["total"] for row in window)]
        return bool(torch.stack([value.isfinite().all() for value in values]).all())

    def save() -> None:
        # The next look at the losses, of all processes, ends a run that is not; what it goes on from is the last good.
        if not team.leads or not is_sound():
            return
        content = {
            "identity": identity,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "averages": [average.module.state_dict() for average in averages],
            "state": asdict(state),
            "window": window,
        }
        save_atomic(checkpoint, content)

    def check() -> None:
        rows = team.agreed([task.validate(average.module.eval()) for average in averages] if team.leads else None)
        means = [task.score(row) for row in rows]
        # A score that is not finite is no less than any other: it is to be seen.
        chosen = max(range(len(means)), key=lambda place: (not math.isfinite(means[place]), means[place]))
        found, mean = rows[chosen], means[chosen]
        stop_if_diverged(mean)
        logs.validation(state.step, found)
        if mean < state.best - task.collapse:
            raise LinksimError(
                f"training diverged: {mean:.4g} at step {state.step}, {state.best:.4g} before; the best weights "
                f"are kept in {folder}; take another --out and a lower learning rate"
            )
        if mean > state.best or task.last:
            state.best, state.validation, state.ema = mean, found, task.decays[chosen]
            best = {"identity": identity, "model": averages[chosen].module.state_dict(), "state": asdict(state)}
            if team.leads:
                save_atomic(folder / BEST, best)
        save()

    if saved is not None or steps is None:
        optimizer, averages = at_the_start()
    if saved is not None:
        try:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            for average, values in zip(averages, saved["averages"], strict=True):
                average.module.load_state_dict(values)
            window = saved.get("window", [])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(checkpoint, error) from None
        state = State(**saved["state"])
        for average in averages:
            average.n_averaged.fill_(_BEFORE + state.step)
    else:
        if team.leads:
            write_atomic(folder / SETTINGS, (json.dumps(identity, indent=1) + "\n").encode())
        begin = time.perf_counter()
        state.prepared = task.prepare(model, preparing)
        if team.size > 1:
            # What each has prepared can differ in its last digits.
            model.load_state_dict(team.agreed(model.state_dict()))
        state.seconds = time.perf_counter() - begin
        state.steps = steps or _steps_in(seconds or 0.0, one_step, task, model, team)
        # What was prepared, or tried out, is behind them.
        optimizer, averages = at_the_start()
        save()
    interval = _interval(state.steps)
    shown: dict[str, float] = {}
    clock = saved_at = time.perf_counter()
    with Logs(folder, state.step, written=team.leads) as logs, held():
        while state.step < state.steps:
            try:
                if team.size == 1:
                    stop_if_told()
                elif told:
                    raise Stopped
            except Stopped:
                # Between two steps all is of one state.
                state.seconds += time.perf_counter() - clock
                save()
                raise
            window.append(one_step(state.step))
            state.step += 1
            last = state.step % interval == 0 or state.step == state.steps
            if state.step % _LOG_STEPS == 0 or last:
                # Here alone the host waits for the device.
                means = torch.stack([mean_of(row[name] for row in window) for name in window[0]])
                team.mean([means], False)
                shown = dict(zip(window[0], means.tolist(), strict=True))
                stop_if_diverged(shown["total"])
                logs.losses(state.step, shown)
                window = []
                state.seconds, clock = state.seconds + time.perf_counter() - clock, time.perf_counter()
            if report is not None:
                report(state, shown)
            if last:
                check()
            elif not window and clock - saved_at > _SAVE_SECONDS:
                save()
            else:
                continue
            clock = saved_at = time.perf_counter()
    return state


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a model's weights; with decay 0 the weights themselves.

    The decay rises to its value over the first steps, so that the start is forgotten.
    """

    @torch.no_grad()
    def take(average: Tensors, now: Tensors, taken: Tensor | int) -> None:
        done = int(taken) - _BEFORE
        if not average[0].is_floating_point():
            # Tables of places: there is nothing to average.
            torch._foreach_copy_(average, now)
            return
        torch._foreach_lerp_(average, now, 1 - (min(decay, (1 + done) / (10 + done)) if decay else 0.0))

    found = AveragedModel(model, multi_avg_fn=take, use_buffers=True)
    found.n_averaged.fill_(_BEFORE)
    return found


def mean_of(values: Iterable[Tensor]) -> Tensor:
    """The mean of scalars."""
    return torch.stack(list(values)).mean()


def _interval(steps: int) -> int:
    """Steps between two validations of a run: ten of them at least, where there are as many steps."""
    return max(1, min(_INTERVAL, steps // 10))


def _steps_in(seconds: float, one_step: Callable[[int], object], task: Task, model: nn.Module, team: Team) -> int:
    """Steps that fit into `seconds` with their validations, by the speed of a few and of one, which are taken back."""

    def timed(work: Callable[[], object]) -> float:
        begin = time.perf_counter()
        work()
        if team.device != "cpu":
            torch.cuda.synchronize(team.device)
        return float(team.agreed(time.perf_counter() - begin))

    before = {name: value.clone() for name, value in model.state_dict().items()}
    times: list[float] = []
    for step in range(_CALIBRATION_STEPS):
        times.append(timed(lambda step=step: one_step(step)))  # type: ignore[misc]
        # A short budget is not spent on finding out what fits into it.
        if len(times) >= 3 and sum(times) > seconds / 10:
            break
    model.load_state_dict(before)
    each = float(np.median(times))
    if seconds < each:
        raise LinksimError(f"a budget of {seconds:g} s is too short for one step: {each:.2f} s at least")
    # A GPU's first validation prepares its kernels.
    check = [timed(lambda: team.leads and task.validate(model.eval())) for _ in range(1 if team.device == "cpu" else 2)]
    return _fitting(seconds, each, check[-1] * len(task.decays))


def _fitting(seconds: float, step: float, check: float) -> int:
    """The most steps that take `seconds` at most, at `step` seconds each and `check` a validation; one at least.

    Example:
        >>> _fitting(2400, 0.25, 9), _fitting(120, 0.25, 9), _fitting(10, 0.25, 9)
        (8955, 120, 1)
    """
    steps = int(min(seconds / (step + check / _INTERVAL), MAX_STEPS))
    if steps >= 10 * _INTERVAL:
        return steps
    fitting = (n for n in range(1, steps + 1) if n * step + math.ceil(n / _interval(n)) * check <= seconds)
    return max(fitting, default=1)


def _as_known(identity: Mapping[str, Any], recipe: BaseRecipe) -> dict[str, Any]:
    """A checkpoint's identity as this version writes it: values that recipes of its kind have no more are left out."""
    return {**identity, "recipe": _plain(asdict(recipe_of(type(recipe), identity["recipe"])))}


def _plain(value: Any) -> Any:
    """Tuples as lists, as a checkpoint or a JSON file gives them back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
