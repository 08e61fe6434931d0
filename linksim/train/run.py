"""`linksim train`: from words on the command line to weights with a card."""

from __future__ import annotations

import itertools
import json
import platform
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from linksim.data.images import pixels
from linksim.data.training import CIFAR10, VALIDATED, TrainingSet
from linksim.devices import check_device, trains_in_bfloat16
from linksim.errors import LinksimError, NoWeights, WrongStart, chosen, shown
from linksim.files import digest, exclusive, remove_parts, write_atomic
from linksim.models import weights
from linksim.models.checkpoint import BEST, CHECKPOINT, State, damaged, load_checkpoint
from linksim.models.owner import EMBEDDED, FROM_SCRATCH, Model
from linksim.models.recipe import BaseRecipe, recipe_of
from linksim.models.spec import SCRATCH, ModelSpec, Spec, began_with, spec_from_json
from linksim.models.task import Task
from linksim.nets.network import Network
from linksim.train import loop
from linksim.train.models import model_of_card, nearest
from linksim.train.team import team_of
from linksim.version import code_version

#: Seconds of a run, at the most.
_MAX_BUDGET = 1e9

#: In a run's folder once it has ended: its trainings, as a card's lineage has them.
HISTORY = "history.json"

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def parse_budget(text: str, option: str = "--budget") -> float:
    """`40m`, `2h`, `90s` or seconds. Raises LinksimError, with the name of the option.

    Example:
        >>> parse_budget("2h")
        7200.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise LinksimError(f"{option} {shown(text)}: write a time like 40m, 2h or 90s")
    return min(float(match[1]) * _UNITS[match[2]], _MAX_BUDGET)


@dataclass(frozen=True)
class Start:
    """What a training begins with.

    Args:
        model: name of the model; empty from scratch.
        embedded: its users in separate channel uses become users that superpose.
        run: the folder of an ended run whose best weights it goes on from; else the model's weights as installed.
        aside: where that folder goes when the training begins; None where it lies there.
    """

    model: str = ""
    embedded: bool = False
    run: Path | None = None
    aside: Path | None = None

    def begun(self, moves: bool) -> Start:
        """The same, with the ended run set aside.

        Args:
            moves: whether this process does that.
        """
        if self.run is None:
            return self
        folder = self.aside or self.run
        if moves:
            if self.aside is not None:
                self.run.rename(folder)
            # It cannot be gone on with any more, and is the largest of its files.
            (folder / CHECKPOINT).unlink(missing_ok=True)
        return Start(self.model, self.embedded, folder)

    def load(self, model: Model) -> tuple[nn.Module | None, list[dict[str, Any]]]:
        """The network, None from scratch, and the trainings that made it, oldest first."""
        if self.run is not None:
            content = load_checkpoint(self.run / BEST)
            # As they are installed, so that a card's command makes the same.
            halves = {name: value.half() for name, value in content["model"].items()}
            network = weights.fitted(model, halves, str(self.run / BEST))
            try:
                lineage = json.loads((self.run / HISTORY).read_text(encoding="utf-8"))
                sum(run["pairs"] for run in lineage)
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise damaged(self.run / HISTORY, error, "take another --out") from None
            return network, lineage
        if not self.model:
            return None, []
        card = weights.cards()[self.model]
        # With its card, for a start needs no more: a refiner of the first stage's weights of before will do.
        return weights.load(model_of_card(card), card), weights.history(self.model, card)


def run_training(
    model: Model,
    recipe: BaseRecipe,
    load: Callable[[], TrainingSet],
    out: Path,
    *,
    start: Start,
    seconds: float | None,
    steps: int | None,
    seed: int,
    device: str,
    devices: int | None = None,
    replace: bool = False,
    report: Callable[[State, Mapping[str, float]], None] | None = None,
    preparing: Callable[[int, int], None] | None = None,
) -> tuple[list[Path], dict[str, Any]]:
    """Trains and installs; returns the weights' files and their card's facts.

    There are no files where better weights of the same model are there: those stay.

    Args:
        load: gives the images to train on; what is asked for otherwise is looked at before.
        start: of a new run, see `find_start`; a run that `out` holds goes on as it began.
        devices: that train together, a process each (`linksim.train.team`); None is `device` alone.
        replace: put these weights in the place of better ones.
        report, preparing: see `train`.

    Returns:
        files and facts; nothing where another process of the team tells them.

    Raises:
        LinksimError: no such device, no teacher, no first stage, no data, and what `train` raises.
    """
    spec = model.spec
    check_device(device)
    check_crop(model, recipe)
    check_shares(recipe, devices or 1)
    if not next(path for path in (out, *out.absolute().parents) if path.exists()).is_dir():
        raise LinksimError(f"--out {out}: a file is in the way: take another --out")
    if seconds is None and steps is None and (start.run is not None or not (out / CHECKPOINT).exists()):
        raise LinksimError("no budget given: --budget 40m, or --steps")
    parts = weights.part_hashes(model)
    team = team_of(device, devices)
    device = team.device
    with ExitStack() as ours:
        # What the first process prepares, the others find ready; where it cannot, none of them begins.
        images, failed = None, None
        try:
            if team.leads:
                images = _images(spec, load)
                weights.ready_to_install()
                out.parent.mkdir(parents=True, exist_ok=True)
                ours.enter_context(alone_in(out))
                _check_run(model, start, out, images)
        except LinksimError as error:
            failed = str(error)
        if failed := team.agreed(failed):
            raise LinksimError(failed)
        if images is None:
            images = load()
        start = start.begun(team.leads)
        team.wait()
        out.mkdir(parents=True, exist_ok=True)
        if team.leads:
            remove_parts(out)
        network, lineage = (None, []) if (out / CHECKPOINT).exists() else start.load(model)
        task = model.task(recipe, images, seed, device, network)
        task.embedded = start.embedded and network is not None
        task.parts = parts
        if not task.validated:
            raise LinksimError(
                f"{images.name} has {len(images.held_out)} images for validation: no group of users: give more"
            )
        try:
            state = loop.train(
                task, out, data=images.sha256, seconds=seconds, steps=steps, lineage=lineage,
                embedded=start.embedded, team=team,
                report=report if team.leads else None, preparing=preparing if team.leads else None,
            )  # fmt: skip
        except WrongStart as error:
            raise LinksimError(f"--warm {start.model}: {error}") from None
        except torch.OutOfMemoryError:
            raise LinksimError(
                f"{spec.name}: the GPU has no room for {recipe.batch} groups a step: take a smaller --set batch=... "
                "and another --out, or --device cpu"
            ) from None
        if not team.leads:
            return [], {}
        best = model.build()
        best.load_state_dict(task.shipped(load_checkpoint(out / BEST)["model"]))
        facts = facts_of(model, task, state, images, best, f"{team.size} x " if team.size > 1 else "")
        files = weights.files(model, best)
        made = {**facts, "files": {name: digest(data) for name, data in files.items()}}
        write_atomic(out / HISTORY, (json.dumps(weights.history(model.name, made), indent=1) + "\n").encode())
        there = weights.cards().get(model.name)
        if there is not None and weights.present(there) and not replace and _better(model, there, facts):
            return [], facts
        return weights.install(model, best, facts), facts


def facts_of(
    model: Model, task: Task, state: State, images: TrainingSet, network: nn.Module, together: str = ""
) -> dict[str, Any]:
    """What the card of a training that has ended tells.

    Args:
        model: what was trained.
        task: as it was trained.
        state: at the end.
        images: that it was trained on.
        network: with the weights that are kept.
        together: before the name of the device, where several shared each step: "2 x ".
    """
    recipe, device = task.recipe, task.device
    facts: dict[str, Any] = {
        "data": images.words.replace(VALIDATED, str(task.validated)),
        **({"dataset": images.name, "data_sha256": images.sha256} if images.name != CIFAR10 else {}),
        **({"validated_on": images.validation} if images.validation else {}),
        **({"citation": images.citation} if images.citation else {}),
        "recipe": recipe.words,
        "settings": task.settings(),
        "steps": state.step,
        "pairs": state.prepared + state.step * recipe.batch,
        "lineage": state.lineage,
        **({"embedded": True} if state.embedded else {}),
        "seed": task.seed,
        "parts": task.parts,
        "seconds": round(state.seconds),
        "precision": "bf16" if trains_in_bfloat16(device) else "float32",
        "device": together + _device_name(device),
        "validation": {name: round(value, 4) for name, value in state.validation.items()},
        **({"ema": state.ema} if len(task.decays) > 1 else {}),
        "score": round(state.best, 5),
        "code": code_version(),
        "golden_psnr_db": round(golden_psnr(model, network), 4),
        **task.measured(network, state.prepared + state.step * recipe.batch),
    }
    return {**facts, "command": model.command_of(facts)}


def _images(spec: Spec, load: Callable[[], TrainingSet]) -> TrainingSet:
    """The images to train on. Raises LinksimError where they are not those of the model."""
    images = load()
    if images.image_shape != spec.image_shape:
        raise LinksimError(
            f"{spec.name} is for images of {pixels(spec.image_shape)}, {images.name} has {pixels(images.image_shape)}"
        )
    return images


def _check_run(model: Model, start: Start, out: Path, images: TrainingSet) -> None:
    """Looks at the run that is gone on from, before anything is moved; for the process that is `alone_in` its folder.

    Raises:
        LinksimError: it is of other images, one of its files cannot be read, or another process has gone on with it.
    """
    if start.run is None:
        return
    if go_on_from(model, out)[0] != start:
        raise LinksimError(f"{out}: another process went on with the run meanwhile: run the same command again")
    known = load_checkpoint(start.run / BEST)["identity"].get("data", "")
    if known != images.sha256:
        raise LinksimError(
            f"--more: the run in {start.run} is of other images: start from its weights in another --out: "
            f"--warm {model.name}"
        )
    start.load(model)


def check_shares(recipe: BaseRecipe, devices: int) -> None:
    """Raises LinksimError for a batch that does not divide among devices and parts."""
    shares = devices * recipe.accumulate
    if recipe.batch % shares:
        raise LinksimError(
            f"a batch of {recipe.batch} does not divide among {devices} processes of {recipe.accumulate} parts: take "
            f"another --set batch, like {shares * max(1, recipe.batch // shares)}"
        )


def check_crop(model: Model, recipe: BaseRecipe) -> None:
    """Raises LinksimError for images, or parts of images, that the networks do not take."""
    colours, height, width = model.spec.image_shape
    if recipe.crop > min(height, width):
        raise LinksimError(
            f"--set crop={recipe.crop}: the images are {pixels(model.spec.image_shape)}: take a smaller one"
        )
    model.check_images(model.spec.image_shape)
    if recipe.crop:
        model.check_images((colours, recipe.crop, recipe.crop))


def _better(model: Model, there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether the weights that are there stay: they score higher, or are of other images, whose scores do not compare.

    Of other metrics, or behind other parts, they go; so do shipped ones of other images, which are not lost.
    """
    if there.get("data_sha256") != here.get("data_sha256"):
        return not weights.is_shipped(there)
    alike = there["validation"].keys() == here["validation"].keys()
    behind = isinstance(model.spec, ModelSpec) or there.get("parts") == here["parts"]
    return bool(alike and behind and there["score"] > here["score"])


