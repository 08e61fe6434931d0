"""What a process of the server does with a batch of image groups; a pure function of the job."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from linksim.data import load_dataset
from linksim.data.datasets import embedded_images
from linksim.engine.config import SweepConfig
from linksim.engine.transfer import one_thread, transfer
from linksim.engine.variants import Variant, find
from linksim.errors import LinksimError
from linksim.link.config import MAX_USERS, LinkConfig, Setting
from linksim.metrics import METRICS, ImageMetric, make_metric, require
from linksim.models.spec import CIFAR10_SHAPE
from linksim.refine.behind import Refined
from linksim.schemes.base import Reference, Scheme, System
from linksim.schemes.learned import Learned
from linksim.schemes.orthogonal import Orthogonal

Shape = tuple[int, int, int]

#: Images that stand in for those of users who are not there.
EMBEDDED = "cifar10-mini"

#: Images of different users and groups that stand in, of 32x32; fewer of larger ones.
_STAND_INS = 64

#: Bandwidth ratio of a user's image where none is given.
DEFAULT_RHO = Fraction(1, 6)


@dataclass(frozen=True)
class Served:
    """What is served: the links and the schemes, as a sweep has them. Small enough to send to a worker.

    Args:
        config: schemes, channels, users, power, metrics and the like; its SNR, data set and groups mean nothing here.
        rho: of the system; None takes 1/6, of each user where users take turns.
        device: torch device.
    """

    config: SweepConfig
    rho: Fraction | None = None
    device: str = "cpu"

    def link(self, variant: Variant, channel: str) -> LinkConfig:
        """The link of one image group.

        Where users take turns and share no network they do not know of each other, and each is a link of its own.
        """
        link = self.config.link(channel)
        return replace(link, users=1) if self._alone(variant) else link

    def setting(self, variant: Variant, channel: str, shape: Shape) -> Setting:
        """What a scheme may know beforehand, for images of `shape` (C, H, W)."""
        link, config = self.link(variant, channel), self.config
        turns = _first(variant).access == "oma"
        whole = self.rho or DEFAULT_RHO * (config.users if turns else 1)
        rho = whole * link.users / config.users if turns else whole
        mean = load_dataset(EMBEDDED).train_mean
        return Setting(link, shape, rho, mean, self.device, config.precision)

    def system(self, variant: Variant, channel: str, shape: Shape) -> System:
        """The scheme itself. Raises LinksimError where it cannot work there."""
        return variant.build(self.setting(variant, channel, shape))

    @staticmethod
    def mixes(variant: Variant) -> bool:
        """Whether groups of several SNRs can be one batch: networks take each its own, digital schemes one for all."""
        return issubclass(_first(variant), Learned)

    @staticmethod
    def _alone(variant: Variant) -> bool:
        first = _first(variant)
        return first.access == "oma" and (issubclass(first, Orthogonal) or not issubclass(first, Learned))


def _first(variant: Variant) -> type[Scheme | Reference]:
    """The class of the first stage."""
    system = find(variant.name)
    return cast(type[Scheme | Reference], system.first_stage if issubclass(system, Refined) else system)


@dataclass(frozen=True)
class Job:
    """A batch of image groups over one link.

    Args:
        variant, channel: of what is served.
        images: uint8 [B, N, C, H, W].
        snr_db: of each group, [B].
        seed, groups: what the draws are keyed by.
        seats: (group, user) of the images that somebody waits for; the others are stand-ins.
        known: symbols that were sent before, of the first groups, complex64 [B', N, k]; see `transfer`.
        floats: whether the images are wanted as they are, too.
    """

    variant: Variant
    channel: str
    images: NDArray[np.uint8]
    snr_db: tuple[float, ...]
    seed: int
    groups: tuple[int, ...]
    seats: tuple[tuple[int, int], ...]
    known: NDArray[np.complex64] | None = None
    floats: bool = False


@dataclass(frozen=True)
class Shown:
    """What one stage shows of one image.

    Args:
        stage: its name.
        png: the image.
        values: column of a metric -> value.
        pixels: float32 [C, H, W] where they were wanted.
        lost: whether the receiver knows that the image did not arrive.
    """

    stage: str
    png: bytes
    values: dict[str, float]
    pixels: NDArray[np.float32] | None = None
    lost: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Args:
        shown: for each seat, what every stage shows.
        symbols: that were sent for the groups that were not known, complex64 [B - B', N, k]; None for a bound.
        channel_uses: of the system, for one group.
        seconds: by stage of the work.
    """

    shown: tuple[tuple[Shown, ...], ...]
    symbols: NDArray[np.complex64] | None
    channel_uses: int
    seconds: dict[str, float]


@functools.lru_cache(maxsize=32)
def system_of(served: Served, variant: Variant, channel: str, shape: Shape) -> System:
    """The scheme of a job, made once a process. Raises LinksimError."""
    return served.system(variant, channel, shape)


@functools.lru_cache(maxsize=16)
def _metric(name: str, device: str) -> ImageMetric:
    found = make_metric(name, device)
    assert isinstance(found, ImageMetric)
    return found


def run(served: Served, job: Job) -> Outcome:
    """Sends a batch and receives it.

    Raises:
        LinksimError: the images do not fit the scheme, or the scheme broke its contract.
    """
    system = system_of(served, job.variant, job.channel, job.images.shape[2:])
    with one_thread(), torch.inference_mode():
        images = torch.from_numpy(job.images).to(served.device).float() / 255
        known = None if job.known is None else torch.from_numpy(job.known).to(served.device)
        done = transfer(system, images, job.snr_db, job.seed, job.groups, known=known)
        rows = [torch.tensor(part, device=images.device) for part in zip(*job.seats, strict=True)]
        original = images[rows[0], rows[1]]
        stages: list[list[Shown]] = []
        for stage, received in done.stages.items():
            shown = received.images.to(original)[rows[0], rows[1]].clamp(0, 1)
            measured = shown if served.config.pixels == "float" else (shown * 255).round() / 255
            values = {}
            for name in served.config.metrics:
                metric = _metric(name, served.device)
                values[metric.column] = metric(original, measured).double().tolist()
            pixels = (shown * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            lost = [False] * len(shown) if received.lost is None else received.lost[rows[0], rows[1]].tolist()
            stages.append([
                Shown(stage, as_png(pixels[seat]), {column: of[seat] for column, of in values.items()},
                      shown[seat].float().cpu().numpy() if job.floats else None, lost[seat])
                for seat in range(len(job.seats))
            ])  # fmt: skip
    symbols = None
    if done.symbols is not None:
        symbols = done.symbols[0 if job.known is None else len(job.known) :].cpu().numpy()
    return Outcome(tuple(zip(*stages, strict=True)), symbols, done.channel_uses, done.seconds)


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """An image [H, W, C] as a PNG file.

    Example:
        >>> as_png(np.zeros((8, 8, 3), np.uint8))[1:4]
        b'PNG'
    """
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


@functools.lru_cache(maxsize=8)
def _embedded(shape: Shape) -> NDArray[np.uint8]:
    return embedded_images(_STAND_INS, shape, multiple=MAX_USERS)


def stand_in(group: int, user: int, shape: Shape) -> NDArray[np.uint8]:
    """What the seat of a user who is not there sends: an embedded image of `shape` (C, H, W), always the same there.

    Example:
        >>> stand_in(7, 1, (3, 32, 32)).shape
        (3, 32, 32)
    """
    images = _embedded(shape)
    found: NDArray[np.uint8] = images[(group * MAX_USERS + user) % len(images)]
    return found


def warm(served: Served, shape: Shape | None) -> None:
    """Loads in this process what the first request would wait for. Raises LinksimError."""
    for variant in served.config.variants:
        for channel in served.config.channel:
            size = shape or CIFAR10_SHAPE
            users = served.link(variant, channel).users
            images = np.stack([stand_in(0, user, size) for user in range(users)])[None]
            run(served, Job(variant, channel, images, (10.0,), 0, (0,), ((0, 0),)))


def check(served: Served, shape: Shape | None) -> None:
    """Raises LinksimError, in one line, for what cannot be served."""
    config = served.config
    for variant in config.variants:
        if variant.best_of is not None:
            raise LinksimError(
                f"{variant.label}: an envelope is the best of many curves, and no scheme: give one {variant.best_of}"
            )
        for channel in config.channel:
            system_of(served, variant, channel, shape or CIFAR10_SHAPE)
    for name in config.metrics:
        if METRICS.find(name).of_a_set:
            raise LinksimError(f"metric {name!r} is of a set of images: a server measures single ones")
    require(config.metrics)
