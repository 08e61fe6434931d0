"""A campaign: models that are trained in turns, the one furthest behind its bar first, until all have met theirs.

`linksim train --for FILE` runs one where FILE holds a list `models` in place of a sweep, here or on a cluster. Each
turn is some of one model's training: a new run, the rest of one that was stopped, or, after its end, more of it from
its best weights. A campaign can be stopped at any time; the same command goes on.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from linksim.errors import LinksimError, unknown
from linksim.models import weights
from linksim.models.checkpoint import CHECKPOINT, load_checkpoint
from linksim.models.owner import EMBEDDED, FROM_SCRATCH, Model
from linksim.models.spec import CIFAR10_SHAPE
from linksim.stopping import held, stop_if_told
from linksim.train.models import asked_model
from linksim.train.parallel import T, Turns
from linksim.train.run import set_aside

#: A turn that raises the score by less than this, in dB, stands; a model that stood twice in a row is left alone.
_STANDS_DB = 0.02
_STANDS = 2

_POLL_SECONDS = 0.5


class _Entry(BaseModel):
    """One model of a campaign's file; every key but `bar`, `pairs` and `set` is as `linksim train` takes it."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    scheme: str
    channel: str = "awgn"
    rho: str = "1/6"
    size: str | None = None
    users: Annotated[int, Field(strict=True)] = 2
    csi: str | None = None
    power: str = "sum"
    ablation: str = "none"
    bar: Annotated[float, Field(strict=True, allow_inf_nan=False)]
    pairs: Annotated[int, Field(strict=True, ge=1)] | None = None
    recipe: str = "fast"
    warm: str | None = None
    set: dict[str, str] = {}


@dataclass(frozen=True)
class Goal:
    """A model and what it shall reach.

    Args:
        model: what is trained.
        bar: score of its validation, the mean PSNR in dB over its SNRs.
        pairs: image groups of its own trainings after which it ends in any case; None: none.
        options: of `linksim train` for its first turn.
    """

    model: Model
    bar: float
    pairs: int | None
    options: tuple[str, ...]


@dataclass(frozen=True)
class Standing:
    """Where a model stands.

    Args:
        score: of its weights, None without any.
        pairs: image groups of its own trainings.
        ended: whether its last run has.
    """

    score: float | None
    pairs: int
    ended: bool = True


def goals_of(values: Mapping[str, Any], image_shape: tuple[int, int, int] = CIFAR10_SHAPE) -> list[Goal]:
    """The goals of a campaign's file.

    Args:
        values: of the file, `models: [{scheme: semoma, channel: awgn, rho: 1/3, bar: 32.5}, ...]`.
        image_shape: (C, H, W) of the images.

    Raises:
        LinksimError: a key or a value that is none, or a model named twice.

    Example:
        >>> (goal,) = goals_of({"models": [{"scheme": "semoma", "rho": "2/3", "bar": 32.5, "set": {"batch": 16}}]})
        >>> goal.model.name, goal.bar, goal.options
        ('semoma_awgn_1-3_n2_own_sum_32px_compact', 32.5, ('--recipe', 'fast', '--set', 'batch=16'))
    """
    for key in values:
        if key != "models":
            raise unknown("key of a campaign", str(key), ["models"])
    rows = values["models"]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise LinksimError(
            "models: write a list of models, like - {scheme: semoma, channel: awgn, rho: 1/3, bar: 32.5}"
        )
    goals: dict[str, Goal] = {}
    for row in rows:
        try:
            entry = _Entry.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            if first["type"] == "extra_forbidden":
                raise unknown("key of a model", where, _Entry.model_fields) from None
            raise LinksimError(f"models: {where}: {first['msg'].lower()}") from None
        model = asked_model(
            entry.scheme, entry.channel, entry.rho, entry.size, entry.users, entry.csi, entry.power, entry.ablation,
            image_shape,
        )  # fmt: skip
        model.make_recipe(entry.recipe, entry.set, warm=False)
        options = ["--recipe", entry.recipe]
        if entry.warm is not None:
            options += ["--warm", entry.warm]
        options += [word for key, value in entry.set.items() for word in ("--set", f"{key}={value}")]
        if model.name in goals:
            raise LinksimError(f"models: {model.name} is there twice: take one away")
        goals[model.name] = Goal(model, entry.bar, entry.pairs, tuple(options))
    for goal in goals.values():
        for other in _needs(goal):
            if other not in goals and _installed(other) is None:
                raise LinksimError(f"models: {goal.model.name} needs {other}, which has no weights: add it to the list")
    return list(goals.values())


def _needs(goal: Goal) -> list[str]:
    """Names of the models that must have weights before this one is trained: its teacher, and what it starts as."""
    warm = dict(itertools.pairwise(goal.options)).get("--warm")
    found = [part.name for part in goal.model.parts.values()]
    if warm in (None, EMBEDDED) and goal.model.begins_as is not None:
        found.append(goal.model.begins_as.name)
    elif warm not in (None, EMBEDDED, FROM_SCRATCH, "auto"):
        found.append(warm)
    return found


