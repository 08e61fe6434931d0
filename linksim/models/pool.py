"""The images that training steps draw from: in the device's memory, or read from disk as they are drawn."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from linksim.data.training import TrainingSet

#: Bytes of images that are kept in the device's memory; more are read as they are drawn.
RESIDENT = 2**30


@dataclass(frozen=True)
class Drawn:
    """Images of a step.

    Args:
        images: float32 [*shape, C, H, W], 0 to 255.
        corners: top and left of each in the image that it is a part of, [*shape, 2]; None for whole images.
    """

    images: Tensor
    corners: Tensor | None


class Pool:
    """Training images, drawn at random.

    What is drawn is of torch's own generator alone, which a training step seeds: a run that is gone on with draws as
    one that never stopped.

    Args:
        images: the data set.
        device: torch device.
        resident: bytes that may lie in the device's memory.
    """

    def __init__(self, images: TrainingSet, device: str = "cpu", resident: int = RESIDENT) -> None:
        self.device, self._side = device, images.image_shape[1:]
        self._images = torch.from_numpy(images.all()).to(device) if images.nbytes <= resident else None
        self._reader = _Reader(images, device) if self._images is None else None

    def draw(self, shape: tuple[int, ...], flip: bool, crop: int = 0) -> Drawn:
        """Images at random, half of them mirrored where `flip` is; of side `crop` in pixels, 0 takes them whole."""
        if self._reader is not None:
            return self._reader.draw(shape, flip, (crop, crop) if crop else self._side)
        assert self._images is not None
        chosen = torch.randint(len(self._images), shape, device=self.device)
        corners = None
        if crop:
            corners = torch.stack(
                [torch.randint(side - crop + 1, shape, device=self.device) for side in self._side], -1
            )
            span = torch.arange(crop, device=self.device)
            rows, columns = ((corners[..., axis, None] + span) for axis in (0, 1))
            # [*shape, crop, crop, C], since the indices stand on both sides of a slice.
            images = self._images[chosen[..., None, None], :, rows[..., :, None], columns[..., None, :]].movedim(-1, -3)
        else:
            images = self._images[chosen]
        images = images.float()
        if flip:
            images = _mirrored(images, torch.rand(*shape, 1, 1, 1, device=self.device) < 0.5)
        return Drawn(images, corners)


def _mirrored(images: Tensor, which: Tensor) -> Tensor:
    return torch.where(which, images.flip(-1), images)


@dataclass(frozen=True)
class _Request:
    """Images to read: the seed of their draws, how many, mirrored or not, their side."""

    seed: int
    count: int
    flip: bool
    side: tuple[int, int]

    @property
    def next(self) -> _Request:
        """That of the next step."""
        return replace(self, seed=self.seed + 1)


class _Parts(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Reads what a request draws."""

    def __init__(self, images: TrainingSet) -> None:
        self._images, self.side = images, images.image_shape[1:]

    def __getitem__(self, request: _Request) -> tuple[Tensor, Tensor, Tensor]:
        draws = torch.Generator().manual_seed(request.seed)
        chosen = torch.randint(len(self._images), (request.count,), generator=draws)
        room = [whole - part + 1 for whole, part in zip(self.side, request.side, strict=True)]
        corners = torch.stack([torch.randint(free, (request.count,), generator=draws) for free in room], -1)
        mirrored = torch.rand(request.count, generator=draws) < (0.5 if request.flip else 0.0)
        return torch.from_numpy(self._images.crops(chosen.numpy(), corners.numpy(), request.side)), corners, mirrored


@dataclass(frozen=True)
class _Ahead:
    """The requests of a step and of those after it, whose seeds follow each other."""

    first: _Request

    def __iter__(self) -> Iterator[_Request]:
        return (replace(self.first, seed=seed) for seed in itertools.count(self.first.seed))


class _Reader:
    """Images that are read as they are drawn; for a GPU by processes that are some steps ahead."""

    def __init__(self, images: TrainingSet, device: str) -> None:
        self._parts, self._device = _Parts(images), device
        # Beside a step on a CPU, what is read is nothing.
        self._workers = 0 if device == "cpu" else min(4, os.cpu_count() or 1)
        # The parts of a step's batch ask for the same images, one after the other.
        self._served: _Request | None = None
        self._images: tuple[Tensor, ...] = ()
        self._read: Iterator[tuple[Tensor, Tensor, Tensor]] = iter(())

    def draw(self, shape: tuple[int, ...], flip: bool, side: tuple[int, int]) -> Drawn:
        """See `Pool.draw`."""
        request = _Request(torch.initial_seed(), int(torch.Size(shape).numel()), flip, side)
        if request != self._served:
            self._images = self._next(request)
        self._served = request
        images, corners, mirrored = self._images
        found = _mirrored(images.float(), mirrored[:, None, None, None])
        whole = side == self._parts.side
        return Drawn(found.unflatten(0, shape), None if whole else corners.unflatten(0, shape))

    def _next(self, request: _Request) -> tuple[Tensor, ...]:
        """What a request draws, on the device."""
        if self._served is None or request != self._served.next:
            loader = DataLoader(
                self._parts,
                None,
                sampler=_Ahead(request),
                num_workers=self._workers,
                pin_memory=self._device != "cpu",
                # An iterator takes a number when it begins: not one of the step's own draws.
                generator=torch.Generator(),
            )
            self._read = iter(loader)
        return tuple(part.to(self._device, non_blocking=True) for part in next(self._read))
