"""Networks of a latent-diffusion restorer in DiffBIR's structure (Lin et al. 2024), built of diffusers' parts.

An autoencoder, a denoiser of latents that sees a prompt, and IRControlNet: a copy of the denoiser's encoder that sees
the noisy latents and those of the image to restore, side by side, and speaks to the denoiser through convolutions that
begin with zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import ControlNetModel, UNet2DConditionModel

#: Of the restorer for 32x32: latents are [4, 16, 16].
_MINI: dict[str, Any] = {
    "in_channels": 4,
    "block_out_channels": (64, 128, 128),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
    "cross_attention_dim": 64,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}

#: Stable Diffusion's process, which DiffBIR works in.
LATENT_SCHEDULE: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "epsilon",
    "clip_sample": False,
    "timestep_spacing": "trailing",
}


class MiniVae(nn.Module):
    """The autoencoder for 32x32, with the scale that gives its latents unit variance."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import AutoencoderKL

        self.vae = AutoencoderKL(
            latent_channels=4,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=8,
            sample_size=32,
            mid_block_add_attention=False,
        )
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor(1.0))

    def encode(self, images: Tensor) -> Tensor:
        """Images [M, 3, H, W] in [0, 1] to latents [M, 4, H/2, W/2] of unit variance (the posterior's mean)."""
        found: Tensor = self.vae.encode(2 * images - 1).latent_dist.mean.float() * self.scale
        return found

    def decode(self, latents: Tensor) -> Tensor:
        """Latents back to images, not clamped."""
        found: Tensor = (self.vae.decode(latents / self.scale).sample.float() + 1) / 2
        return found


class MiniDenoiser(nn.Module):
    """The denoiser of latents, with a fixed prompt that is learned with it."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import UNet2DConditionModel

        self.unet = UNet2DConditionModel(
            sample_size=16,
            out_channels=4,
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            **_MINI,
        )
        self.prompt = nn.Parameter(torch.randn(1, 4, _MINI["cross_attention_dim"]) * 0.1)


def mini_control() -> ControlNetModel:
    """IRControlNet for the mini denoiser."""
    return ir_control_net(_MINI)


class _NoHint(nn.Module):
    """In the place of ControlNet's own encoder of hints: IRControlNet has none, its hint comes with the latents."""

    def forward(self, conditioning: Tensor) -> Tensor:
        return conditioning.new_zeros(())


def ir_control_net(settings: Mapping[str, Any]) -> ControlNetModel:
    """IRControlNet: diffusers' ControlNet whose input are the noisy latents and those of the image to restore.

    Args:
        settings: of the denoiser, those that ControlNetModel has too; `in_channels` is that of the latents.
    """
    from diffusers import ControlNetModel

    control = ControlNetModel(**{**settings, "in_channels": 2 * settings["in_channels"]})
    control.controlnet_cond_embedding = _NoHint()
    return control


def denoise(
    unet: UNet2DConditionModel,
    control: ControlNetModel | None,
    noisy: Tensor,
    times: Tensor,
    prompt: Tensor,
    hint: Tensor | None = None,
) -> Tensor:
    """What the denoiser tells of noisy latents.

    Args:
        unet: the denoiser.
        control: IRControlNet; None leaves it out.
        noisy: [M, 4, h, w].
        times: [M].
        prompt: [M, L, D].
        hint: latents of the image to restore, [M, 4, h, w].

    Returns:
        float32 [M, 4, h, w].
    """
    more: dict[str, Any] = {}
    if control is not None:
        assert hint is not None
        down, middle = control(
            torch.cat([noisy, hint], 1), times, encoder_hidden_states=prompt, controlnet_cond=noisy, return_dict=False
        )
        more = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
    found: Tensor = unet(noisy, times, encoder_hidden_states=prompt, **more).sample.float()
    return found
