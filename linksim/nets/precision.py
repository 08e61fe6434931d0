"""The precision that networks are evaluated in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from linksim.link.config import Precision
from linksim.nets.depthwise import DepthwiseConv2d
from linksim.nets.layers import OutputLayer

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


def laid_out(network: AnyNetwork, device: str, precision: Precision = "float32") -> AnyNetwork:
    """A network of this package, or of diffusers, laid out for evaluation on `device`.

    Args:
        network: in float32.
        device: torch device.
        precision: "bf16": weights that autocast would round at every call are rounded once. The results are the same,
            bit for bit.

    Example:
        >>> laid_out(nn.Conv2d(3, 8, 1), "cpu", "bf16").weight.dtype
        torch.bfloat16
    """
    network = network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    if precision == "float32":
        return network
    exact = {part for module in network.modules() if isinstance(module, OutputLayer) for part in module}
    for module in network.modules():
        if (
            isinstance(module, nn.Linear | nn.Conv2d)
            and not isinstance(module, DepthwiseConv2d)
            and module not in exact
        ):
            module.to(torch.bfloat16)
    return network


@contextmanager
def evaluated_in(precision: Precision, device: str) -> Iterator[None]:
    """Evaluates networks in float32 whatever the device would rather round to, or in bfloat16 where it is asked for.

    Example:
        >>> with evaluated_in("bf16", "cpu"):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.bfloat16
    """
    kind = torch.device(device).type
    with torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16"):
        if kind != "cuda":
            yield
            return
        matrices = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                yield
        finally:
            torch.set_float32_matmul_precision(matrices)
