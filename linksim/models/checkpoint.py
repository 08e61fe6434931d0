"""What a training leaves in its folder to go on with, and its best weights."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from io import BytesIO
from pathlib import Path
from typing import Any

from linksim.errors import LinksimError, said
from linksim.files import write_atomic

CHECKPOINT, BEST = "checkpoint.pt", "best.pt"


@dataclass
class State:
    """What a checkpoint holds beside weights and optimiser.

    Args:
        step: steps done.
        steps: steps in all, fixed when the run begins.
        seconds: spent on steps so far.
        best: score of the weights that are kept: the highest so far, or the last.
        validation: its figures.
        ema: decay of the averaged weights that are kept.
        lineage: the trainings that made the weights it began with, oldest first (`weights.history`); none from scratch.
        embedded: whether it began as users in separate channel uses (`linksim.schemes.semnoma.embedding`).
        prepared: image groups that went into the model before the first step.
    """

    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    validation: dict[str, float] = field(default_factory=dict)
    ema: float = 0.0
    lineage: list[dict[str, Any]] = field(default_factory=list)
    embedded: bool = False
    prepared: int = 0


def load_checkpoint(
    path: Path, device: str = "cpu", also: Iterable[str] = (), way_out: str = "take it away, or take another --out"
) -> dict[str, Any]:
    """What `save_atomic` wrote.

    Args:
        also: what it must hold beside `identity`, `model` and `state`.
        way_out: what to do about one that cannot be read.

    Raises:
        LinksimError: a file that it did not write, or that another version wrote.
    """
    import torch

    if not path.exists():
        raise LinksimError(f"{path} is gone: train again into another --out")
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise LinksimError(f"{path} is no checkpoint of linksim train, or damaged: {way_out}")
    try:
        # PyTorch reads past what the sums of the file's parts would tell.
        with zipfile.ZipFile(path) as archive:
            if (part := archive.testzip()) is not None:
                raise ValueError(f"{part} is not what was written")
        content = torch.load(path, map_location=device, weights_only=True)
        # What another version wrote lacks nothing there, and is not damaged.
        if set(content["state"]) != {known.name for known in fields(State)}:
            raise LinksimError(f"{path} is of another version of linksim: go on with that one, or take another --out")
        missing = {"identity", "model", *also} - set(content)
        if missing:
            raise ValueError(f"no {min(missing)} in it")
    except (LinksimError, PermissionError, MemoryError):
        raise
    # Of a damaged file three libraries raise almost any type.
    except Exception as error:
        raise damaged(path, error, way_out) from None
    return dict(content)


def damaged(path: Path, error: Exception, way_out: str = "take it away, or take another --out") -> LinksimError:
    """The error for a checkpoint that is not what was written."""
    return LinksimError(f"{path} is damaged ({said(error, 80)}): {way_out}")


def save_atomic(path: Path, content: dict[str, Any]) -> None:
    """`torch.save` that never leaves half a file. Raises OSError (a full disk)."""
    import torch

    buffer = BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())
