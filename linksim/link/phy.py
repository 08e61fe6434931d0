"""Sionna's physical layer, without the compiler that its import would bring along."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch


@functools.cache
def sionna(part: str) -> Any:
    """A module of `sionna.phy`; a process waits seconds for the first, so that it is asked for where it is needed.

    Some of Sionna's functions are decorated for PyTorch's compiler, and that alone imports it, which takes as long as
    all the rest. They run here as they are written.

    Args:
        part: its name there, like "mimo" or "fec.ldpc".

    Example:
        >>> sionna("mimo").lmmse_equalizer.__name__
        'lmmse_equalizer'
    """
    with mock.patch.object(torch, "compile", _as_written), mock.patch.object(torch.compiler, "disable", _as_written):
        return importlib.import_module(f"sionna.phy.{part}")


def _as_written(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    return function if function is not None else lambda function: function
