"""Checkpoints of DDPM (Ho, Jain, Abbeel 2020) in their PyTorch form, which DDIM's code runs too, as UNet2DModel.

The two networks are the same function under other names. How a network is built is read off its checkpoint.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from linksim.errors import LinksimError

if TYPE_CHECKING:
    from torch import Tensor, nn

State = Mapping[str, "Tensor"]

#: Part of a name there, and here.
_LAYERS = {"temb_proj": "time_emb_proj", "nin_shortcut": "conv_shortcut"}
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_ENDS = {
    "temb.dense.0": "time_embedding.linear_1", "temb.dense.1": "time_embedding.linear_2", "conv_in": "conv_in",
    "norm_out": "conv_norm_out", "conv_out": "conv_out",
}  # fmt: skip
_MIDDLE = {"block_1": "resnets.0", "block_2": "resnets.1", "attn_1": "attentions.0"}


def is_ddpm(state: State) -> bool:
    """Whether the tensors have DDPM's names."""
    return "temb.dense.0.weight" in state


def convert_ddpm(state: State, image_shape: tuple[int, int, int], where: str = "the checkpoint") -> nn.Module:
    """A UNet2DModel that computes what the checkpoint's own network does.

    Args:
        state: its tensors, float32, by its own names.
        image_shape: (C, H, W) of the images.
        where: what a message calls the checkpoint.

    Raises:
        LinksimError: no such network, or one for images of other channels.
    """
    from diffusers import UNet2DModel
    from diffusers.models.attention_processor import Attention

    try:
        levels = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("down."))
        network = UNet2DModel(sample_size=image_shape[-1], in_channels=image_shape[0], **_config(state, levels))
        network.load_state_dict(_renamed(state, levels))
        for module in network.modules():
            if isinstance(module, Attention):
                module.heads = 1
    except Exception as error:
        said = " ".join(str(error).split())[:160]
        raise LinksimError(
            f"{where} is no UNet of DDPM for {image_shape[0]} channels ({type(error).__name__}: {said})"
        ) from None
    found: nn.Module = network.eval().requires_grad_(False)
    return found


def _config(state: State, levels: int) -> dict[str, Any]:
    blocks = sum(re.fullmatch(r"down\.0\.block\.\d+\.conv1\.weight", name) is not None for name in state)
    widths = tuple(len(state[f"down.{level}.block.0.conv1.bias"]) for level in range(levels))
    attention = [f"down.{level}.attn.0.q.weight" in state for level in range(levels)]
    return {
        "out_channels": len(state["conv_out.bias"]),
        "block_out_channels": widths,
        "layers_per_block": blocks,
        "down_block_types": tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        "up_block_types": tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        # Sines before cosines, and a stride that begins at the first pixel.
        "attention_head_dim": math.gcd(*widths),
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "downsample_padding": 0,
        "norm_num_groups": 32,
        "norm_eps": 1e-6,
    }


def _renamed(state: State, levels: int) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        module, _, leaf = name.rpartition(".")
        here = _module(module, levels)
        is_linear = leaf == "weight" and ".attentions." in here and not here.endswith("group_norm")
        found[f"{here}.{leaf}"] = value.flatten(1) if is_linear else value
    return found


def _module(name: str, levels: int) -> str:
    if name in _ENDS:
        return _ENDS[name]
    if match := re.fullmatch(r"mid\.(\w+)\.(\w+)", name):
        place, layer = f"mid_block.{_MIDDLE[match[1]]}", match[2]
        return f"{place}.{_ATTENTION[layer] if 'attn' in match[1] else _LAYERS.get(layer, layer)}"
    match = re.fullmatch(r"(down|up)\.(\d+)\.(?:(block|attn)\.(\d+)\.(\w+)|(?:down|up)sample\.conv)", name)
    if match is None:
        raise ValueError(f"there is no place for {name}")
    # Levels of the way up are counted from the top there, from the bottom here.
    level = int(match[2]) if match[1] == "down" else levels - 1 - int(match[2])
    place = f"{match[1]}_blocks.{level}"
    if match[3] is None:
        return f"{place}.{match[1]}samplers.0.conv"
    if match[3] == "attn":
        return f"{place}.attentions.{match[4]}.{_ATTENTION[match[5]]}"
    return f"{place}.resnets.{match[4]}.{_LAYERS.get(match[5], match[5])}"