def find_start(model: Model, warm: str | None, out: Path) -> Start:
    """What a training starts from, or what the run in `out` began with.

    Args:
        warm: name of a model, whose weights are adopted as far as they fit; "embedded": as users in separate channel
            uses; "auto": the `nearest` model; "none": from scratch. None is "embedded" for a model that has a source
            for it, and "none" for every other.
        out: folder of the run.

    Raises:
        LinksimError: no such model, or another start than that of the run in `out`.
    """
    if not (out / CHECKPOINT).exists():
        return _new_start(model, warm)
    state = load_checkpoint(out / CHECKPOINT)["state"]
    saved = Start(began_with(state), state["embedded"])
    if warm not in (None, "auto") and _new_start(model, warm) != saved:
        began = f"{saved.model}, {EMBEDDED}" if saved.embedded else saved.model or "scratch"
        raise LinksimError(f"--warm {shown(warm)}: the run in {out} began from {began}: take another --out")
    return saved


def _new_start(model: Model, warm: str | None) -> Start:
    spec, source = model.spec, model.begins_as
    if warm == FROM_SCRATCH or (warm is None and source is None):
        return Start()
    if not isinstance(spec, ModelSpec):
        others = {name: spec_from_json(card["model"]) for name, card in weights.cards().items()}
        fitting = [name for name, other in others.items() if model.owner.starts_from(other, spec)]
        return Start(chosen(fitting, str(warm), "model"))
    known = weights.transceivers()
    if warm in (None, EMBEDDED):
        if source is None:
            raise LinksimError(f"--warm {EMBEDDED}: {spec.name} has no orthogonal model to start as: leave it out")
        _check_embedding(model, source)
        if source.name not in known:
            raise NoWeights(
                f"{spec.name} starts as {source.name}, users in separate channel uses, which has no weights: start "
                f"without, --warm {FROM_SCRATCH}, or train it first",
                source,
            )
        return Start(source.name, embedded=True)
    if warm == "auto":
        if source is not None and source.name in known:
            return Start(source.name, embedded=True)
        return Start(nearest(spec) or "" if spec.ablation != SCRATCH else "")
    name = chosen([*known, EMBEDDED, "auto", FROM_SCRATCH], str(warm), "model")
    if spec.ablation == SCRATCH != known[name][0].ablation:
        raise LinksimError(f"--warm {name}: {SCRATCH} starts from nothing, or from a model that is {SCRATCH} too")
    return Start(name)


