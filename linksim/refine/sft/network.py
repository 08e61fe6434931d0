"""SFT's networks: what tells a latent Z of an image, its diffusion, and a transformer that restores by Z.

Shapes are DiffIR's (Xia et al., ICCV 2023), which the GSC paper takes over: N1 (CPEN), N2 (a Restormer whose layers
are modulated by Z) and a denoiser of linear layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from linksim.nets.layers import LayerNorm2d

Size = Literal["compact", "paper"]
Betas = Literal["linear", "sqrt"]
Predict = Literal["x0", "eps"]

#: Steps T of the latent diffusion.
STEPS = 4

#: Ends of the betas (GSC paper, section IV-A).
_BETAS = (0.1, 0.99)

_UNSHUFFLE = 4
_RESIDUALS = 6
_SLOPE = 0.1

#: Standard deviation of what turns Z into scales and shifts, at the start.
_NEAR = 0.02


@dataclass(frozen=True)
class Shape:
    """Widths and depths.

    Args:
        latent: C' of N1; Z has 4 C' numbers.
        width: channels of N2 at its first level.
        blocks: of N2's four levels.
        refinement: blocks behind them.
        unshuffle: by which N2 takes its images apart first.
        heads: of N2's levels.
    """

    latent: int
    width: int
    blocks: tuple[int, int, int, int]
    refinement: int
    unshuffle: int
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)

    @property
    def stride(self) -> int:
        """What an image's sides are multiples of."""
        return max(8 * self.unshuffle, _UNSHUFFLE)


SHAPES: dict[Size, Shape] = {
    "compact": Shape(32, 24, (1, 2, 2, 2), 1, 2),
    "paper": Shape(96, 48, (3, 5, 6, 6), 4, 1),
}


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.layers(x)
        return found


