"""The training loop, top to bottom."""

from __future__ import annotations

import copy
import json
import math
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from linksim.engine.provenance import write_atomic
from linksim.errors import LinksimError
from linksim.link.channel import transmit_over, unit_noise
from linksim.link.fading import draw_coefficients
from linksim.link.units import noise_variance
from linksim.metrics import mse, psnr_from_mse
from linksim.nets.layers import Conditioned
from linksim.nets.network import Network, side_information
from linksim.nets.transceiver import Transceiver
from linksim.train.logs import Logs
from linksim.train.losses import feature_affinity_loss
from linksim.train.recipe import Recipe
from linksim.train.spec import ModelSpec

#: The training set's last images are for validation: 45,000 / 5,000 for CIFAR-10 (KDD paper, section VI-A).
VALIDATION = 5000
VALIDATION_SNRS_DB = (0.0, 10.0, 20.0)

CHECKPOINT, BEST, SETTINGS = "checkpoint.pt", "best.pt", "settings.json"
_VALIDATION_GROUPS = 256
_VALIDATION_SEED = 2**40
_CALIBRATION_STEPS = 12

#: A validation this far below the best, dB, is no noise.
_COLLAPSE_DB = 5.0

#: Steps of a run, at the most.
MAX_STEPS = 10**9
_LOG_STEPS = 50


@dataclass
class State:
    """What a checkpoint holds beside weights and optimiser.

    Args:
        step: steps done.
        steps: steps in all, fixed when the run begins.
        seconds: spent on steps so far.
        best: highest mean validation PSNR so far, dB.
        validation: PSNR in dB at each of VALIDATION_SNRS_DB, of the best weights.
        lineage_pairs: image groups that the weights this run began with had seen.
        start: name of the model that this run began with; none where it began from scratch.
    """

    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    validation: tuple[float, ...] = ()
    lineage_pairs: int = 0
    start: str = ""


@dataclass(frozen=True)
class Start:
    """A model to start warm from: its name, its network, and the image groups that it has seen."""

    name: str
    network: Network
    lineage_pairs: int


