"""Speed of training and of evaluation beside the plain loop: `python benchmarks/train.py [--device cuda]`.

Plain is what one writes first: the same modules with the library's depthwise convolution, float32, eager, batch 32, no
channels-last, AdamW unfused. Both take turns, and each row gives the median. Beside the ratio stands the share of the
measured peak of a matrix product, in bfloat16 for training and in float32 for evaluation, and the ratio that a network
would have which did nothing but matrix products at that peak: no rearrangement of the same arithmetic can pass it.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from linksim.data.training import training_set_of
from linksim.models.batch import Transmission
from linksim.models.fidelity import fidelity
from linksim.models.pool import Pool
from linksim.models.spec import ModelSpec
from linksim.nets.depthwise import DepthwiseConv2d
from linksim.nets.network import Network
from linksim.nets.precision import laid_out
from linksim.schemes.learned import EVALUATED_TOGETHER, Learned
from linksim.schemes.semnoma.network import Transceiver
from linksim.schemes.semnoma.recipe import RECIPES
from linksim.schemes.semnoma.training import taught_losses
from linksim.schemes.training import compile_networks
from linksim.train.loop import averaged
from linksim.train.models import asked_model

PLAIN_BATCH = 32


def plain(network: Network) -> Network:
    """The same network without what linksim does for speed."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, DepthwiseConv2d):
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
    return network.to(memory_format=torch.contiguous_format)


def seconds(calls: list[Callable[[], object]], device: str, rounds: int) -> list[float]:
    """Median seconds of each of `calls`, which take turns."""
    spent: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds + 2):
        for call, times in zip(calls, spent, strict=True):
            begin = time.perf_counter()
            call()
            if device != "cpu":
                torch.cuda.synchronize()
            if turn >= 2:
                times.append(time.perf_counter() - begin)
    return [median(times) for times in spent]


def matrix_peak(dtype: torch.dtype, device: str) -> float:
    """FLOP/s of a large matrix product."""
    side = 1024 if device == "cpu" else 8192
    matrix = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / seconds([lambda: matrix @ matrix], device, 9)[0]


def training_step(
    sends: Transmission, network: Network, teacher: Network | None, batch: int, fast: bool, pool: Pool
) -> Callable[[], object]:
    """One step of the loop, or of the plain loop."""
    recipe = replace(RECIPES["adamw"], batch=batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=fast)
    average = averaged(network, recipe.ema)
    step = 0

    def run() -> None:
        nonlocal step
        step += 1
        network.train()
        torch.manual_seed(step)
        with torch.autocast(torch.device(pool.device).type, torch.bfloat16, enabled=fast):
            drawn = sends.draw(recipe, pool)
            if isinstance(network, Transceiver) and isinstance(teacher, Transceiver):
                loss = taught_losses(sends, recipe, network, teacher, drawn)["total"]
            else:
                loss = fidelity(recipe.loss, sends.images(network, drawn), drawn.images)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
        optimizer.step()
        average.update_parameters(network)

    return run


def evaluation(sends: Transmission, network: Network, batch: int, pool: Pool) -> Callable[[], object]:
    """Transmitter, channel and receiver on one batch."""
    torch.manual_seed(0)
    drawn = sends.draw(replace(RECIPES["adamw"], batch=batch), pool)

    def run() -> object:
        with torch.inference_mode():
            return sends.images(network, drawn)

    return run


def flops(call: Callable[[], object]) -> float:
    """Floating-point operations of the matrix products and convolutions of one call.

    On a CPU the depthwise weight gradients, 4% of a step, are not counted; what torch counts for its own is as if they
    were dense.
    """
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", default="compact")
    parser.add_argument("--batch", type=int, default=RECIPES["adamw"].batch, help="of training")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    device = options.device
    torch.set_num_threads(1)
    peaks = {dtype: matrix_peak(dtype, device) for dtype in (torch.float32, torch.bfloat16)}
    name = torch.cuda.get_device_name() if device != "cpu" else "one CPU thread"
    print(f"{name}: matrix products " + ", ".join(f"{d}: {p / 1e9:.0f} GFLOP/s" for d, p in peaks.items()))
    print(f"{'':46}{'batch':>6}{'pairs/s':>9}{'plain':>8}{'ratio':>7}{'of peak':>9}{'bound':>7}")
    pixels = np.random.default_rng(0).integers(0, 256, (4100, 3, 32, 32), np.uint8)
    pool = Pool(training_set_of(pixels, 4), device)
    for words in (("semoma", "awgn", "2/3"), ("semnoma", "awgn", "1/6"), ("kd", "awgn", "1/6"),
                  ("deepjscc-noma", "awgn", "1/6")):  # fmt: skip
        model = asked_model(*words, options.size, 2, None, "sum")
        scheme, spec = model.owner, model.spec
        assert issubclass(scheme, Learned)
        assert isinstance(spec, ModelSpec)
        sends = scheme.transmission(spec)
        slow = plain(scheme.network(spec)).to(device)
        fast = scheme.network(spec).to(device).to(memory_format=torch.channels_last)
        evaluated = laid_out(copy.deepcopy(fast), device)
        taught_by = model.parts.get("teacher")
        teacher = taught_by.build().to(device).requires_grad_(False).eval() if taught_by is not None else None
        assert teacher is None or isinstance(teacher, Network)
        slow_teacher = plain(teacher) if teacher is not None else None
        if teacher is not None:
            teacher = teacher.to(memory_format=torch.channels_last)
        if device != "cpu":
            torch._dynamo.reset()
            compile_networks(fast, *([teacher] if teacher is not None else []))
        steps = [
            training_step(sends, slow, slow_teacher, PLAIN_BATCH, False, pool),
            training_step(sends, fast, teacher, options.batch, True, pool),
        ]
        work = flops(steps[1]) / options.batch
        _row("train", spec, options.batch, seconds(steps, device, options.rounds), work, peaks[torch.bfloat16])
        batch = EVALUATED_TOGETHER if device == "cpu" else 64
        runs = [
            evaluation(sends, slow.eval(), PLAIN_BATCH, pool),
            evaluation(sends, evaluated, batch, pool),
        ]
        work = flops(runs[0]) / PLAIN_BATCH
        _row("evaluate", spec, batch, seconds(runs, device, 2 * options.rounds), work, peaks[torch.float32])


def _row(what: str, spec: ModelSpec, batch: int, spent: list[float], work: float, peak: float) -> None:
    slow, fast = PLAIN_BATCH / spent[0], batch / spent[1]
    print(
        f"{what:9}{spec.name[:36]:37}{batch:6}{fast:9.0f}{slow:8.0f}{fast / slow:7.2f}{fast * work / peak:9.0%}"
        f"{peak / work / slow:7.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
