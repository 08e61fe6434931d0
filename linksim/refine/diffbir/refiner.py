"""SemNOMA-DiffBIR: Stable Diffusion, tied by IRControlNet to the first stage's image (Lin et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field

from linksim.errors import LinksimError, NoWeights
from linksim.paths import assets_dir, here
from linksim.refine.base import Refiner, Steps
from linksim.refine.diffbir.restorer import Restorer, check_steps, noise_of, recoloured, restore
from linksim.refine.files import file_hash, model_files, read_checkpoint
from linksim.schemes.base import Params, Scheme

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from linksim.link.config import Precision, Setting

_PROMPT = (
    "Cinematic, High Contrast, highly detailed, taken using a Canon EOS R camera, hyper detailed photo - realistic "
    "maximum detail, 32k, Color Grading, ultra HD, extreme meticulous detailing, skin pore detailing, hyper sharpness, "
    "perfect without deformations."
)
_NEGATIVE = (
    "painting, oil painting, illustration, drawing, art, sketch, oil painting, cartoon, CG Style, 3D render, unreal "
    "engine, blurring, dirty, messy, worst quality, low quality, frames, watermark, signature, jpeg artifacts, "
    "deformed, lowres, over-smooth"
)
_CONTROL = "https://huggingface.co/lxq007/DiffBIR-v2/resolve/main/v1_general.pth"
_BASE = "stabilityai/stable-diffusion-2-1-base"


class DiffBirParams(Params):
    """Parameters of DiffBIR."""

    base: str = Field("", description=f"diffusers folder of Stable Diffusion 2.1 ({_BASE})")
    control: str = Field("", description="IRControlNet's checkpoint, DiffBIR's v1_general.pth or general_full_v1.ckpt")
    caption: str = Field(
        "", description="folder of an image-text model of transformers (LLaVA, BLIP); none: no caption"
    )
    prompt: Literal["diffbir", "none"] = Field("diffbir", description="diffbir: its positive and negative prompts")
    guidance: float = Field(4.0, ge=1, le=30, description="classifier-free guidance; 1 leaves it out")
    side: int = Field(512, ge=8, le=2048, description="pixels of the shorter side; smaller images are scaled up to it")
    colours: Literal["wavelet", "none"] = Field("wavelet", description="wavelet: coarse colours of the first stage")
    steps: int = Field(50, ge=1, le=1000, description="steps of the diffusion, from pure noise")
    eta: float = Field(1.0, ge=0, le=1, description="randomness: 1 as DDPM, 0 none")


class DiffBir(Refiner):
    """DiffBIR's second stage on the first stage's image, with a caption of it and a fixed prompt (KDD, VI-A2)."""

    name: ClassVar[str] = "diffbir"
    summary: ClassVar[str] = "DiffBIR's IRControlNet on Stable Diffusion 2.1 (its weights are yours to bring)"
    Params: ClassVar[type[Params]] = DiffBirParams

    def __init__(self, setting: Setting, params: DiffBirParams, first: Scheme) -> None:
        super().__init__(setting, params, first)
        check_steps(params.steps)
        home = assets_dir() / "diffbir"
        self._base = here(Path(params.base)) if params.base else home / _BASE.partition("/")[2]
        self._control = here(Path(params.control)) if params.control else home / _CONTROL.rpartition("/")[2]
        try:
            import transformers  # noqa: F401
        except ImportError:
            raise NoWeights('diffbir needs transformers: pip install -e ".[diffbir]" in the clone') from None
        if not (self._base / "model_index.json").is_file():
            raise NoWeights(
                f"diffbir needs Stable Diffusion 2.1: download the diffusers repository {_BASE} from huggingface.co to "
                f"{self._base}, or say where it is: diffbir:base=DIR"
            )
        if not self._control.is_file():
            raise NoWeights(
                f"diffbir needs IRControlNet: download {_CONTROL} to {self._control}, or say where it is: "
                "diffbir:control=FILE"
            )
        if params.caption and not (here(Path(params.caption)) / "config.json").is_file():
            raise NoWeights(
                f"caption={params.caption}: no folder of a transformers model (no config.json): download one, like "
                "llava-hf/llava-1.5-7b-hf, or leave caption out"
            )

    def provenance(self) -> dict[str, str]:
        """Hash of the weights of each part."""
        folders = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
        parts = {"control": [self._control], "base": [f for name in folders for f in model_files(self._base / name)]}
        if self.params.caption:
            parts["caption"] = model_files(here(Path(self.params.caption)))
        return {name: file_hash(files) for name, files in parts.items()}

    def evaluations(self, snr_db: float) -> int:
        """See `Refiner`; guidance asks the network twice a step."""
        return int(self.params.steps) * (2 if self.params.guidance > 1 else 1)

    def load(self) -> None:
        """See `Refiner`."""
        _ = self._parts, self._captioner

    @cached_property
    def _parts(self) -> _StableDiffusion:
        return _StableDiffusion(self._base, self._control, self.setting.device, self.setting.precision)

    @cached_property
    def _captioner(self) -> Callable[[Tensor], list[str]]:
        if not self.params.caption:
            return lambda images: [""] * len(images)
        return _make_captioner(here(Path(self.params.caption)), self.setting.device)

    def refine(self, images: Tensor, snr_db: float, draws: Sequence[np.random.Generator], report: Steps) -> Tensor:
        """See `Refiner.refine`."""
        from torch.nn.functional import interpolate

        height, width = images.shape[-2:]
        scale, multiple = max(self.params.side / min(height, width), 1.0), self._parts.multiple
        size = [multiple * math.ceil(side * scale / multiple) for side in (height, width)]
        large = interpolate(images, size=size, mode="bicubic", antialias=True).clamp(0, 1)
        positive, negative = (_PROMPT, _NEGATIVE) if self.params.prompt == "diffbir" else ("", "")
        captions = self._captioner(images)
        prompts = [", ".join(filter(None, (caption, positive))) for caption in captions]
        restorer = self._parts.restorer(prompts, negative, self.params.guidance)
        shown = restore(restorer, large, noise_of(draws, images), self.params.steps, self.params.eta, report)
        if self.params.colours == "wavelet":
            shown = recoloured(shown, large)
        return interpolate(shown, size=(height, width), mode="bicubic", antialias=True)


class _StableDiffusion:
    """Stable Diffusion's parts with IRControlNet.

    Args:
        base: diffusers folder.
        control: IRControlNet's checkpoint.
        device: torch device.
        precision: of its arithmetic.

    Raises:
        LinksimError: a part that does not load.
    """

    def __init__(self, base: Path, control: Path, device: str, precision: Precision) -> None:
        import json

        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        from linksim.nets.precision import laid_out

        def part(kind: Any, name: str) -> Any:
            try:
                return kind.from_pretrained(str(base / name), local_files_only=True)
            except Exception as error:
                said = " ".join(str(error).split())[:160]
                raise LinksimError(f"{base / name} does not load ({said}): download it anew") from None

        self._unet = cast("Any", laid_out(part(UNet2DConditionModel, "unet"), device, precision))
        self._vae = cast("Any", laid_out(part(AutoencoderKL, "vae"), device, precision))
        self._text = part(CLIPTextModel, "text_encoder").to(device).eval().requires_grad_(False)
        self._tokenizer = part(CLIPTokenizer, "tokenizer")
        self._control = cast("Any", laid_out(load_control(control, dict(self._unet.config)), device, precision))
        try:
            self._schedule = json.loads((base / "scheduler" / "scheduler_config.json").read_text())
        except (OSError, ValueError) as error:
            raise LinksimError(f"{base}/scheduler/scheduler_config.json: {error}: download it anew") from None
        self._device = device
        # Latents are smaller than images by the autoencoder's levels; the denoiser's levels divide them further.
        levels = len(self._vae.config["block_out_channels"]) + len(self._unet.config["block_out_channels"]) - 2
        self.multiple = 2**levels

    def _prompts(self, texts: Sequence[str]) -> Tensor:
        import torch

        tokens = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self._tokenizer.model_max_length,
            return_tensors="pt",
        )  # fmt: skip
        with torch.inference_mode():
            found: Tensor = self._text(tokens.input_ids.to(self._device))[0]
        return found

    def restorer(self, prompts: Sequence[str], negative: str, guidance: float) -> Restorer:
        """The restorer for a batch with these prompts."""
        import torch

        from linksim.refine.diffbir.network import denoise

        wanted = self._prompts(prompts)
        unwanted = self._prompts([negative] * len(prompts)) if guidance > 1 else None
        factor = self._vae.config["scaling_factor"]

        def told(x: Tensor, time: int, hint: Tensor) -> Tensor:
            times = torch.full((len(x),), time, device=x.device)
            found = denoise(self._unet, self._control, x, times, wanted, hint)
            if unwanted is None:
                return found
            other = denoise(self._unet, self._control, x, times, unwanted, hint)
            return other + guidance * (found - other)

        def encode(images: Tensor) -> Tensor:
            found: Tensor = self._vae.encode(2 * images - 1).latent_dist.mode() * factor
            return found

        def decode(latents: Tensor) -> Tensor:
            shown: Tensor = self._vae.decode(latents / factor).sample
            return (shown + 1) / 2

        schedule = {key: value for key, value in self._schedule.items() if not key.startswith("_")}
        return Restorer(encode, decode, told, {**schedule, **_SAMPLING})


#: What sampling asks of a schedule: evenly spaced steps that end in an image without noise.
_SAMPLING = {"clip_sample": False, "timestep_spacing": "trailing", "set_alpha_to_one": True}

#: Settings that IRControlNet shares with the denoiser.
_SHARED = (
    "in_channels", "flip_sin_to_cos", "freq_shift", "down_block_types", "only_cross_attention", "block_out_channels",
    "layers_per_block", "downsample_padding", "mid_block_scale_factor", "act_fn", "norm_num_groups", "norm_eps",
    "cross_attention_dim", "attention_head_dim", "num_attention_heads", "use_linear_projection", "upcast_attention",
    "resnet_time_scale_shift",
)  # fmt: skip


def load_control(path: Path, unet: Mapping[str, Any]) -> nn.Module:
    """IRControlNet from DiffBIR's checkpoint: the network alone, or all of it with the network under `control_model.`.

    Args:
        path: the checkpoint.
        unet: settings of the denoiser that it was trained with.

    Raises:
        LinksimError: damaged, or of another network.
    """
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    from linksim.refine.diffbir.network import ir_control_net

    state = {name.removeprefix("cldm."): value for name, value in read_checkpoint(path).items()}
    settings = {key: unet[key] for key in _SHARED if key in unet}
    control = ir_control_net(settings)
    try:
        converted = convert_controlnet_checkpoint(state, settings)
        control.load_state_dict({name: value for name, value in converted.items() if value is not None})
    except (RuntimeError, KeyError, AttributeError, IndexError, ValueError) as error:
        said = " ".join(str(error).split())[:160]
        raise LinksimError(f"{path} is no IRControlNet for this Stable Diffusion ({said})") from None
    found: nn.Module = control
    return found


def _make_captioner(folder: Path, device: str) -> Callable[[Tensor], list[str]]:
    """Captions by an image-text model of transformers: those that chat (LLaVA) are asked, others (BLIP) simply look."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(str(folder), local_files_only=True)
        model = AutoModelForImageTextToText.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        said = " ".join(str(error).split())[:160]
        raise LinksimError(f"caption={folder} does not load as an image-text model ({said})") from None
    model = model.to(device).eval()

    def captions(images: Tensor) -> list[str]:
        from PIL import Image

        found = []
        for image in (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy():
            picture = Image.fromarray(image)
            if getattr(processor, "chat_template", None):
                turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": _QUESTION}]}
                text = processor.apply_chat_template([turn], add_generation_prompt=True)
                inputs = processor(images=picture, text=text, return_tensors="pt").to(device)
            else:
                inputs = processor(images=picture, return_tensors="pt").to(device)
            with torch.inference_mode():
                tokens = model.generate(**inputs, max_new_tokens=60, do_sample=False)
            told = tokens[0][inputs["input_ids"].shape[1] :] if "input_ids" in inputs else tokens[0]
            found.append(processor.decode(told, skip_special_tokens=True).strip())
        return found

    return captions


_QUESTION = "Describe this image in one sentence."
