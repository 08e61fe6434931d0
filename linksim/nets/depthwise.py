"""A depthwise convolution whose training step is fast on a CPU.

Half of a ConvNeXt's training step on a CPU goes into the weight gradient of its 7x7 depthwise convolutions, which the
library computes at a tenth of the machine's rate. Here the forward pass is the library's; the input gradient is the
same convolution with the kernel flipped; the weight gradient is a loop over channels-last memory, channels innermost.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


@functools.cache
def _weight_gradient() -> Callable[[np.ndarray, np.ndarray, np.ndarray], None]:
    import numba

    @numba.njit(fastmath=True, nogil=True, cache=True)
    def accumulate(padded: np.ndarray, gradient: np.ndarray, out: np.ndarray) -> None:
        """out[i, j, c] += sum over b, y, x of padded[b, y + i, x + j, c] * gradient[b, y, x, c]."""
        batch, height, width, channels = gradient.shape
        side = out.shape[0]
        for b in range(batch):
            for y in range(height):
                for i in range(side):
                    for j in range(side):
                        row = out[i, j]
                        for x in range(width):
                            image = padded[b, y + i, x + j]
                            grad = gradient[b, y, x]
                            for c in range(channels):
                                row[c] += image[c] * grad[c]

    return accumulate


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return functional.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=weight.shape[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        channels, _, side, _ = weight.shape
        pad = side // 2
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        to_input = functional.conv2d(gradient, weight.flip(-1, -2), padding=pad, groups=channels)
        padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, pad, pad, pad, pad)).contiguous()
        sums = np.zeros((side, side, channels), np.float32)
        _weight_gradient()(padded.numpy(), gradient.permute(0, 2, 3, 1).numpy(), sums)
        to_weight = torch.from_numpy(sums).permute(2, 0, 1)[:, None]
        return to_input, to_weight.contiguous(), gradient.sum(dim=(0, 2, 3))


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution with an odd kernel and "same" padding; float32 on a CPU even under bfloat16 autocast.

    Args:
        channels: C.
        kernel_size: side of the kernel, odd.
    """

    def __init__(self, channels: int, kernel_size: int = 7) -> None:
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C, H, W]."""
        if x.device.type != "cpu":
            return super().forward(x)
        assert self.bias is not None
        with torch.autocast("cpu", enabled=False):
            x = x.float()
            if torch.is_grad_enabled() and self.weight.requires_grad:
                x = x.contiguous(memory_format=torch.channels_last)
                found: Tensor = _Depthwise.apply(x, self.weight, self.bias)
                return found
            return functional.conv2d(x, self.weight, self.bias, padding=self.padding, groups=self.groups)