def train(
    spec: ModelSpec,
    recipe: Recipe,
    images: NDArray[np.uint8],
    folder: Path,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    compiled: bool | None = None,
    start: Start | None = None,
    teacher: Network | None = None,
    report: Callable[[State, Mapping[str, float]], None] | None = None,
) -> State:
    """Trains one model, or goes on with it, and leaves its best weights in `folder`.

    Args:
        spec: the model.
        recipe: how.
        images: the training split, uint8 [T, C, H, W]; its last VALIDATION images are for validation.
        folder: for `checkpoint.pt`, `best.pt`, `settings.json`, `train.csv`, `validation.csv` and TensorBoard's events;
            a checkpoint there is gone on with.
        seconds: time to spend on steps; it becomes a number of steps when the run begins, so that a run that was cut
            short and gone on with equals one that was not.
        steps: number of steps, in place of `seconds`; for a run that is gone on with, its new length.
        seed: of every draw.
        device: torch device.
        compiled: whether networks go through torch.compile; by default they do on a GPU (on a CPU it is slower).
        start: a model to start warm from; a run that is gone on with has had its start.
        teacher: for a scheme that has one, the frozen orthogonal model.
        report: called after every step with the state and the losses over the last steps, which are empty at first.

    Raises:
        LinksimError: no budget, no teacher where one is needed, a checkpoint of another run, or a loss that is not
            finite (the last good weights are kept).
    """
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    model = spec.build(recipe.layer_scale).to(device).to(memory_format=torch.channels_last)
    state = State()
    if start is not None:
        model.adopt(start.network.to(device))
        state.start, state.lineage_pairs = start.name, start.lineage_pairs
    if spec.teacher is not None and teacher is None:
        raise LinksimError(f"{spec.method} learns from a teacher: train it first: {spec.teacher.command}")
    if teacher is not None:
        teacher = teacher.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    if compiled if compiled is not None else device != "cpu":
        compile_networks(model, teacher)
    pool = torch.from_numpy(np.ascontiguousarray(images[: len(images) - VALIDATION])).to(device)
    held_out = images[len(images) - VALIDATION :]
    identity = _plain({"spec": spec.to_json(), "recipe": asdict(recipe), "seed": seed})
    checkpoint = folder / CHECKPOINT
    saved = load_checkpoint(checkpoint, device) if checkpoint.exists() else None
    if saved is not None and saved["identity"] != identity:
        raise LinksimError(f"{checkpoint} is of another run: take another --out")
    if saved is None and steps is None and seconds is None:
        raise LinksimError("no budget given: --budget 40m, or --steps")

    def new_optimizer() -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )

    def one_step(step: int) -> dict[str, Tensor]:
        """One step; nothing in it waits for a GPU."""
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step, max(state.steps, 1))
        model.train()
        batch = draw_batch(spec, recipe, pool, seed, step)
        with torch.autocast(pool.device.type, torch.bfloat16):
            losses = model_losses(spec, recipe, model, teacher, batch)
        optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        if recipe.clip:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        average.update(model, step)
        return {name: value.detach() for name, value in losses.items()}

    def stop_if_diverged(value: float) -> None:
        if not math.isfinite(value):
            raise LinksimError(
                f"the loss is not finite at step {state.step}: what was good before is kept in {folder}; take another "
                "--out and a lower learning rate"
            )

    def save() -> None:
        content = {
            "identity": identity,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average.state(),
            "state": _plain(asdict(state)),
        }
        save_atomic(checkpoint, content)

    def check() -> None:
        found = validate(spec, average.model(model), held_out, device)
        stop_if_diverged(sum(found.values()))
        logs.validation(state.step, found)
        mean = sum(found.values()) / len(found)
        if mean < state.best - _COLLAPSE_DB:
            raise LinksimError(
                f"training diverged: {mean:.1f} dB at step {state.step}, {state.best:.1f} dB before; the best weights "
                f"are kept in {folder}; take another --out and a lower learning rate"
            )
        if mean > state.best:
            state.best, state.validation = mean, tuple(found.values())
            best = {"identity": identity, "model": average.model(model).state_dict(), "state": _plain(asdict(state))}
            save_atomic(folder / BEST, best)
        save()

    optimizer, average = new_optimizer(), Average(model, recipe.ema)
    if saved is not None:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        average.load(saved["average"])
        state = State(**{**saved["state"], "validation": tuple(saved["state"]["validation"])})
        state.steps = max(steps or state.steps, state.step)
    else:
        write_atomic(folder / SETTINGS, (json.dumps(identity, indent=1) + "\n").encode())
        state.steps = steps or _steps_in(seconds or 0.0, one_step, model, device)
        optimizer, average = new_optimizer(), Average(model, recipe.ema)
        save()
    interval = max(1, min(500, state.steps // 10))
    window: list[dict[str, Tensor]] = []
    shown: dict[str, float] = {}
    clock = time.perf_counter()
    with Logs(folder, state.step) as logs:
        while state.step < state.steps:
            window.append(one_step(state.step))
            state.step += 1
            last = state.step % interval == 0 or state.step == state.steps
            if state.step % _LOG_STEPS == 0 or last:
                # Here alone the host waits for the device.
                shown = {name: float(torch.stack([row[name] for row in window]).mean()) for name in window[0]}
                stop_if_diverged(shown["total"])
                logs.losses(state.step, shown)
                window = []
                state.seconds, clock = state.seconds + time.perf_counter() - clock, time.perf_counter()
            if report is not None:
                report(state, shown)
            if last:
                check()
                clock = time.perf_counter()
    return state


@dataclass(frozen=True)
class Batch:
    """One step's draws: images [B, N, C, H, W] in [0, 1], gamma [B], h [B, N], unit noise of student and teacher."""

    images: Tensor
    snr_db: Tensor
    h: Tensor
    noise: Tensor
    teacher_noise: Tensor


def draw_batch(spec: ModelSpec, recipe: Recipe, pool: Tensor, seed: int, step: int) -> Batch:
    """The draws of a step, from (seed, step) alone; they seed dropout and stochastic depth too."""
    torch.manual_seed((seed << 32) + step)
    device, shape = pool.device, (recipe.batch, spec.users)
    images = pool[torch.randint(len(pool), shape, device=device)].float() / 255
    if recipe.flip:
        mirrored = torch.rand(*shape, 1, 1, 1, device=device) < 0.5
        images = torch.where(mirrored, images.flip(-1), images)
    low, high = recipe.snr_db
    snr_db = low + (high - low) * torch.rand(recipe.batch, device=device)
    h = torch.ones(shape, dtype=torch.complex64, device=device)
    if spec.channel != "awgn":
        h = torch.randn(shape, dtype=torch.complex64, device=device)
    noises = [
        torch.randn((recipe.batch, spec.symbols) if access == "noma" else (*shape, spec.symbols), dtype=torch.complex64,
                    device=device)
        for access in (spec.access, "oma")
    ]  # fmt: skip
    return Batch(images, snr_db, h, *noises)


def model_losses(
    spec: ModelSpec, recipe: Recipe, model: Network, teacher: Network | None, batch: Batch
) -> dict[str, Tensor]:
    """The losses of a batch: "mae" or "mse", with a teacher "fa" and "crosskd", and their "total" (eq. 17)."""
    side = side_information(batch.snr_db, batch.h, spec.side_dim)
    noise_var = 10 ** (-batch.snr_db / 10)
    symbols = model.encode(batch.images, side, spec.powers)
    received = transmit_over(spec.access, symbols, batch.h, batch.noise, noise_var)
    if teacher is None:
        fidelity = _fidelity(recipe, model.receive(received, side), batch.images)
        return {recipe.loss: fidelity, "total": fidelity}
    assert isinstance(model, Transceiver)
    assert isinstance(teacher, Transceiver)
    j = recipe.j(spec.channel)
    features = model.received_features(received)
    crossing = model.decode(features, side, 0, j + 1)
    fidelity = _fidelity(recipe, model.decode(crossing, side, j + 1).float(), batch.images)
    with torch.no_grad():
        teacher_symbols = teacher.encode(batch.images, side, (1.0,) * spec.users)
        heard = transmit_over("oma", teacher_symbols, batch.h, batch.teacher_noise, noise_var)
        teacher_features = teacher.received_features(heard)
        teacher_shown = teacher.decode(teacher_features, side).float()
    crossed = teacher.decode(crossing, side, j + 1).float()
    fa = feature_affinity_loss(features.flatten(0, 1), teacher_features.flatten(0, 1), recipe.fa_norm)
    cross = (crossed - teacher_shown).abs().mean()
    total = sum(weight * loss for weight, loss in zip(recipe.weights, (fidelity, fa, cross), strict=True))
    assert isinstance(total, Tensor)
    return {recipe.loss: fidelity, "fa": fa, "crosskd": cross, "total": total}


def _fidelity(recipe: Recipe, shown: Tensor, images: Tensor) -> Tensor:
    error = shown - images
    return error.abs().mean() if recipe.loss == "mae" else error.square().mean()


def validation_groups(spec: ModelSpec, images: int = VALIDATION) -> int:
    """Image groups that a validation is on."""
    return min(_VALIDATION_GROUPS, images // spec.users)


@torch.no_grad()
def validate(
    spec: ModelSpec,
    model: Network,
    images: NDArray[np.uint8],
    device: str,
    snrs_db: Sequence[float] = VALIDATION_SNRS_DB,
    exact: bool = False,
) -> dict[float, float]:
    """Mean per-image PSNR in dB at each SNR, on fixed groups, fading and noise; `exact` computes in float32."""
    model.eval()
    groups = validation_groups(spec, len(images))
    chosen = torch.tensor(images[: groups * spec.users]).unflatten(0, (spec.users, groups)).transpose(0, 1)
    h = torch.from_numpy(draw_coefficients(spec.link, _VALIDATION_SEED, range(groups))).to(device)
    noise = unit_noise(spec.access, spec.users, spec.symbols, _VALIDATION_SEED, range(groups)).to(device)
    found: dict[float, float] = {}
    for snr_db in snrs_db:
        values = []
        for part in torch.arange(groups).split(64):
            sent = chosen[part].to(device).float() / 255
            gamma = torch.full((len(part),), snr_db, device=device)
            side = side_information(gamma, h[part], spec.side_dim)
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=not exact):
                symbols = model.encode(sent, side, spec.powers)
                received = transmit_over(
                    spec.access, symbols, h[part], noise[part], torch.full_like(gamma, noise_variance(snr_db))
                )
                shown = model.receive(received, side).clamp(0, 1)
            values.append(psnr_from_mse(mse(sent.flatten(0, 1), shown.flatten(0, 1))))
        found[snr_db] = float(torch.cat(values).mean())
    return found


class Average:
    """Exponential moving average of a model's weights; with decay 0 the weights themselves.

    The decay rises to its value over the first steps, so that the start is forgotten.
    """

    def __init__(self, model: Network, decay: float) -> None:
        self._decay = decay
        self._values = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self._spare: Network | None = None

    @torch.no_grad()
    def update(self, model: Network, step: int) -> None:
        """Takes the model's weights after `step` into the average."""
        decay = min(self._decay, (1 + step) / (10 + step)) if self._decay else 0.0
        values = model.state_dict()
        torch._foreach_lerp_(list(self._values.values()), [values[name] for name in self._values], 1 - decay)

    def model(self, like: Network) -> Network:
        """A model with the averaged weights."""
        if self._spare is None:
            self._spare = copy.deepcopy(like)
        self._spare.load_state_dict(self._values)
        return self._spare

    def state(self) -> dict[str, Tensor]:
        """The averaged weights."""
        return self._values

    def load(self, values: dict[str, Tensor]) -> None:
        """Takes averaged weights from a checkpoint."""
        for name, value in values.items():
            self._values[name].copy_(value)


def compile_networks(*networks: Network | None, backend: str = "inductor") -> None:
    """Has the rows of layers compiled, which is all of a network but its complex-valued ends."""
    for network in networks:
        for module in network.modules() if network is not None else ():
            if isinstance(module, Conditioned):
                module.compile(dynamic=False, backend=backend)


def _steps_in(seconds: float, one_step: Callable[[int], object], model: Network, device: str) -> int:
    """Steps that fit into `seconds`, by the speed of a few steps, which are taken back."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    times: list[float] = []
    for step in range(_CALIBRATION_STEPS):
        begin = time.perf_counter()
        one_step(step)
        if device != "cpu":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
        # A short budget is not spent on finding out what fits into it.
        if len(times) >= 3 and sum(times) > seconds / 10:
            break
    model.load_state_dict(before)
    steps = int(min(seconds / float(np.median(times)), MAX_STEPS))
    if steps < 1:
        raise LinksimError(f"a budget of {seconds:g} s is too short for one step: {np.median(times):.2f} s at least")
    return steps


def load_checkpoint(path: Path, device: str = "cpu") -> dict[str, Any]:
    """What `save_atomic` wrote. Raises LinksimError for a file that it did not write."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        missing = {"identity", "model", "state"} - set(content)
        if missing:
            raise ValueError(f"no {min(missing)} in it")
        State(**content["state"])
    except FileNotFoundError:
        raise LinksimError(f"{path} is gone: train again into another --out") from None
    except OSError:
        raise
    except (RuntimeError, EOFError, ValueError, TypeError, KeyError, pickle.UnpicklingError) as error:
        said = " ".join(str(error).split())[:80]
        raise LinksimError(f"{path} is damaged ({said}): take it away, or take another --out") from None
    return dict(content)


def save_atomic(path: Path, content: dict[str, Any]) -> None:
    """`torch.save` that never leaves half a file. Raises OSError (a full disk)."""
    buffer = BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def _plain(value: Any) -> Any:
    """Tuples as lists, as a checkpoint or a JSON file gives them back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
