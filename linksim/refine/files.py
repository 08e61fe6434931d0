"""Files of published networks: checkpoints of torch, and the folders of diffusers and transformers."""

from __future__ import annotations

import functools
import hashlib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from linksim.errors import LinksimError, said

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 2**24

_UNSAFE = "it holds more than tensors, or is cut off"

#: Where a checkpoint keeps its state dict, in the order of preference, and what stands before the names in it.
_WRAPPERS = ("ema", "model_ema", "params_ema", "ema_state_dict", "state_dict", "model", "params")
_PREFIXES = ("module.", "_orig_mod.", "model.diffusion_model.")

#: Parts beside the network in checkpoints of whole systems.
_OTHERS = ("first_stage_model.", "cond_stage_model.", "model_ema.")


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors of a state dict that torch saved, float32, by the network's own names.

    The dict may lie under a name of `_WRAPPERS`, averaged weights before those of the last step, and its names may have
    prefixes of `_PREFIXES`.

    Raises:
        LinksimError: a file that is none, or the state of an optimiser.
    """
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(content, Mapping) and {"state", "param_groups"} <= set(content):
            raise ValueError("it is the state of an optimiser: give the file of the model, like ema_0.9999_500000.pt")
        while wrapper := next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None):
            content = content[wrapper]
        return {_bare(name): value.float() for name, value in content.items() if not name.startswith(_OTHERS)}
    except Exception as error:
        # A damaged file can break the reader anywhere.
        why = _UNSAFE if isinstance(error, pickle.UnpicklingError) else said(error, 120)
        raise LinksimError(f"{path} is no checkpoint, or a damaged one ({why}): get it anew") from None


def _bare(name: str) -> str:
    """A tensor's name without what wrappers of the network put before it."""
    while prefix := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    return name


def model_files(place: Path) -> list[Path]:
    """What a diffusers or transformers folder is loaded from: its weights, settings and vocabularies."""
    weights = sorted(place.glob("*.safetensors")) or sorted(place.glob("*.bin"))
    return [*weights, *sorted(place.glob("*.json")), *sorted(place.glob("*.txt"))]


def file_hash(paths: Sequence[Path]) -> str:
    """SHA-256 over files, one after the other."""
    found = [path.stat() for path in paths]
    return _hash(tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in zip(paths, found, strict=True)))


@functools.lru_cache(maxsize=64)
def _hash(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, _, _ in files:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
