"""What trainings cost, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from linksim.errors import LinksimError
from linksim.models.owner import Model
from linksim.train.estimate import CORE, CORE_FLOPS, GPUS, LAUNCHES_S, UTILISATION, Cost, cost_of, starts_warm

#: Steps that are told of where neither steps nor a time are asked for.
STEPS = 10_000

_DEVICES = (CORE, *GPUS)


def cost_lines(
    models: Sequence[Model], recipe: str, changes: Mapping[str, str], warm: str | None = None, devices: int = 1,
    steps: int | None = None, seconds: float | None = None,
) -> Iterator[str]:  # fmt: skip
    """A table of models and devices, line by line as it is found, and what it is of.

    A model whose cost cannot be told is named with the reason.

    Args:
        models: those to train.
        recipe, changes, warm, devices, steps: as `linksim train` takes them.
        seconds: time for each model; without steps, those that fit into it are told.

    Raises:
        LinksimError: the cost of no model can be told.
    """
    fitting = seconds if steps is None else None
    steps = steps or STEPS
    width = max(map(len, [_all(len(models)), *(model.name for model in models)]))
    yield _line(width, "model", ["parameters", "batch", "TFLOP/step", "GPU memory", *_DEVICES])
    done: list[Cost] = []
    failed = ""
    for model in models:
        try:
            cost = cost_of(model, model.make_recipe(recipe, changes, starts_warm(model, warm)), devices)
        except LinksimError as error:
            failed = f"{model.name}: no estimate: {error}"
            yield failed
            continue
        done.append(cost)
        what = [f"{cost.parameters / 1e6:.2f} M", f"{cost.batch}", _number(cost.flops / 1e12)]
        what.append(f"{cost.memory / 2**30:.1f} GiB")
        yield _line(width, model.name, [*what, *(_told(cost, device, steps, fitting) for device in _DEVICES)])
    if not done:
        raise LinksimError(failed)
    hours = {device: sum(cost.seconds(device) for cost in done) * steps / 3600 for device in _DEVICES}
    if fitting:
        hours = dict.fromkeys(_DEVICES, len(done) * fitting / 3600)
    parameters = f"{sum(cost.parameters for cost in done) / 1e6:.2f} M"
    if len(models) > 1:
        yield _line(width, _all(len(done)), [parameters, "", "", "", *map(_hours, hours.values())])
    peaks = ", ".join(f"{gpu} {peak / 1e12:g}" for gpu, peak in GPUS.items())
    told = f"steps in {_hours(fitting / 3600)}" if fitting else f"time for {steps:,} steps"
    yield (
        f"{told} a model{f' on {devices} together' if devices > 1 else ''}, an estimate: a core is taken to do "
        f"{CORE_FLOPS / 1e9:g} GFLOP/s, a GPU {UTILISATION:.0%} of its dense bf16 peak ({peaks} TFLOP/s), both as "
        "measured on 32x32 images"
    )
    yield (
        f"{1000 * LAUNCHES_S:.0f} ms a step of a GPU at the least, for the launch of kernels; left out: validation, "
        "the reading of images, and the embedding before the first step (embed_steps, the encoder alone); memory falls "
        "with --set accumulate=N"
    )


def _all(count: int) -> str:
    return f"all {count} models"


def _line(width: int, name: str, cells: Sequence[str]) -> str:
    return "  ".join([f"{name:{width}}", *(f"{cell:>10}" for cell in cells)])


def _told(cost: Cost, device: str, steps: int, seconds: float | None) -> str:
    if seconds is not None:
        return f"{int(seconds / cost.seconds(device)):,}"
    return _hours(steps * cost.seconds(device) / 3600)


def _hours(value: float) -> str:
    """Hours, or minutes where they are few.

    Example:
        >>> _hours(123.4), _hours(1.5), _hours(0.03)
        ('123 h', '1.50 h', '2 min')
    """
    if value < 1:
        return f"{max(1, round(60 * value))} min"
    return f"{value:,.0f} h" if value >= 100 else f"{value:.2f} h"


def _number(value: float) -> str:
    """Three digits that count.

    Example:
        >>> _number(1234.5), _number(12.345), _number(0.012345)
        ('1,234', '12.3', '0.0123')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
