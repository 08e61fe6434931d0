"""Diffusion priors: those trained here, published checkpoints, and diffusers folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from linksim.errors import LinksimError, NoWeights
from linksim.refine.diffusion import OWN_SCHEDULE
from linksim.refine.specs import PRIOR_SIZES, PriorSpec, prior_spec

if TYPE_CHECKING:
    from torch import Tensor, nn

_CHUNK = 2**24


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint of improved-diffusion or guided-diffusion does not say of itself.

    Args:
        schedule: of its training, "linear" or "cosine".
        heads: attention heads ("4"), or channels a head ("64c").
        qkv: "legacy", the order of both projects, or "new" (guided-diffusion's `use_new_attention_order`).
    """

    schedule: Literal["linear", "cosine"] = "linear"
    heads: str = "4"
    qkv: Literal["legacy", "new"] = "legacy"


@dataclass(frozen=True)
class Prior:
    """A network that knows images, and the process that it was trained for.

    Args:
        network: an unconditional UNet2DModel; what it says of the variance is not used.
        schedule: settings of a diffusers scheduler.
    """

    network: nn.Module
    schedule: Mapping[str, Any]

    def predict(self, x: Tensor, time: int) -> Tensor:
        """What the network tells of noisy images [M, C, H, W] at original step `time`, counted from 0; float32."""
        import torch

        times = torch.full((len(x),), time, device=x.device)
        with torch.inference_mode(), torch.autocast(x.device.type, torch.bfloat16, enabled=self.rounded):
            told = self.network(x.contiguous(memory_format=torch.channels_last), times).sample
        return told[:, : x.shape[1]].float()

    @property
    def rounded(self) -> bool:
        """Whether it computes in bfloat16, as its weights are."""
        import torch

        return next(self.network.parameters()).dtype == torch.bfloat16


@dataclass(frozen=True)
class Found:
    """A prior that is there, and not yet loaded.

    Args:
        sha256: of its weights.
        schedule: settings of a diffusers scheduler.
        make: builds the network, in float32.
        spec: of a prior that was trained here.
    """

    sha256: str
    schedule: Mapping[str, Any]
    make: Callable[[], nn.Module]
    spec: PriorSpec | None = None

    def load(self, device: str) -> Prior:
        """The prior on a device. Raises LinksimError for weights that do not fit together."""
        return Prior(rounded(self.make(), device), self.schedule)


def rounded(network: nn.Module, device: str) -> nn.Module:
    """A network laid out for evaluation under bfloat16 autocast; weights that it would round are rounded once."""
    import torch
    from torch import nn

    network = network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.to(torch.bfloat16)
    return network


def find_prior(text: str, how: Checkpoint, image_shape: tuple[int, int, int]) -> Found:
    """The prior that `text` names.

    Args:
        text: "small" or "large", a checkpoint's file, or a diffusers folder.
        how: of a checkpoint.
        image_shape: (C, H, W) of the images.

    Raises:
        LinksimError: not there, not readable, or for other images.
    """
    if text in PRIOR_SIZES:
        from linksim import weights

        spec = prior_spec(text)
        if image_shape != (3, 32, 32):
            raise LinksimError(
                f"prior={text} is for images of 32x32, these are {image_shape[2]}x{image_shape[1]}: give "
                "prior=FILE, a checkpoint of improved-diffusion or guided-diffusion, or a diffusers folder"
            )
        card = weights.card(spec)
        return Found(" ".join(card["files"].values()), OWN_SCHEDULE, lambda: weights.load(spec, card), spec)
    path = Path(text).expanduser()
    if path.is_dir():
        return _folder(path, image_shape)
    if path.is_file():
        return _checkpoint(path, how, image_shape)
    raise NoWeights(f"prior={text}: there is no such file or folder, and only small and large come along")


def _checkpoint(path: Path, how: Checkpoint, image_shape: tuple[int, int, int]) -> Found:
    from linksim.refine.openai import load_unet

    schedule = {**OWN_SCHEDULE, "beta_schedule": {"cosine": "squaredcos_cap_v2", "linear": "linear"}[how.schedule]}
    return Found(file_hash([path]), schedule, lambda: load_unet(path, how.heads, how.qkv, image_shape))


def _folder(path: Path, image_shape: tuple[int, int, int]) -> Found:
    """A diffusers repository: `unet/` and `scheduler/`, or the network alone."""
    place = path / "unet" if (path / "unet").is_dir() else path
    try:
        config = json.loads((place / "config.json").read_text())
        schedule_file = path / "scheduler" / "scheduler_config.json"
        schedule = json.loads(schedule_file.read_text()) if schedule_file.is_file() else {}
        kind, channels = config["_class_name"], config["in_channels"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LinksimError(
            f"{path} is no diffusers folder of a UNet2DModel ({type(error).__name__}: {error}): it holds "
            "unet/config.json and scheduler/scheduler_config.json"
        ) from None
    if kind != "UNet2DModel" or config.get("num_class_embeds") or channels != image_shape[0]:
        raise LinksimError(f"{path} holds a {kind} of {channels} channels: an unconditional UNet2DModel is wanted")
    if "num_train_timesteps" not in schedule:
        raise LinksimError(f"{path} has no scheduler/scheduler_config.json: its process is not known")
    schedule = {key: value for key, value in schedule.items() if not key.startswith("_")}
    schedule |= {"timestep_spacing": "trailing", "set_alpha_to_one": True}
    weights = sorted(place.glob("*.safetensors")) or sorted(place.glob("*.bin"))
    if not weights:
        raise LinksimError(f"{place} holds no weights: put its diffusion_pytorch_model.safetensors there")

    def make() -> nn.Module:
        from diffusers import UNet2DModel

        try:
            return UNet2DModel.from_pretrained(str(place), local_files_only=True, low_cpu_mem_usage=False)
        except Exception as error:
            said = " ".join(str(error).split())[:160]
            raise LinksimError(f"{place} does not load ({said}): get it anew") from None

    return Found(file_hash(weights), schedule, make)


def file_hash(paths: Sequence[Path]) -> str:
    """SHA-256 over files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
