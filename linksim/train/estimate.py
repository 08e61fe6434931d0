"""What a training costs, before it is begun: one step on tensors that have shapes and no values, counted.

Nothing is read, computed or written, and nothing need be there: no images, no weights, no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count, flop_registry

from linksim import assets
from linksim.data.training import training_set_of
from linksim.errors import LinksimError, said
from linksim.models.owner import FROM_SCRATCH, Model
from linksim.models.recipe import BaseRecipe
from linksim.models.task import Share, Task
from linksim.nets.optimizers import matrices
from linksim.train.run import check_crop, check_shares

#: Peak of GPUs in bfloat16, dense, with sums in float32 (NVIDIA's data sheets), in FLOP/s.
GPUS = {"RTX 4090": 165e12, "A100": 312e12, "H100": 989e12}

#: FLOP/s of one CPU core in training: SemNOMA for 32x32 images reached 28e9 in float32 on AVX2, 54e9 to 58e9 in
#: bfloat16 where a core computes in it natively; DeepJSCC-NOMA, wide convolutions alone, up to 190e9.
CORE, CORE_FLOPS = "CPU core", 50e9

#: Share of the peak that a training is taken to reach: thirteen of 32x32 images, side by side on an H200, reached 1.9%.
#: Their layers move bytes more than they multiply. Larger images were not measured.
UTILISATION = 0.02

#: Seconds of a step at the least: kernels by the thousand, forward, backward and in the optimiser, begun one by one.
LAUNCHES_S = 0.01

#: Bytes that a GPU holds before anything of the training is there.
_CONTEXT = 2**30

#: Bytes of a value of weights, gradients and averages.
_FLOAT32 = 4

#: Of what a step keeps in float32: on a GPU most of it is in bfloat16, and layers that are compiled keep less.
_HALF = 0.5

#: The device of tensors without values.
_NOWHERE = "meta"


@dataclass(frozen=True)
class Cost:
    """What a training costs.

    Args:
        batch: image groups (a prior's images) a step.
        parameters: values that are trained.
        flops: operations of a step: of matrix products and convolutions, forward and backward, of the whole batch.
        memory: bytes on each GPU.
        devices: that share a step.
    """

    batch: int
    parameters: int
    flops: float
    memory: float
    devices: int = 1

    def seconds(self, device: str) -> float:
        """Seconds of a step on one of `GPUS` or a `CORE` of a CPU, or on `devices` of them together.

        Example:
            >>> cost = Cost(32, 10**6, 6.24e12, 2e9)
            >>> cost.seconds("A100"), cost.seconds("CPU core")
            (1.0, 124.8)
        """
        if device == CORE:
            return self.flops / (CORE_FLOPS * self.devices)
        return max(self.flops / (GPUS[device] * UTILISATION * self.devices), LAUNCHES_S)


def cost_of(model: Model, recipe: BaseRecipe, devices: int = 1) -> Cost:
    """What a training costs; its steps alone, without validation and what comes before the first step.

    Args:
        model: what is trained; neither its weights nor those of its parts need be there.
        recipe: of the model's own kind.
        devices: GPUs that train it together.

    Raises:
        LinksimError: networks or a recipe that do not fit, or a step that cannot be followed without values.

    Example:
        >>> from linksim.train.models import asked_model
        >>> model = asked_model("semoma", "awgn", "1/6", "compact", 2, None, "sum")
        >>> cost = cost_of(model, model.make_recipe("fast", {}, warm=False))
        >>> cost.batch, round(cost.parameters / 1e6, 1)
        (8, 2.0)
    """
    check_crop(model, recipe)
    check_shares(recipe, devices)
    shares = recipe.accumulate * devices
    recipe = _without_assets(recipe)
    noise = np.random.default_rng(0).integers(0, 256, (2, *model.spec.image_shape), np.uint8)
    with torch.random.fork_rng(devices=[]), _unfilled(), _Counter():
        frozen = {name: part.build() for name, part in model.parts.items()}
        task = model.task(recipe, training_set_of(noise, 1), 0, _NOWHERE, None, frozen)
        network = task.network().to(_NOWHERE)
    task.share = Share(0, shares)
    flops, saved = count(task, network)
    parameters = _values(network.parameters())
    # Weights, gradients, the moving averages, and AdamW's two moments; Muon has one.
    moments = 2 * parameters - (_values(matrices(network)) if recipe.optimizer == "muon" else 0)
    held = (2 + len(task.decays)) * parameters + moments + sum(_values(module.parameters()) for module in _frozen(task))
    return Cost(recipe.batch, parameters, flops * shares, held * _FLOAT32 + saved * _HALF + _CONTEXT, devices)


def starts_warm(model: Model, warm: str | None) -> bool:
    """Whether a training starts from other weights, as far as `--warm` tells; its recipe goes by that."""
    return warm != FROM_SCRATCH and (warm is not None or model.begins_as is not None)


def count(task: Task, network: nn.Module) -> tuple[float, float]:
    """Follows one step of a task, its share of the batch, forward and backward.

    Args:
        task: on the device "meta".
        network: as it gives it, on that device.

    Returns:
        operations of matrix products and convolutions, and the bytes of what the forward pass keeps for the backward
        pass in float32, weights apart.

    Raises:
        LinksimError: a step that goes by values.
    """
    network.train()
    weights = {_place(value) for module in (network, *_frozen(task)) for value in module.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (place := _place(tensor)) not in weights:
            kept[place] = tensor.untyped_storage().nbytes()
        return tensor

    try:
        with _without_autocast(), _Counter() as counter:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                total = task.losses(network)["total"]
            total.backward()
    except LinksimError:
        raise
    except Exception as error:
        raise LinksimError(f"its step cannot be followed without values: {said(error)}") from error
    return counter.flops, float(sum(kept.values()))


class _Counter(TorchDispatchMode):
    """Counts operations, and answers with one where a step asks for a value."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0.0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten._local_scalar_dense.default:
            return torch.ones((), dtype=args[0].dtype).item()
        if function is torch.ops.aten.copy_.default and args[1].is_meta and not args[0].is_meta:
            return args[0]  # a network that starts as a frozen one
        found = function(*args, **(kwargs or {}))
        if (formula := _FORMULAS.get(function.overloadpacket)) is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=found)
        return found


