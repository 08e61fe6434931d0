"""The network of `flow`: how far off a first stage's images are, and where they flow to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from linksim.metrics.frechet import kernel_distance
from linksim.refine.base import Steps, silent

_GROUPS = 8
_FREQUENCIES = 16

#: Root mean squared errors, on [0, 1], between which a level is told.
_LEVELS = (1e-3, 0.5)


class _Told(nn.Module):
    """Time and level as one embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4 * _FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, time: Tensor, level: Tensor) -> Tensor:
        """Time [B] in [0, 1] and level [B] in [0, 1] to [B, width]."""
        scales = 2.0 ** torch.arange(_FREQUENCIES, device=time.device).mul(0.5)
        angles = torch.stack([time, level], 1)[..., None] * scales
        found: Tensor = self.layers(torch.cat([angles.sin(), angles.cos()], 2).flatten(1))
        return found


class _Block(nn.Module):
    """Two 3x3 convolutions with a skip; the embedding scales and shifts between them."""

    def __init__(self, inputs: int, outputs: int, told: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(_GROUPS, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.told = nn.Linear(told, 2 * outputs)
        self.norm = nn.GroupNorm(_GROUPS, outputs)
        self.second = nn.Sequential(nn.SiLU(), nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        for value in (*self.second[1].parameters(), *self.told.parameters()):
            nn.init.zeros_(value)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.told(told)[:, :, None, None].chunk(2, 1)
        added: Tensor = self.second(self.norm(self.first(x)) * (1 + scale) + shift)
        found: Tensor = added + self.skip(x)
        return found


class _Level(nn.Module):
    """How far off images are, by their look alone."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.SiLU()]
        for a, b in ((width, 2 * width), (2 * width, 4 * width), (4 * width, 4 * width)):
            layers += [nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(_GROUPS, b), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.tail = nn.Linear(4 * width, 1)

    def forward(self, shown: Tensor) -> Tensor:
        found: Tensor = self.tail(self.layers(shown).float().mean((2, 3)))[:, 0]
        return found


class FlowNetwork(nn.Module):
    """A U-Net that tells velocities in units of the first stage's own error.

    Args:
        widths: channels at full resolution and at the levels below.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128)) -> None:
        super().__init__()
        told = 4 * widths[0]
        self.embedding = _Told(told)
        self.error = _Level()
        self.head = nn.Conv2d(6, widths[0], 3, padding=1)
        self.down, self.up, self.shrink = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for above, width in zip((widths[0], *widths), widths, strict=False):
            self.shrink.append(nn.Conv2d(above, width, 3, 2, 1) if len(self.down) else nn.Identity())
            self.down.append(_Block(width, width, told))
        self.middle = _Block(widths[-1], widths[-1], told)
        for width, below in zip(reversed(widths), (widths[-1], *reversed(widths)), strict=False):
            self.up.append(_Block(width + below, width, told))
        self.tail = nn.Sequential(nn.GroupNorm(_GROUPS, widths[0]), nn.SiLU(), nn.Conv2d(widths[0], 3, 3, padding=1))
        for value in self.tail[2].parameters():
            nn.init.zeros_(value)

    def level(self, shown: Tensor) -> Tensor:
        """Logarithm of the root mean squared error of images [B, 3, H, W] in [0, 1], as it is believed; [B]."""
        low, high = map(math.log, _LEVELS)
        found: Tensor = self.error(2 * shown - 1)
        return low + (high - low) * found.sigmoid()

    def forward(self, x: Tensor, shown: Tensor, time: Tensor, level: Tensor) -> Tensor:
        """Velocities.

        Args:
            x: where the flow is, [B, 3, H, W]; H and W are multiples of 4.
            shown: the first stage's images, [B, 3, H, W] in [0, 1].
            time: [B], 0 to 1.
            level: see `level`.

        Returns:
            [B, 3, H, W], float32, in units of the root mean squared error.
        """
        low, high = map(math.log, _LEVELS)
        scale = level.exp()[:, None, None, None]
        told = self.embedding(time, (level - low) / (high - low))
        y = self.head(torch.cat([(x - shown) / scale, 2 * shown - 1], 1).contiguous(memory_format=torch.channels_last))
        skips: list[Tensor] = []
        for shrink, block in zip(self.shrink, self.down, strict=True):
            y = block(shrink(y), told)
            skips.append(y)
        y = self.middle(y, told)
        for block in self.up:
            skip = skips.pop()
            if y.shape[-2:] != skip.shape[-2:]:
                y = nn.functional.interpolate(y, skip.shape[-2:])
            y = block(torch.cat([y, skip], 1), told)
        found: Tensor = self.tail(y).float()
        return found


class Critic(nn.Module):
    """Tells images that were sent from images that a flow points to, by the layers of LPIPS (Sauer et al. 2021).

    Args:
        widths: channels of the layers.
        width: channels inside.
    """

    def __init__(self, widths: Sequence[int], width: int = 64) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, width, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, width, 3, padding=1),
                nn.GroupNorm(_GROUPS, width), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 1),
            )
            for inputs in widths
        )  # fmt: skip

    def forward(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """Layers [B, C, H, W] of unit norm over the channels to logits [B, 1, H, W] each, high for real images."""
        # A value of a unit vector is small: to a mean square of one.
        return [head(layer * layer.shape[1] ** 0.5) for head, layer in zip(self.heads, layers, strict=True)]


def strength_at(level: Tensor, strengths: Sequence[tuple[float, float]]) -> Tensor:
    """The share of the way to go from images that are so far off: between known levels in proportion, [B].

    Args:
        level: see `FlowNetwork.level`, [B].
        strengths: root mean squared errors, rising, each with its share (`strengths_of`).

    Example:
        >>> levels = torch.tensor([0.01, 0.1, 0.9]).double().log()
        >>> strength_at(levels, [(0.01, 0.0), (1.0, 1.0)]).round(decimals=2).tolist()
        [0.0, 0.5, 0.98]
    """
    errors, shares = np.array(strengths).T
    return torch.from_numpy(np.interp(level.double().cpu().numpy(), np.log(errors), shares)).to(level)


#: SNRs in dB at which an image is received; beyond them nothing more is known of its error.
_RECEIVED_DB = (-15.0, 20.0)


def errors_told(level: Tensor, received_db: Tensor, told: Sequence[float]) -> Tensor:
    """Logarithms of images' errors, from what the network takes them for and the SNRs at which they were received, [B].

    A small error is hidden in an image: the network alone takes what is received well for worse than it is.

    Args:
        level: see `FlowNetwork.level`, [B].
        received_db: SNRs in dB, [B].
        told: a constant, the level's factor, the SNR's (`told_of`).

    Example:
        >>> errors_told(torch.tensor([-3.0, -3.0]), torch.tensor([0.0, 30.0]), (-1.0, 0.5, -0.05)).tolist()
        [-2.5, -3.5]
    """
    constant, of_level, of_received = told
    return constant + of_level * level + of_received * received_db.to(level).clamp(*_RECEIVED_DB)


def told_of(levels: Tensor, received_db: Tensor, errors: Tensor) -> tuple[float, float, float]:
    """What `errors_told` is told: the least squares between logarithms.

    Args:
        levels: see `FlowNetwork.level`, [M].
        received_db: SNRs in dB at which the images were received, [M].
        errors: root mean squared errors that they had, [M].

    Example:
        >>> levels, received_db = torch.randn(9), torch.arange(9.0)
        >>> told_of(levels, received_db, (0.5 * levels - 0.1 * received_db - 1).exp())
        (-1.0, 0.5, -0.1)
    """
    known = torch.stack([torch.ones_like(levels), levels, received_db.clamp(*_RECEIVED_DB)], 1).double()
    constant, of_level, of_received = torch.linalg.lstsq(known, errors.double().log()[:, None]).solution[:, 0].tolist()
    return round(constant, 4), round(of_level, 4), round(of_received, 4)


#: Images of a level, at the least.
_A_LEVEL = 250

#: Of the fall in distance.
_ENOUGH = 0.98


def strengths_of(
    levels: Tensor, distances: Tensor, sent: Tensor, gone: Tensor, shares: Sequence[float]
) -> list[tuple[float, float]]:
    """For each level of error the share of the way that makes images most like those that were sent, as a set.

    That is the least one that brings `_ENOUGH` of what any brings of the kernel distance of their features: the last of
    it costs most. A share that raises the mean distance to what was sent is none, and of either half of a level, the
    better images and the worse, is taken the most that does not.

    Args:
        levels: logarithms of errors, [M].
        distances: of images that went so far, [M, S]; the first column is of those that stayed.
        sent: features of what was sent, [M, D].
        gone: those of images that went so far, [M, S, D].
        shares: S of them, rising, 0 first.

    Returns:
        Root mean squared errors, rising, each with its share: two a level, of some 250 images, and of twelve levels at
        most.

    Example:
        >>> levels = torch.tensor([0.01] * 250 + [0.1] * 250).log()
        >>> distances = torch.tensor([[1.0, 1.1, 1.2]] * 250 + [[1.0, 0.9, 0.9]] * 250)
        >>> sent = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
        >>> gone = sent[:, None] + torch.tensor([0.9, 0.1, 0.6])[:, None]
        >>> strengths_of(levels, distances, sent, gone, (0.0, 0.5, 1.0))
        [(0.01, 0.0), (0.01, 0.0), (0.1, 0.5), (0.1, 0.5)]
    """
    found = []
    for part in levels.argsort().tensor_split(max(1, min(12, len(levels) // _A_LEVEL))):
        means = distances[part].double().mean(0)
        far = {
            place: kernel_distance(sent[part].numpy(), gone[part, place].numpy(), paired=True)
            for place in range(len(shares))
            if means[place] <= means[0]
        }
        enough = far[0] - _ENOUGH * (far[0] - min(far.values()))
        best = min(place for place in far if far[place] <= enough)
        for half in part.tensor_split(2):
            means = distances[half].double().mean(0)
            most = max(place for place in range(best + 1) if means[place] <= means[0])
            found.append((round(float(levels[half].mean().exp()), 5), shares[most]))
    return found


def flow(
    network: FlowNetwork, shown: Tensor, noise: Tensor, steps: int, noise_level: float, report: Steps = silent
) -> Tensor:
    """Images that flow from a first stage's, by Euler steps.

    Args:
        network: tells velocities.
        shown: the first stage's images, float32 [B, 3, H, W] in [0, 1].
        noise: drawn from N(0, 1), [B, 3, H, W].
        steps: Euler steps.
        noise_level: share of the first stage's error that the start is moved by.
        report: called after each step with the steps done and in all.

    Returns:
        float32 [B, 3, H, W], not clamped.
    """
    level = network.level(shown)
    scale = level.exp()[:, None, None, None]
    x = shown + noise_level * scale * noise
    for step in range(steps):
        time = torch.full_like(level, step / steps)
        x = x + scale * network(x, shown, time, level) / steps
        report(step + 1, steps)
    return x
