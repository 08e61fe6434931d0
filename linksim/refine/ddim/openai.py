"""Checkpoints of improved-diffusion and guided-diffusion (Nichol and Dhariwal 2021) as diffusers' UNet2DModel.

The two networks are the same function; layers have other names, and the rows of the attention another order. How a
network is built is read off its checkpoint, but for the number of heads, which no tensor shows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linksim.errors import LinksimError
from linksim.refine.files import read_checkpoint

if TYPE_CHECKING:
    from torch import Tensor, nn

State = Mapping[str, "Tensor"]

#: Entries of `input_blocks` that a network can have.
_MOST = 1000


def load_unet(path: Path, heads: str, qkv: str, image_shape: tuple[int, int, int]) -> nn.Module:
    """The network of a checkpoint, float32.

    Args:
        path: see `read_checkpoint`.
        heads: attention heads ("4"), or channels a head ("64c"); "4/8" where the way up has others
            (improved-diffusion's `num_heads_upsample`).
        qkv: "legacy" or "new".
        image_shape: (C, H, W) of the images.

    Raises:
        LinksimError: damaged, or no such network.
    """
    return convert(read_checkpoint(path), heads, qkv, image_shape, str(path))


def convert(
    state: State, heads: str, qkv: str, image_shape: tuple[int, int, int], where: str = "the checkpoint"
) -> nn.Module:
    """A UNet2DModel that computes what the checkpoint's own network does. Raises LinksimError."""
    from diffusers import UNet2DModel

    try:
        plan = _plan(state)
        network = UNet2DModel(sample_size=image_shape[-1], in_channels=image_shape[0], **plan["config"])
        renamed = _renamed(state, plan, heads, qkv)
        network.load_state_dict(renamed)
    except Exception as error:
        said = " ".join(str(error).split())[:160]
        raise LinksimError(
            f"{where} is no unconditional UNet of improved-diffusion or guided-diffusion for {image_shape[0]} channels "
            f"({type(error).__name__}: {said})"
        ) from None
    for name, module in network.named_modules():
        if name.endswith(tuple(f"attentions.{i}" for i in range(9))):
            module.heads = _heads(heads, module.to_q.weight.shape[0], name.startswith("up_blocks."))
    found: nn.Module = network.eval().requires_grad_(False)
    return found


def _heads(both: str, channels: int, up: bool) -> int:
    """Heads of an attention layer; `up`: on the way up."""
    down, slash, above = both.partition("/")
    text = above if slash and up else down
    match = re.fullmatch(r"([1-9][0-9]*)(c?)", text)
    if match is None:
        raise LinksimError(
            f"prior_heads={both}: write the number of heads, like 4, or channels a head, like 64c; 4/8 for others on "
            "the way up"
        )
    count = channels // int(match[1]) if match[2] else int(match[1])
    if count < 1 or channels % count or (match[2] and channels % int(match[1])):
        raise LinksimError(f"prior_heads={text} does not divide the {channels} channels of an attention layer")
    return count


def _entries(state: State, side: str) -> list[dict[str, list[int]]]:
    """What stands in each entry of `input_blocks` or `output_blocks`: positions of each kind of layer."""
    count = 1 + max(int(name.split(".")[1]) for name in state if name.startswith(f"{side}."))
    if count > _MOST:
        raise ValueError(f"{count} entries")
    found: list[dict[str, list[int]]] = [{"res": [], "attn": [], "conv": []} for _ in range(count)]
    marks = {"in_layers.2.weight": "res", "qkv.weight": "attn", "op.weight": "conv", "conv.weight": "conv"}
    for name in state:
        match = re.fullmatch(rf"{side}\.(\d+)\.(\d+)\.(.+)", name)
        if match and match[3] in marks:
            found[int(match[1])][marks[match[3]]].append(int(match[2]))
    return [{kind: sorted(places) for kind, places in entry.items()} for entry in found]


def _plan(state: State) -> dict[str, Any]:
    """How the network is built, and where each of its layers goes."""
    if "label_emb.weight" in state:
        raise ValueError("class-conditional")
    inputs, outputs = _entries(state, "input_blocks"), _entries(state, "output_blocks")
    ups = [i for i, entry in enumerate(outputs) if entry["conv"] or len(entry["res"]) > 1]
    resnet = any(len(outputs[i]["res"]) > 1 for i in ups)
    levels = len(ups) + 1
    per_level, rest = divmod(len(inputs), levels)
    blocks = per_level - 1
    if rest or blocks < 1 or len(outputs) != len(inputs):
        raise ValueError(f"{len(inputs)} entries on {levels} levels")
    widths, attention = [], []
    for level in range(levels):
        first = 1 + level * per_level
        widths.append(state[f"input_blocks.{first}.0.out_layers.3.weight"].shape[0])
        attention.append(bool(inputs[first]["attn"]))
    plain = "ResnetDownsampleBlock2D" if resnet else "DownBlock2D"
    plain_up = "ResnetUpsampleBlock2D" if resnet else "UpBlock2D"
    base = state["input_blocks.0.0.weight"].shape[0]
    scale_shift = state["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * widths[0]
    if state["time_embed.0.weight"].shape[1] != base or base != widths[0]:
        raise ValueError("the first level is not as wide as the first convolution")
    config = {
        "out_channels": state["out.2.weight"].shape[0],
        "block_out_channels": tuple(widths),
        "layers_per_block": blocks,
        "down_block_types": tuple("AttnDownBlock2D" if a else plain for a in attention),
        "up_block_types": tuple("AttnUpBlock2D" if a else plain_up for a in reversed(attention)),
        "downsample_type": "resnet" if resnet else "conv",
        "upsample_type": "resnet" if resnet else "conv",
        "attention_head_dim": math.gcd(*widths),
        "norm_num_groups": 32,
        "attn_norm_num_groups": 32,
        "norm_eps": 1e-5,
        "resnet_time_scale_shift": "scale_shift" if scale_shift else "default",
    }
    return {"config": config, "levels": levels, "per_level": per_level, "inputs": inputs, "outputs": outputs}


_RES = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
    "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip


def _renamed(state: State, plan: Mapping[str, Any], heads: str, qkv: str) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}

    def leaf(old: str, new: str) -> None:
        for kind in ("weight", "bias"):
            out[f"{new}.{kind}"] = state[f"{old}.{kind}"]

    def res(old: str, new: str) -> None:
        for there, here in _RES.items():
            if f"{old}.{there}.weight" in state:
                leaf(f"{old}.{there}", f"{new}.{here}")

    def attention(old: str, new: str) -> None:
        leaf(f"{old}.norm", f"{new}.group_norm")
        rows, bias = state[f"{old}.qkv.weight"].flatten(1), state[f"{old}.qkv.bias"]
        channels = rows.shape[1]
        if qkv == "legacy":
            # Rows are [head, (q, k, v), channel].
            count = _heads(heads, channels, old.startswith("output_blocks."))
            parts = rows.reshape(count, 3, channels // count, channels).transpose(0, 1).reshape(3, channels, channels)
            biases = bias.reshape(count, 3, channels // count).transpose(0, 1).reshape(3, channels)
        else:
            parts, biases = rows.reshape(3, channels, channels), bias.reshape(3, channels)
        for index, name in enumerate(("to_q", "to_k", "to_v")):
            out[f"{new}.{name}.weight"], out[f"{new}.{name}.bias"] = parts[index], biases[index]
        out[f"{new}.to_out.0.weight"] = state[f"{old}.proj_out.weight"].flatten(1)
        out[f"{new}.to_out.0.bias"] = state[f"{old}.proj_out.bias"]

    leaf("time_embed.0", "time_embedding.linear_1")
    leaf("time_embed.2", "time_embedding.linear_2")
    leaf("input_blocks.0.0", "conv_in")
    leaf("out.0", "conv_norm_out")
    leaf("out.2", "conv_out")
    per_level = plan["per_level"]
    for index, entry in enumerate(plan["inputs"][1:]):
        level, place = divmod(index, per_level)
        here = f"down_blocks.{level}"
        old = f"input_blocks.{index + 1}"
        if place == per_level - 1:
            if entry["conv"]:
                leaf(f"{old}.0.op", f"{here}.downsamplers.0.conv")
            else:
                res(f"{old}.0", f"{here}.downsamplers.0")
            continue
        res(f"{old}.0", f"{here}.resnets.{place}")
        for position in entry["attn"]:
            attention(f"{old}.{position}", f"{here}.attentions.{place}")
    res("middle_block.0", "mid_block.resnets.0")
    attention("middle_block.1", "mid_block.attentions.0")
    res("middle_block.2", "mid_block.resnets.1")
    for index, entry in enumerate(plan["outputs"]):
        level, place = divmod(index, per_level)
        here, old = f"up_blocks.{level}", f"output_blocks.{index}"
        res(f"{old}.0", f"{here}.resnets.{place}")
        for position in entry["attn"]:
            attention(f"{old}.{position}", f"{here}.attentions.{place}")
        for position in entry["conv"]:
            leaf(f"{old}.{position}.conv", f"{here}.upsamplers.0.conv")
        for position in entry["res"][1:]:
            res(f"{old}.{position}", f"{here}.upsamplers.0")
    return out