def _convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int, mask: tuple[bool, bool, bool], **rest: Any,
) -> int:  # fmt: skip
    """Each gradient takes what the convolution took; PyTorch's own formula forgets the groups."""
    once = conv_flop_count(list(x.shape), list(weight.shape), list(gradient.shape), transposed)
    return sum(mask[:2]) * once


_FORMULAS: Mapping[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten.convolution_backward: _convolution_backward,
}


def _without_assets(recipe: BaseRecipe) -> BaseRecipe:
    """A recipe that needs no asset: LPIPS over AlexNet where VGG16 is not there."""
    if getattr(recipe, "lpips", None) != "vgg":
        return recipe
    try:
        assets.load_weights("vgg16")
    except LinksimError:
        return replace(recipe, lpips="alex")  # type: ignore[call-arg]
    return recipe


def _frozen(task: Task) -> Iterator[nn.Module]:
    """The networks that a task works with and does not train."""
    waiting, seen = list(vars(task).values()), set[int]()
    for value in waiting:
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            yield value
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif not isinstance(value, type) and type(value).__module__.startswith("linksim."):
            waiting += getattr(value, "__dict__", {}).values()


def _values(tensors: Iterator[nn.Parameter]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _place(tensor: Tensor) -> int:
    """Equal for tensors that share their memory."""
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def _replaced(place: Any, functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Has functions of a module of PyTorch be others for a while."""
    before = {name: getattr(place, name) for name in functions}
    for name, function in functions.items():
        setattr(place, name, function)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(place, name, function)


def _unfilled() -> AbstractContextManager[None]:
    """Has networks built without the random numbers of their weights, which take most of the time."""
    drawn = [name for name in dir(nn.init) if name.endswith(("normal_", "uniform_"))]
    return _replaced(nn.init, dict.fromkeys(drawn, lambda tensor, *args, **kwargs: tensor))


def _without_autocast() -> AbstractContextManager[None]:
    """Autocast knows no tensors without values."""
    autocast: Any = torch.autocast

    def asked(kind: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if kind == _NOWHERE else autocast(kind, *args, **kwargs)

    return _replaced(torch, {"autocast": asked})
