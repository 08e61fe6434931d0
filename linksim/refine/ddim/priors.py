"""Diffusion priors: those trained here, published checkpoints, and diffusers folders."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from linksim import assets
from linksim.data.images import pixels
from linksim.errors import LinksimError, NoWeights, shown
from linksim.models import weights
from linksim.models.spec import Spec
from linksim.paths import here
from linksim.refine.ddim.ddpm import convert_ddpm, is_ddpm
from linksim.refine.ddim.model import PRIOR_SIZES, prior
from linksim.refine.ddim.openai import convert
from linksim.refine.diffusion import OWN_SCHEDULE, Prior, make_scheduler, sample
from linksim.refine.files import file_hash, model_files, read_checkpoint

if TYPE_CHECKING:
    from torch import nn

    from linksim.link.config import Precision

#: Original steps that a process can have.
_MOST_STEPS = 100_000

#: Characters of a name that a message repeats.
_LONG = 100


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint of improved-diffusion, guided-diffusion or DDPM does not say of itself.

    Args:
        schedule: of its training, "linear" or "cosine".
        steps: original steps of its training; the network is told the time in thousandths of them, as with the two
            projects' `rescale_timesteps`.
        heads: attention heads ("4"), or channels a head ("64c"); DDPM has one.
        qkv: "legacy", the order of both projects, or "new" (guided-diffusion's `use_new_attention_order`).
    """

    schedule: Literal["linear", "cosine"] = "linear"
    steps: int = 1000
    heads: str = "4"
    qkv: Literal["legacy", "new"] = "legacy"


@dataclass(frozen=True)
class Published:
    """A published prior that `linksim assets get` fetches.

    Args:
        asset: its name there.
        image_shape: (C, H, W) of the images that it is trained on.
        how: of the checkpoint.
    """

    asset: str
    image_shape: tuple[int, int, int]
    how: Checkpoint


#: Published priors by the name that `prior=` takes.
PUBLISHED: Mapping[str, Published] = {
    # Ho, Jain, Abbeel 2020: FID 3.17; averaged weights.
    "ddpm-cifar10": Published("prior-ddpm-cifar10", (3, 32, 32), Checkpoint(heads="1")),
    # Nichol, Dhariwal 2021: L_hybrid, 4,000 steps, cosine; half of its outputs are of the variance, which is not used.
    "cifar10-50m": Published("prior-cifar10-50m", (3, 32, 32), Checkpoint("cosine", 4000)),
    # Chung et al. 2023 (DPS): guided-diffusion's network for 256x256, of half the width and one block a level.
    "ffhq256": Published("prior-ffhq256", (3, 256, 256), Checkpoint(heads="64c")),
}


@dataclass(frozen=True)
class Found:
    """A prior that is there, and not yet loaded.

    Args:
        sha256: of its weights.
        schedule: settings of a diffusers scheduler.
        make: builds the network, in float32.
        spec: of a prior that was trained here.
        time_scale: see `Prior`.
        how: of a checkpoint.
    """

    sha256: str
    schedule: Mapping[str, Any]
    make: Callable[[], nn.Module]
    spec: Spec | None = None
    time_scale: float = 1.0
    how: Checkpoint = Checkpoint()

    @property
    def identity(self) -> str:
        """What a result depends on: the weights, and how a checkpoint is read."""
        return self.sha256 if self.how == Checkpoint() else f"{self.sha256} {self.how}"

    def check(self, name: str) -> None:
        """Takes the prior through one step of a small image. Raises LinksimError where that does not work.

        Whether files belong together shows only then, and it shall show before a sweep begins.
        """
        if self.identity not in _CHECKED:
            import torch

            from linksim.nets.precision import laid_out

            network = self.make()
            side = 2 * _multiple(network)
            image = torch.full((1, 3, side, side), 0.5)
            try:
                told = sample(Prior(laid_out(network, "cpu"), self.schedule, self.time_scale), image,
                              lambda: torch.zeros_like(image), 1, 1, 0.5, "ddim")  # fmt: skip
                whole = bool(told.isfinite().all())
            except Exception as error:
                said = " ".join(str(error).split())[:120]
                raise LinksimError(
                    f"prior={name} does not work ({type(error).__name__}: {said}): get it anew"
                ) from None
            if not whole:
                raise LinksimError(f"prior={name} gives values that are not finite: get it anew")
            _CHECKED.add(self.identity)

    def load(self, device: str, precision: Precision, image_shape: tuple[int, int, int]) -> Prior:
        """The prior on a device. Raises LinksimError for weights that do not fit together, or not the images."""
        from linksim.nets.precision import laid_out

        network = self.make()
        multiple = _multiple(network)
        if any(side % multiple for side in image_shape[1:]):
            raise LinksimError(
                f"this prior takes sides that are multiples of {multiple}, not images of "
                f"{pixels(image_shape)}: take another --image-size"
            )
        return Prior(laid_out(network, device, precision), self.schedule, self.time_scale)


#: The priors that this process has checked.
_CHECKED: set[str] = set()


def _multiple(network: nn.Module) -> int:
    """What an image's side is a multiple of."""
    return int(2 ** (len(network.config["block_out_channels"]) - 1))  # type: ignore[index]


