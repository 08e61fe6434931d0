"""Optimisers of the training loop: AdamW, and Muon for the matrices with AdamW for the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from linksim.devices import trains_in_bfloat16

Name = Literal["adamw", "muon"]

#: Sides of a matrix that Muon takes, at the least: below, there is little to orthogonalise.
_LEAST_SIDE = 16

#: Of one Newton-Schulz step, X <- a X + (b A + c A^2) X with A = X X^T.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_MOMENTUM = 0.95

#: Root mean square of an update beside AdamW's, so that both take the same rate (Liu et al., 2025).
_UPDATE_RMS = 0.2


class Optimizer:
    """The optimiser of a model: AdamW for all of it, or Muon for its matrices and AdamW for the rest.

    Args:
        model: what is trained.
        name: "adamw", or "muon" (Jordan et al., 2024): of every `matrices` the momentum is made orthogonal before it
            is taken as the update.
        learning_rate, weight_decay: of both.

    Example:
        >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 3))
        >>> optimizer = Optimizer(model, "muon", learning_rate=2e-3, weight_decay=1e-4)
        >>> model(torch.ones(4, 16)).square().mean().backward()
        >>> optimizer.step()
    """

    def __init__(self, model: nn.Module, name: Name, learning_rate: float, weight_decay: float) -> None:
        chosen = list(matrices(model)) if name == "muon" else []
        taken = set(map(id, chosen))
        rest = [parameter for parameter in model.parameters() if id(parameter) not in taken]
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=learning_rate, weight_decay=weight_decay, fused=True)
        ]
        if chosen:
            self._parts.append(Muon(chosen, learning_rate, weight_decay))

    def step(self, rate: float | None = None) -> None:
        """One step along the gradients; `rate` is the learning rate from now on."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = group["lr"] if rate is None else rate
            part.step()

    def zero_grad(self) -> None:
        """Drops the gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {str(number): part.state_dict() for number, part in enumerate(self._parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave. Raises KeyError or ValueError for the state of another optimiser."""
        for number, part in enumerate(self._parts):
            part.load_state_dict(state[str(number)])


def matrices(model: nn.Module) -> Iterator[nn.Parameter]:
    """The weights that Muon takes: of linear layers and of convolutions, the latter as [outputs, all the rest].

    Left out are depthwise convolutions, layers with fewer than 16 inputs or outputs (those at the image and at a narrow
    channel), and whatever a module marks with `by_adamw = True`: layers on side information, whose inputs are a few
    numbers.

    Example:
        >>> [tuple(weight.shape) for weight in matrices(nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3)))]
        [(32, 16, 3, 3)]
    """
    if getattr(model, "by_adamw", False):
        return
    sides: tuple[int, ...] = (0,)
    if isinstance(model, nn.Linear):
        sides = model.in_features, model.out_features
    elif isinstance(model, nn.Conv2d) and model.groups == 1:
        sides = model.in_channels, model.out_channels
    if min(sides) >= _LEAST_SIDE:
        yield model.get_parameter("weight")
    for child in model.children():
        yield from matrices(child)


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, for matrices and for convolutions seen as matrices.

    The same update as `torch.optim.Muon`, which takes no convolutions and computes in bfloat16 everywhere. Here
    matrices of one shape are orthogonalised as one batch, in bfloat16 where the device computes in it natively: a CPU
    that does takes a third of the time, one that does not thirty times as long.

    Args:
        parameters: tensors of two dimensions and more; the first is the outputs'.
        learning_rate, weight_decay: with updates scaled to the size of AdamW's, so that AdamW's rates fit.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": learning_rate, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step along the gradients."""
        for group in self.param_groups:
            rate, taken = group["lr"], [parameter for parameter in group["params"] if parameter.grad is not None]
            if not taken:
                continue
            # Lists at once: on a GPU the launch of a kernel for each matrix takes longer than what it computes.
            gradients = [parameter.grad.flatten(1) for parameter in taken]
            momenta = [self._momentum(*pair) for pair in zip(taken, gradients, strict=True)]
            torch._foreach_lerp_(momenta, gradients, 1 - _MOMENTUM)
            updates = torch._foreach_lerp(gradients, momenta, _MOMENTUM)
            torch._foreach_mul_(taken, 1 - rate * group["weight_decay"])
            alike: dict[tuple[int, ...], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for parameter, update in zip(taken, updates, strict=True):
                wide = update if update.shape[0] <= update.shape[1] else update.T
                alike[tuple(wide.shape)].append((parameter, wide))
            for shape, rows in alike.items():
                found = orthogonalised(torch.stack([update for _, update in rows]))
                parameters: list[Tensor] = [parameter for parameter, _ in rows]
                turned = [
                    (update if len(parameter) == shape[0] else update.T).reshape(parameter.shape)
                    for parameter, update in zip(parameters, found, strict=True)
                ]
                torch._foreach_add_(parameters, turned, alpha=-rate * _UPDATE_RMS * shape[1] ** 0.5)

    def _momentum(self, parameter: nn.Parameter, gradient: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        found: Tensor = state["momentum"]
        return found


def orthogonalised(matrices: Tensor) -> Tensor:
    """Wide matrices [n, rows, columns] with singular values near one, by five Newton-Schulz steps.

    Example:
        >>> found = orthogonalised(torch.randn(1, 16, 32, generator=torch.manual_seed(0)))
        >>> bool(torch.linalg.svdvals(found).sub(1).abs().max() < 0.4)
        True
    """
    a, b, c = _NEWTON_SCHULZ
    kept = matrices.dtype
    x = matrices.to(torch.bfloat16) if trains_in_bfloat16(matrices.device.type) else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.to(kept)