def _check_embedding(model: Model, source: Model) -> None:
    """Raises LinksimError where the maps do not divide among the users."""
    assert isinstance(model.spec, ModelSpec)
    try:
        network, orthogonal = model.build(), source.build()
        assert isinstance(network, Network)
        assert isinstance(orthogonal, Network)
        network.embed(orthogonal)
    except LinksimError as error:
        raise LinksimError(
            f"{model.name} cannot start as {model.spec.users} users in separate channel uses ({error}): take another "
            f"--rho or --users, or --warm {FROM_SCRATCH}"
        ) from None


def go_on_from(model: Model, out: Path) -> tuple[Start, BaseRecipe, int]:
    """What it takes to go on with a run after its end: from its best weights, by a schedule of its own.

    When the training begins, the ended run's folder is set aside as `MODEL.1`, `MODEL.2`, ..., with its best weights
    and logs.

    Args:
        model: of the run.
        out: its folder.

    Returns:
        Start and recipe of the training that goes on, and a seed by which it draws anew.

    Raises:
        LinksimError: there is no run, or it has not ended.
    """
    if (out / CHECKPOINT).exists():
        state = load_checkpoint(out / CHECKPOINT)["state"]
        if state["step"] < state["steps"] or not (out / HISTORY).exists():
            raise LinksimError(f"the run in {out} has not ended: --resume goes on with it")
        start = Start(model.name, run=out, aside=_aside(out, len(set_aside(out)) + 1))
    elif done := set_aside(out):
        start = Start(model.name, run=done[-1])
    else:
        raise LinksimError(f"{out} holds no run to go on with: leave --more out")
    assert start.run is not None
    identity = load_checkpoint(start.run / BEST)["identity"]
    return start, recipe_of(model.owner.recipe, identity["recipe"]), identity["seed"] + 1