def find_prior(text: str, how: Checkpoint, image_shape: tuple[int, int, int]) -> Found:
    """The prior that `text` names.

    Args:
        text: "small" or "large", one of `PUBLISHED`, a checkpoint's file, or a diffusers folder.
        how: of a checkpoint.
        image_shape: (C, H, W) of the images.

    Raises:
        LinksimError: not there, not readable, or for other images.

    Example:
        >>> find_prior("small", Checkpoint(), (3, 32, 32)).schedule["num_train_timesteps"]
        1000
    """
    if text in PRIOR_SIZES:
        model = prior(text, image_shape)
        try:
            card = weights.card(model)
        except NoWeights as error:
            raise NoWeights(
                f"{error}; or give prior=FILE, a checkpoint of improved-diffusion, guided-diffusion or DDPM, or a "
                "diffusers folder"
            ) from None
        return Found(" ".join(card["files"].values()), OWN_SCHEDULE, lambda: weights.load(model, card), model.spec)
    if text in PUBLISHED:
        known = PUBLISHED[text]
        if known.image_shape != image_shape:
            raise _of_other_images(f"prior={text} is", pixels(known.image_shape), image_shape)
        try:
            path = assets.path(known.asset)
        except LinksimError as error:
            raise NoWeights(f"prior={text}: {error}") from None
        found = _checkpoint(path, known.how, image_shape)
        found.check(text)
        return found
    read = None
    # A name can be too long for a file system, or name a home that is nobody's.
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        path = here(Path(text))
        read = _folder if text and path.is_dir() else _checkpoint if path.is_file() else None
    if read is None:
        shown = text if len(text) < _LONG else f"{text[:_LONG]}..."
        names = ", ".join(PUBLISHED)
        raise NoWeights(
            f"prior={shown}: there is no such file or folder; {names} are assets (linksim assets get prior-NAME), and "
            "only small comes along"
        )
    found = read(path, how, image_shape)
    found.check(text)
    return found


def _of_other_images(what: str, size: object, image_shape: tuple[int, int, int]) -> LinksimError:
    return LinksimError(
        f"{what} for images of {size}, these are {pixels(image_shape)}: take another prior, or another --image-size"
    )


def _checkpoint(path: Path, how: Checkpoint, image_shape: tuple[int, int, int]) -> Found:
    # Linear betas are stretched with the number of steps.
    kind = {"cosine": "squaredcos_cap_v2", "linear": "linear"}[how.schedule]
    stretch = 1000 / how.steps
    schedule = {**OWN_SCHEDULE, "beta_schedule": kind, "num_train_timesteps": how.steps,
                "beta_start": 1e-4 * stretch, "beta_end": 0.02 * stretch}  # fmt: skip
    return Found(
        file_hash([path]),
        schedule,
        lambda: _network(path, how, image_shape),
        time_scale=stretch,
        how=how,
    )


def _network(path: Path, how: Checkpoint, image_shape: tuple[int, int, int]) -> nn.Module:
    state = read_checkpoint(path)
    if is_ddpm(state):
        return convert_ddpm(state, image_shape, str(path))
    return convert(state, how.heads, how.qkv, image_shape, str(path))


#: Schedulers of the process that DDIM samples from; others (consistency models, score SDEs) know other networks.
_SCHEDULERS = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DDIMInverseScheduler", "DPMSolverMultistepScheduler",
               "UniPCMultistepScheduler")  # fmt: skip


def _folder(path: Path, _: Checkpoint, image_shape: tuple[int, int, int]) -> Found:
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
        raise LinksimError(
            f"{path} holds a {kind} of {channels} channels: an unconditional UNet2DModel of {image_shape[0]} is wanted"
        )
    side = config.get("sample_size")
    if side is not None and side not in (image_shape[-1], list(image_shape[1:])):
        raise _of_other_images(f"{path} holds a prior", side, image_shape)
    if not isinstance(schedule, dict) or "num_train_timesteps" not in schedule:
        raise LinksimError(f"{path} has no scheduler/scheduler_config.json with num_train_timesteps")
    steps = schedule["num_train_timesteps"]
    if not isinstance(steps, int) or not 1 <= steps <= _MOST_STEPS:
        raise LinksimError(f"{schedule_file}: num_train_timesteps {shown(steps)}: 1 to {_MOST_STEPS} are possible")
    if schedule.get("_class_name") not in _SCHEDULERS:
        raise LinksimError(f"{path} has a {schedule.get('_class_name')}: one of {', '.join(_SCHEDULERS)} is wanted")
    schedule = {key: value for key, value in schedule.items() if not key.startswith("_")}
    schedule |= {"timestep_spacing": "trailing", "set_alpha_to_one": True}
    try:
        kept = make_scheduler(schedule).alphas_cumprod
    except Exception as error:
        raise LinksimError(f"{schedule_file}: {' '.join(str(error).split())[:120]}") from None
    if len(kept) != steps or not bool(((kept > 0) & (kept < 1)).all()):
        raise LinksimError(f"{schedule_file}: its betas are of no diffusion of {steps} steps: see beta_start, beta_end")
    tensors = model_files(place)
    if len(tensors) == len(list(place.glob("*.json"))):
        raise LinksimError(f"{place} holds no weights: put its diffusion_pytorch_model.safetensors there")

    def make() -> nn.Module:
        from diffusers import UNet2DModel
        from diffusers.utils import logging

        # What does not fit is this function's to report.
        told = logging.get_verbosity()
        logging.set_verbosity(logging.CRITICAL)
        try:
            network, facts = UNet2DModel.from_pretrained(
                str(place), local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
            )
        except Exception as error:
            said = " ".join(str(error).split())[:160]
            raise LinksimError(f"{place} does not load ({said}): get it anew") from None
        finally:
            logging.set_verbosity(told)
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if facts[what]:
                raise LinksimError(
                    f"{place}: weights and config.json do not belong together ({what.replace('_', ' ')}: "
                    f"{len(facts[what])}, {str(facts[what][0])[:60]}): get it anew"
                )
        found: nn.Module = network
        return found

    return Found(file_hash([*tensors, schedule_file]), schedule, make)
