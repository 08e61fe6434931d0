"""Losses of the KDD paper, section IV."""

from __future__ import annotations

import torch
from torch import Tensor

from linksim.schemes.semnoma.recipe import FaNorm

#: What the released code divides eq. 14's mean by, whatever the size of the features.
_RELEASED_DIVISOR = 256.0**2


def affinity(features: Tensor) -> Tensor:
    """Feature affinity (eq. 13), [B, HW, HW]: A = F^T F, F the features [B, C, H, W] with columns of unit norm."""
    # Autocast would leave three digits of a difference that is small.
    with torch.autocast(features.device.type, enabled=False):
        columns = torch.nn.functional.normalize(features.float().flatten(2), dim=1)
        return columns.transpose(1, 2) @ columns


def feature_affinity_loss(student: Tensor, teacher: Tensor, norm: FaNorm = "mean") -> Tensor:
    """Mean absolute difference of the affinities of two features [B, C, H, W] (eq. 14), over B too.

    Args:
        norm: "mean", eq. 14 as it stands, or "released": divided by 256^2 once more, as in the released code.
    """
    loss = (affinity(student) - affinity(teacher)).abs().mean()
    return loss / _RELEASED_DIVISOR if norm == "released" else loss