def begun_with(model: Model, out: Path) -> tuple[BaseRecipe | None, int]:
    """Recipe and seed of the run that a folder holds; no recipe and seed 0 where it holds none."""
    if not (out / CHECKPOINT).exists():
        return None, 0
    identity = load_checkpoint(out / CHECKPOINT)["identity"]
    return recipe_of(model.owner.recipe, identity["recipe"]), identity["seed"]


def alone_in(out: Path) -> AbstractContextManager[None]:
    """Holds the folder of a run, and those beside it that it was set aside as.

    The lock lies beside the folder, which is moved. Raises LinksimError where another process works there.
    """
    return exclusive(out.with_name(f".{out.name}.lock"), out)


def _aside(out: Path, number: int) -> Path:
    return out.with_name(f"{out.name}.{number}")


def set_aside(out: Path) -> list[Path]:
    """Folders of the runs that others went on from, in order."""
    return list(itertools.takewhile(Path.exists, (_aside(out, number) for number in itertools.count(1))))


def golden_psnr(model: Model, network: nn.Module) -> float:
    """A PSNR in dB of a network's shipped, half-precision weights: what `linksim verify` measures again."""
    half = {name: value.to(torch.float16).float() for name, value in network.state_dict().items()}
    copy = model.build().eval()
    copy.load_state_dict(half)
    return model.golden_psnr(copy)


def verify(name: str) -> tuple[float, float]:
    """A card's golden PSNR and the PSNR that its weights give here. Raises LinksimError for damaged weights."""
    card = weights.cards()[name]
    model = model_of_card(card)
    # What was saved in half precision is what `golden_psnr` measured.
    return card["golden_psnr_db"], model.golden_psnr(weights.load(model))


def _device_name(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}, threads: {torch.get_num_threads()})"
