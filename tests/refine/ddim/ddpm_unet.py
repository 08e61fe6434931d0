"""The UNet of DDPM (Ho, Jain, Abbeel 2020) in its PyTorch form, written down as an oracle.

Names are those of the published checkpoints; the arithmetic is plain torch.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, eps=1e-6)


class Block(nn.Module):
    def __init__(self, a: int, b: int, emb: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(a), nn.Conv2d(a, b, 3, padding=1)
        self.temb_proj = nn.Linear(emb, b)
        self.norm2, self.conv2 = _norm(b), nn.Conv2d(b, b, 3, padding=1)
        if a != b:
            self.nin_shortcut = nn.Conv2d(a, b, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.temb_proj(F.silu(emb))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2) for layer in (self.q, self.k, self.v))
        share = torch.einsum("bci,bcj->bij", q, k).div(x.shape[1] ** 0.5).softmax(2)
        return x + self.proj_out(torch.einsum("bcj,bij->bci", v, share).view_as(x))


class Resample(nn.Module):
    """Half the side, the first pixel first; or twice."""

    def __init__(self, width: int, up: bool) -> None:
        super().__init__()
        self.up, self.conv = up, nn.Conv2d(width, width, 3, 1 if up else 2, 1 if up else 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0) if self.up else F.pad(x, (0, 1, 0, 1)))


class Level(nn.Module):
    def __init__(self, widths: list[tuple[int, int]], emb: int, attends: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(Block(a, b, emb) for a, b in widths)
        self.attn = nn.ModuleList(Attention(b) for _, b in widths if attends)

    def step(self, place: int, x: Tensor, emb: Tensor) -> Tensor:
        x = self.block[place](x, emb)
        return self.attn[place](x) if len(self.attn) else x


class DdpmUNet(nn.Module):
    """`attention` holds the levels that attend, 0 at the top."""

    def __init__(self, base: int, mult: tuple[int, ...], blocks: int, attention: tuple[int, ...]) -> None:
        super().__init__()
        self.base, emb = base, 4 * base
        self.temb = nn.Module()
        self.temb.dense = nn.ModuleList([nn.Linear(base, emb), nn.Linear(emb, emb)])
        self.conv_in = nn.Conv2d(3, base, 3, padding=1)
        widths = [base * m for m in mult]
        skips, now = [base], base
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            steps = [(now if place == 0 else width, width) for place in range(blocks)]
            self.down.append(Level(steps, emb, level in attention))
            now = width
            skips += [width] * blocks
            if level < len(widths) - 1:
                self.down[-1].downsample = Resample(width, up=False)
                skips.append(width)
        self.mid = nn.Module()
        self.mid.block_1, self.mid.attn_1, self.mid.block_2 = Block(now, now, emb), Attention(now), Block(now, now, emb)
        for level, width in reversed(list(enumerate(widths))):
            steps = []
            for _ in range(blocks + 1):
                steps.append((now + skips.pop(), width))
                now = width
            self.up.insert(0, Level(steps, emb, level in attention))
            if level:
                self.up[0].upsample = Resample(width, up=True)
        self.norm_out, self.conv_out = _norm(now), nn.Conv2d(now, 3, 3, padding=1)

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        half = self.base // 2
        rates = torch.exp(-math.log(10000) * torch.arange(half) / (half - 1))
        angles = times[:, None].float() * rates
        emb = self.temb.dense[1](F.silu(self.temb.dense[0](torch.cat([angles.sin(), angles.cos()], 1))))
        skips = [self.conv_in(x)]
        for level in self.down:
            for place in range(len(level.block)):
                skips.append(level.step(place, skips[-1], emb))
            if hasattr(level, "downsample"):
                skips.append(level.downsample(skips[-1]))
        x = self.mid.block_2(self.mid.attn_1(self.mid.block_1(skips[-1], emb)), emb)
        for level in reversed(self.up):
            for place in range(len(level.block)):
                x = level.step(place, torch.cat([x, skips.pop()], 1), emb)
            if hasattr(level, "upsample"):
                x = level.upsample(x)
        return self.conv_out(F.silu(self.norm_out(x)))
