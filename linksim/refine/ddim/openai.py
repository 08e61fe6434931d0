"""Checkpoints of improved-diffusion and guided-diffusion (Nichol and Dhariwal 2021) as diffusers' UNet2DModel.

The two networks are the same function; layers have other names, and the rows of the attention another order. How a
network is built is read off its checkpoint, but for the number of heads, which no tensor shows.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from linksim.errors import LinksimError

if TYPE_CHECKING:
    from torch import Tensor, nn

State = Mapping[str, "Tensor"]

#: Entries of `input_blocks` that a network can have.
_MOST = 1000


def convert(
    state: State, heads: str, qkv: str, image_shape: tuple[int, int, int], where: str = "the checkpoint"
) -> nn.Module:
    """A UNet2DModel that computes what the checkpoint's own network does.

    Args:
        state: its tensors, float32, by its own names.
        heads: attention heads ("4"), or channels a head ("64c"); "4/8" where the way up has others
            (improved-diffusion's `num_heads_upsample`).
        qkv: "legacy" or "new".
        image_shape: (C, H, W) of the images.
        where: what a message calls the checkpoint.

    Raises:
        LinksimError: no such network.
    """
    from diffusers import UNet2DModel

    try:
        plan = _plan(state)
        network = UNet2DModel(sample_size=image_shape[-1], in_channels=image_shape[0], **plan["config"])
        _reshape(network, plan)
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


def _blocks(inputs: list[dict[str, list[int]]], outputs: list[dict[str, list[int]]]) -> list[int]:
    """Residual blocks of each level, by the layers that change the resolution; those that pool hold no tensors."""
    pools = _pools(inputs)
    ups = [i for i, entry in enumerate(outputs) if entry["conv"] or len(entry["res"]) > 1]
    if pools:
        blocks = [end - begin - 1 for begin, end in itertools.pairwise([0, *pools, len(inputs)])]
    else:
        blocks = [end - begin - 1 for begin, end in itertools.pairwise([-1, *ups, len(outputs) - 1])][::-1]
    if len(outputs) != len(inputs) or min(blocks) < 1 or len(inputs) != sum(blocks) + len(blocks) or (pools and ups):
        raise ValueError(f"{len(inputs)} entries down and {len(outputs)} up on {len(blocks)} levels")
    return blocks


def _pools(inputs: list[dict[str, list[int]]]) -> list[int]:
    """Entries without a tensor; the first is the first convolution."""
    return [i for i, entry in enumerate(inputs) if i and not any(entry.values())]


def _places(blocks: Iterable[int]) -> list[tuple[int, int]]:
    """Level and place in it of each entry; a level has one more than its residual blocks."""
    return [(level, place) for level, count in enumerate(blocks) for place in range(count + 1)]


def _reshape(network: Any, plan: Mapping[str, Any]) -> None:
    """Makes of diffusers' network, whose levels are alike and convolve where they resample, the one of the plan."""
    from diffusers.models.upsampling import Upsample2D
    from torch import nn

    for down, count in zip(network.down_blocks, plan["blocks"], strict=True):
        for layers in _rows(down):
            del layers[count:]
        if plan["pools"] and down.downsamplers:
            down.downsamplers = nn.ModuleList([nn.AvgPool2d(2)])
    for up, count in zip(network.up_blocks, reversed(plan["blocks"]), strict=True):
        for layers in _rows(up):
            # The first and the last have inputs of their own widths.
            del layers[1 : len(layers) - count]
        if plan["pools"] and up.upsamplers:
            up.upsamplers = nn.ModuleList([Upsample2D(up.resnets[-1].out_channels)])


def _rows(block: Any) -> list[Any]:
    return [block.resnets, *([block.attentions] if hasattr(block, "attentions") else [])]


def _plan(state: State) -> dict[str, Any]:
    """How the network is built, and where each of its layers goes."""
    if "label_emb.weight" in state:
        raise ValueError("class-conditional")
    inputs, outputs = _entries(state, "input_blocks"), _entries(state, "output_blocks")
    blocks = _blocks(inputs, outputs)
    resnet = any(len(entry["res"]) > 1 for entry in outputs)
    widths, attention = [], []
    for first, (_, place) in enumerate(_places(blocks), 1):
        if place == 0:
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
        "layers_per_block": max(blocks),
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
    return {"config": config, "blocks": blocks, "pools": bool(_pools(inputs)), "inputs": inputs, "outputs": outputs}


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
    for index, (level, place) in enumerate(_places(plan["blocks"])[:-1], 1):
        entry, here, old = plan["inputs"][index], f"down_blocks.{level}", f"input_blocks.{index}"
        if place == plan["blocks"][level]:
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
    for index, (level, place) in enumerate(_places(reversed(plan["blocks"]))):
        entry = plan["outputs"][index]
        here, old = f"up_blocks.{level}", f"output_blocks.{index}"
        res(f"{old}.0", f"{here}.resnets.{place}")
        for position in entry["attn"]:
            attention(f"{old}.{position}", f"{here}.attentions.{place}")
        for position in entry["conv"]:
            leaf(f"{old}.{position}.conv", f"{here}.upsamplers.0.conv")
        for position in entry["res"][1:]:
            res(f"{old}.{position}", f"{here}.upsamplers.0")
    return out