class LatentEncoder(nn.Module):
    """N1: images to Z.

    Args:
        images: how many it sees at once: 2, the original beside the first stage's (training), or 1 (N1').
        latent: C'.

    Example:
        >>> LatentEncoder(1, 32)(torch.rand(5, 3, 32, 32)).shape
        torch.Size([5, 128])
    """

    def __init__(self, images: int, latent: int) -> None:
        super().__init__()
        c, act = latent, nn.LeakyReLU(_SLOPE)
        self.unshuffle = nn.PixelUnshuffle(_UNSHUFFLE)
        self.head = nn.Conv2d(images * 3 * _UNSHUFFLE**2, c, 3, padding=1)
        self.body = nn.Sequential(
            act, *(_Residual(c) for _ in range(_RESIDUALS)),
            nn.Conv2d(c, 2 * c, 3, padding=1), act,
            nn.Conv2d(2 * c, 2 * c, 3, padding=1), act,
            nn.Conv2d(2 * c, 4 * c, 3, padding=1), act,
        )  # fmt: skip
        last = nn.Linear(4 * c, 4 * c)
        self.tail = nn.Sequential(nn.Linear(4 * c, 4 * c), act, last, act)
        # Z begins near one, and images apart: PyTorch's own start makes it the same small number for all.
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
                nn.init.constant_(layer.bias, float(layer is last))
        for residual in (part for part in self.body if isinstance(part, _Residual)):
            # Its last convolution: it begins as the identity.
            nn.init.zeros_(list(residual.parameters())[-2])

    def forward(self, *images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1], the first stage's first, to Z [B, 4 C'], float32."""
        shown = self.unshuffle(2 * torch.cat(images, dim=1) - 1)
        found: Tensor = self.tail(self.body(self.head(shown)).mean(dim=(2, 3))).float()
        return found


class _Modulated(nn.Module):
    """A branch with a skip, whose normalised input Z scales and shifts."""

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(channels)
        self.kernel = nn.Linear(latent, 2 * channels, bias=False)
        # With Z near one a branch begins as if Z were not there: its input scaled by one and hardly shifted.
        nn.init.normal_(self.kernel.weight, std=_NEAR)
        self.kernel.weight.data[:channels] += 1 / latent

    def modulated(self, x: Tensor, z: Tensor) -> Tensor:
        scale, shift = self.kernel(z)[:, :, None, None].chunk(2, dim=1)
        found: Tensor = self.norm(x) * scale + shift
        return found


class _Attention(_Modulated):
    """DMTA: attention of channels to channels, by heads."""

    def __init__(self, channels: int, heads: int, latent: int) -> None:
        super().__init__(channels, latent)
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.mixed = nn.Sequential(
            nn.Conv2d(channels, 3 * channels, 1, bias=False),
            nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False),
        )
        self.out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        mixed = self.mixed(self.modulated(x, z)).flatten(2).unflatten(1, (3, self.heads, -1))
        q, k, v = mixed.unbind(1)
        weights = functional.normalize(q, dim=-1) @ functional.normalize(k, dim=-1).mT * self.temperature
        found: Tensor = x + self.out((weights.softmax(dim=-1) @ v).flatten(1, 2).unflatten(2, x.shape[2:]))
        return found


class _FeedForward(_Modulated):
    """DGFN: a gated feed-forward layer of depthwise convolutions, twice as wide as its input."""

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__(channels, latent)
        hidden = 2 * channels
        self.mixed = nn.Sequential(
            nn.Conv2d(channels, 2 * hidden, 1, bias=False),
            nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False),
        )
        self.out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        gate, value = self.mixed(self.modulated(x, z)).chunk(2, dim=1)
        found: Tensor = x + self.out(functional.gelu(gate) * value)
        return found


class _Blocks(nn.Module):
    def __init__(self, channels: int, heads: int, count: int, latent: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList()
        for _ in range(count):
            self.parts += [_Attention(channels, heads, latent), _FeedForward(channels, latent)]

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x, z)
        return x


def _down(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))


def _up(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False), nn.PixelShuffle(2))


class Restorer(nn.Module):
    """N2: the first stage's image restored by Z, a U-shaped transformer with a skip from its input.

    Args:
        shape: widths and depths.

    Example:
        >>> restorer = Restorer(SHAPES["compact"])
        >>> image = torch.rand(2, 3, 32, 32)
        >>> torch.equal(restorer(image, torch.zeros(2, 128)), image)  # it begins as the identity
        True
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        w, latent, blocks, heads = shape.width, 4 * shape.latent, shape.blocks, shape.heads
        colours = 3 * shape.unshuffle**2
        self.apart, self.together = nn.PixelUnshuffle(shape.unshuffle), nn.PixelShuffle(shape.unshuffle)
        self.head = nn.Conv2d(colours, w, 3, padding=1, bias=False)
        widths = [w, 2 * w, 4 * w, 8 * w]
        self.encoder = nn.ModuleList(_Blocks(widths[i], heads[i], blocks[i], latent) for i in range(4))
        self.down = nn.ModuleList(_down(width) for width in widths[:3])
        self.up = nn.ModuleList(_up(width) for width in widths[:0:-1])
        # The topmost level keeps both halves of what meets there.
        self.reduce = nn.ModuleList([*(nn.Conv2d(2 * v, v, 1, bias=False) for v in widths[2:0:-1]), nn.Identity()])
        decoder = [(widths[2], heads[2], blocks[2]), (widths[1], heads[1], blocks[1]), (2 * w, heads[0], blocks[0])]
        self.decoder = nn.ModuleList(_Blocks(*level, latent) for level in decoder)
        self.refinement = _Blocks(2 * w, heads[0], shape.refinement, latent)
        self.tail = nn.Conv2d(2 * w, colours, 3, padding=1, bias=False)
        # With weights at random it would begin below its own input.
        nn.init.zeros_(self.tail.weight)

    def forward(self, shown: Tensor, z: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] with Z [B, 4 C'] to images, float32, not clamped."""
        x = self.head(self.apart(shown))
        skips: list[Tensor] = []
        for index, level in enumerate(self.encoder):
            x = level(x, z)
            if index < len(self.down):
                skips.append(x)
                x = self.down[index](x)
        for up, reduce, level in zip(self.up, self.reduce, self.decoder, strict=True):
            x = level(reduce(torch.cat([up(x), skips.pop()], dim=1)), z)
        found: Tensor = shown + self.together(self.tail(self.refinement(x, z)).float())
        return found


class Denoiser(nn.Module):
    """One step back of the latent diffusion: what it predicts of Z_t, told D and the step."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * latent + 1, latent), nn.LeakyReLU(_SLOPE))
        self.tail = nn.Linear(latent, latent)

    def forward(self, told: Tensor, step: int, z: Tensor) -> Tensor:
        """D [B, L], the step t of T and Z_t [B, L] to [B, L]."""
        time = torch.full_like(z[:, :1], step / (10 * STEPS))
        found: Tensor = self.tail(self.layers(torch.cat([told, time, z], dim=1))).float()
        return found


class Diffusion:
    """The process of Z over T = 4 steps.

    Args:
        betas: "linear" (GSC paper) or "sqrt", linear in the root as DiffIR has them.
        predict: what the denoiser tells: Z_0 ("x0", as DiffIR's code) or the noise ("eps", eq. 13).

    Example:
        >>> [round(float(beta), 3) for beta in Diffusion("linear", "x0").betas]
        [0.1, 0.397, 0.693, 0.99]
    """

    def __init__(self, betas: Betas, predict: Predict) -> None:
        low, high = _BETAS
        line = torch.linspace(low**0.5, high**0.5, STEPS) ** 2 if betas == "sqrt" else torch.linspace(low, high, STEPS)
        self.betas, self.predict = line, predict
        self.kept = torch.cumprod(1 - line, 0)

    def noisy(self, z: Tensor, noise: Tensor) -> Tensor:
        """Z_T of Z_0 [B, L] and unit noise (eq. 12)."""
        kept = float(self.kept[-1])
        found: Tensor = kept**0.5 * z + (1 - kept) ** 0.5 * noise
        return found

    def back(self, denoiser: Denoiser, told: Tensor, z: Tensor) -> Tensor:
        """Z_0 of Z_T [B, L] by all steps, each without a random part (eq. 13)."""
        for index in reversed(range(STEPS)):
            beta, kept = float(self.betas[index]), float(self.kept[index])
            before = float(self.kept[index - 1]) if index else 1.0
            found = denoiser(told, index + 1, z)
            if self.predict == "x0":
                z = (before**0.5 * beta * found + (1 - beta) ** 0.5 * (1 - before) * z) / (1 - kept)
            else:
                z = (z - beta / (1 - kept) ** 0.5 * found) / (1 - beta) ** 0.5
        return z


class SftNetwork(nn.Module):
    """All of SFT: N1 with the original, N1' without, the denoiser, N2; or N2 alone with a constant Z.

    Args:
        size: "compact" or "paper".
        prior: whether there is a diffusion; without, Z is one learned constant, which tells N2's own part.
        first: the transceiver, where it is trained beside it; None where it is frozen and lies elsewhere.
    """

    def __init__(self, size: Size, prior: bool = True, first: nn.Module | None = None) -> None:
        super().__init__()
        self.first = first
        shape = SHAPES[size]
        latent = 4 * shape.latent
        self.restorer = Restorer(shape)
        self.prior = prior
        if prior:
            self.teacher, self.encoder = LatentEncoder(2, shape.latent), LatentEncoder(1, shape.latent)
            self.denoiser = Denoiser(latent)
        else:
            self.constant = nn.Parameter(torch.randn(latent))

    def hand_over(self) -> None:
        """N1' begins as N1, but for its first layer, which sees one image (GSC paper, section III-C)."""
        for part in ("body", "tail"):
            getattr(self.encoder, part).load_state_dict(getattr(self.teacher, part).state_dict())

    def latent(self, shown: Tensor, noise: Tensor, diffusion: Diffusion) -> Tensor:
        """Z of images alone, [B, L]; `noise`: Z_T, drawn from N(0, 1)."""
        if not self.prior:
            found: Tensor = self.constant.expand(len(shown), -1)
            return found
        return diffusion.back(self.denoiser, self.encoder(shown), noise)

    @property
    def latent_size(self) -> int:
        """L, numbers of Z."""
        found: int = self.constant.shape[0] if not self.prior else self.denoiser.tail.out_features
        return found
