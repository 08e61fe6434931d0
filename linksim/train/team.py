"""Processes that train one model together, a device each, through Lightning Fabric.

Each of them draws the whole batch of a step, works on its share, and takes the mean of all gradients: what comes out is
that of one process on the whole batch, but for the order of sums. The first process alone writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from linksim.errors import LinksimError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: A process waits for the others at the most this long: while the first one validates, say.
_PATIENCE = timedelta(hours=2)


class Team:
    """One process alone.

    Attributes:
        index: of this process.
        size: processes.
        device: torch device of this process.
    """

    index, size = 0, 1

    def __init__(self, device: str) -> None:
        self.device = device

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and tells."""
        return self.index == 0

    def mean(self, gradients: Iterable[Tensor], told: bool) -> bool:
        """Puts the mean over all processes in the place of each gradient.

        Args:
            gradients: of the same parameters everywhere, in the same order.
            told: whether this process was told to stop.

        Returns:
            whether any process was.
        """
        return told

    def agreed(self, value: Any) -> Any:
        """The first process's value, for all."""
        return value

    def wait(self) -> None:
        """Returns when every process has come here."""


class Processes(Team):
    """Several processes. Where it is made, the others are started: they run the same command line.

    Args:
        device: "cpu", or a kind of GPUs, whose first ones are taken.
        size: processes.

    Raises:
        LinksimError: Lightning Fabric is not installed, or there are fewer GPUs.
    """

    def __init__(self, device: str, size: int) -> None:
        try:
            from lightning_fabric import Fabric
            from lightning_fabric.strategies.ddp import DDPStrategy
        except ImportError:
            raise LinksimError('--devices needs Lightning Fabric: pip install -e ".[devices]" in the clone') from None
        kind = torch.device(device)
        if kind.index is not None:
            raise LinksimError(f"--device {device}: --devices takes the first ones: name the kind alone, {kind.type}")
        if kind.type == "cuda" and torch.cuda.device_count() < size:
            raise LinksimError(f"--devices {size}: there are {torch.cuda.device_count()} GPUs: take fewer")
        self._fabric: Fabric = Fabric(accelerator=kind.type, devices=size, strategy=DDPStrategy(timeout=_PATIENCE))
        self._fabric.launch()
        super().__init__(str(self._fabric.device))
        self.index, self.size = self._fabric.global_rank, self._fabric.world_size

    def mean(self, gradients: Iterable[Tensor], told: bool) -> bool:
        """See `Team`."""
        own = list(gradients)
        # One message in place of hundreds; the request to stop goes along.
        flat = torch.cat([part.reshape(-1) for part in own] + [own[0].new_tensor([float(told)])])
        flat = self._fabric.all_reduce(flat, reduce_op="mean")  # type: ignore[assignment]
        *parts, asked = flat.split([*(part.numel() for part in own), 1])
        for mine, mean in zip(own, parts, strict=True):
            mine.copy_(mean.view_as(mine))
        return bool(asked > 0)

    def agreed(self, value: Any) -> Any:
        """See `Team`."""
        return self._fabric.broadcast(value)

    def wait(self) -> None:
        """See `Team`."""
        self._fabric.barrier()


def follows() -> bool:
    """Whether this process was started by another one of its team."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def team_of(device: str, size: int | None) -> Team:
    """This process alone, or `size` of them. Raises LinksimError."""
    return Team(device) if size in (None, 1) else Processes(device, size or 1)