def _installed(name: str) -> float | None:
    """Score of a model's weights; None where there are none."""
    card = weights.cards().get(name)
    return card["score"] if card is not None and weights.present(card) else None


def standing(goal: Goal, out: Path) -> Standing:
    """Where a model stands: what its weights score, or its own run in `out` where that is better."""
    score, pairs, ended = _installed(goal.model.name), 0, True
    folder = out / goal.model.name
    if (folder / CHECKPOINT).exists():
        content = load_checkpoint(folder / CHECKPOINT)
        state, ended = content["state"], content["state"]["step"] >= content["state"]["steps"]
        own = [run["pairs"] for run in state["lineage"] if run["model"] == goal.model.name]
        pairs = sum(own) + state["prepared"] + state["step"] * content["identity"]["recipe"]["batch"]
        score = max(state["best"], -math.inf if score is None else score)
    return Standing(score, pairs, ended)


def most_behind(goals: Iterable[Goal], standings: Mapping[Goal, Standing]) -> Goal | None:
    """The goal that is furthest behind its bar, of those whose bar is not met and whose needs have weights.

    A model without weights is behind all that have some; a run that was stopped half-way goes on first.
    """
    waiting: list[Goal] = []
    for goal in goals:
        found = standings[goal]
        met = found.score is not None and found.score >= goal.bar
        spent = goal.pairs is not None and found.pairs >= goal.pairs
        if found.ended and (met or spent):
            continue
        if all(_installed(name) is not None for name in _needs(goal)):
            waiting.append(goal)
    return max(waiting, key=lambda goal: _behind(goal, standings[goal]), default=None)


def _behind(goal: Goal, found: Standing) -> tuple[bool, float]:
    return not found.ended, math.inf if found.score is None else goal.bar - found.score


def run_campaign(goals: Sequence[Goal], out: Path, slice_words: Sequence[str], turns: Turns[T]) -> None:
    """Trains in turns until every bar is met, every model's pairs are spent, or none of what is left gets better.

    Args:
        goals: see `goals_of`.
        out: folder of the runs.
        slice_words: length of a turn: `--budget TIME` or `--steps N`.
        turns: what trains them.

    Raises:
        LinksimError: trainings failed; their own lines are above, and the others went on.
    """
    running: dict[Goal, T] = {}
    stood: Counter[Goal] = Counter()
    failed: list[Goal] = []
    now = {goal: standing(goal, out) for goal in goals}
    # At the beginning of a turn, which on a cluster is of several slices.
    before: dict[Goal, Standing] = {}
    # An exception while a process is started would leave it without a parent.
    with held():
        try:
            while True:
                stop_if_told()
                idle = [goal for goal in goals if goal not in running and goal not in failed and stood[goal] < _STANDS]
                while len(running) < turns.places and (goal := most_behind(idle, now)) is not None:
                    idle.remove(goal)
                    print(_words(goal, now[goal]), flush=True)
                    before.setdefault(goal, now[goal])
                    running[goal] = turns.begin(goal.model, _turn(goal, out, slice_words))
                if not running:
                    break
                time.sleep(_POLL_SECONDS)
                for goal, turn in list(running.items()):
                    if (code := turn.poll()) is None:
                        continue
                    del running[goal]
                    now[goal] = standing(goal, out)
                    if code:
                        failed.append(goal)
                    elif not turn.goes_on:
                        stood[goal] = stood[goal] + 1 if _stands(before.pop(goal), now[goal]) else 0
        finally:
            turns.stop(running.values())
    for goal in goals:
        print(_words(goal, now[goal]) + (", and stands there" if stood[goal] >= _STANDS else ""))
    if failed:
        raise LinksimError(f"{', '.join(goal.model.name for goal in failed)} failed (the lines are above)")


def _turn(goal: Goal, out: Path, slice_words: Sequence[str]) -> list[str]:
    """The command that begins a model's turn, or goes on with it."""
    folder = out / goal.model.name
    if not (folder / CHECKPOINT).exists() and not set_aside(folder):
        return [*goal.model.words, *goal.options, *slice_words]
    if not standing(goal, out).ended:
        return [*goal.model.words, "--resume"]
    kind, length = slice_words
    return [*goal.model.words, *(["--more", length] if kind == "--budget" else ["--more", *slice_words])]


def _stands(before: Standing, now: Standing) -> bool:
    """Whether a turn got a model nowhere, or as good as that."""
    return (now.score or 0.0) < (before.score or -math.inf) + _STANDS_DB


def _words(goal: Goal, found: Standing) -> str:
    score = "no weights" if found.score is None else f"{found.score:.2f} dB"
    return f"{goal.model.name}: {score}, bar {goal.bar:g} dB, {found.pairs} pairs of its own"
