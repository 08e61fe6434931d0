"""The UNet of improved-diffusion and guided-diffusion, written down from its published checkpoints' tensors: an oracle.

Names are those of the checkpoints; the arithmetic is plain torch.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Res(nn.Module):
    def __init__(self, a: int, b: int, emb: int, scale_shift: bool, resample: str = "") -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(32, a), nn.SiLU(), nn.Conv2d(a, b, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, 2 * b if scale_shift else b))
        self.out_layers = nn.Sequential(nn.GroupNorm(32, b), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(b, b, 3, padding=1))
        self.skip_connection = nn.Identity() if a == b else nn.Conv2d(a, b, 1)
        self.scale_shift, self.resample = scale_shift, resample

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers[1](self.in_layers[0](x))
        if self.resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        if self.resample == "up":
            h, x = F.interpolate(h, scale_factor=2.0), F.interpolate(x, scale_factor=2.0)
        h = self.in_layers[2](h)
        told = self.emb_layers(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, 1)
            h = self.out_layers[0](h) * (1 + scale) + shift
        else:
            h = self.out_layers[0](h + told)
        for layer in self.out_layers[1:]:
            h = layer(h)
        return self.skip_connection(x) + h


class Attention(nn.Module):
    def __init__(self, channels: int, heads: int, order: str) -> None:
        super().__init__()
        self.norm, self.heads, self.order = nn.GroupNorm(32, channels), heads, order
        self.qkv, self.proj_out = nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        flat = x.reshape(batch, channels, -1)
        rows, size = self.qkv(self.norm(flat)), channels // self.heads
        if self.order == "legacy":
            q, k, v = rows.reshape(batch * self.heads, 3 * size, -1).split(size, 1)
        else:
            q, k, v = (part.reshape(batch * self.heads, size, -1) for part in rows.chunk(3, 1))
        weights = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / math.sqrt(size), -1)
        shown = torch.einsum("bts,bcs->bct", weights, v).reshape(batch, channels, -1)
        return (flat + self.proj_out(shown)).reshape(x.shape)


class Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.op(x)


class Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0))


class Pool(nn.Module):
    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)


class Repeat(nn.Module):
    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0)


class First(nn.Conv2d):
    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class Row(nn.Sequential):
    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, emb)
        return x


class UNet(nn.Module):
    """`heads` is a number, or a text like "32c", channels a head; "2/4" has others on the way up.

    `blocks` is one number, or one of each level; `convolve` is theirs `conv_resample`.
    """

    def __init__(
        self, base: int, mult: tuple[int, ...], blocks: int | tuple[int, ...], attention: tuple[int, ...],
        heads: str, order: str, scale_shift: bool, updown: bool, out: int, convolve: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        emb = 4 * base
        self.base = base
        each = (blocks,) * len(mult) if isinstance(blocks, int) else blocks
        self.time_embed = nn.Sequential(nn.Linear(base, emb), nn.SiLU(), nn.Linear(emb, emb))

        def attend(channels: int, up: bool = False) -> Attention:
            own = heads.split("/")[-1 if up else 0]
            return Attention(channels, channels // int(own[:-1]) if own.endswith("c") else int(own), order)

        self.input_blocks = nn.ModuleList([Row(First(3, base, 3, padding=1))])
        kept, channels, ds = [base], base, 1
        for level, factor in enumerate(mult):
            for _ in range(each[level]):
                row: list[nn.Module] = [Res(channels, factor * base, emb, scale_shift)]
                channels = factor * base
                row += [attend(channels)] if ds in attention else []
                self.input_blocks.append(Row(*row))
                kept.append(channels)
            if level != len(mult) - 1:
                plain = Down(channels) if convolve else Pool()
                down = Res(channels, channels, emb, scale_shift, "down") if updown else plain
                self.input_blocks.append(Row(down))
                kept.append(channels)
                ds *= 2
        self.middle_block = Row(
            Res(channels, channels, emb, scale_shift), attend(channels), Res(channels, channels, emb, scale_shift)
        )
        self.output_blocks = nn.ModuleList()
        for level, factor in reversed(list(enumerate(mult))):
            for index in range(each[level] + 1):
                row = [Res(channels + kept.pop(), factor * base, emb, scale_shift)]
                channels = factor * base
                row += [attend(channels, up=True)] if ds in attention else []
                if level and index == each[level]:
                    plain = Up(channels) if convolve else Repeat()
                    row.append(Res(channels, channels, emb, scale_shift, "up") if updown else plain)
                    ds //= 2
                self.output_blocks.append(Row(*row))
        self.out = nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        half = self.base // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half) / half).to(x)
        angles = times[:, None].to(x) * frequencies
        emb = self.time_embed(torch.cat([angles.cos(), angles.sin()], 1))
        kept = []
        for block in self.input_blocks:
            x = block(x, emb)
            kept.append(x)
        x = self.middle_block(x, emb)
        for block in self.output_blocks:
            x = block(torch.cat([x, kept.pop()], 1), emb)
        return self.out(x)
