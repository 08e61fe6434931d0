"""What training steps draw: the same from memory and from disk, as often as a step is done again."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from linksim.data.training import TrainingSet, training_set_of
from linksim.models import pool as pool_module
from linksim.models.pool import Pool


@pytest.fixture(scope="module")
def images() -> TrainingSet:
    """20 images of 24x32 that tell which they are, and where in them one is."""
    rows, columns = np.mgrid[0:24, 0:32]
    made = [np.stack([np.full_like(rows, number), rows, columns]) for number in range(24)]
    return training_set_of(np.stack(made).astype(np.uint8), 4)


@pytest.fixture(params=["resident", "streamed"])
def pool(request: pytest.FixtureRequest, images: TrainingSet) -> Pool:
    return Pool(images, resident=2**30 if request.param == "resident" else 0)


def drawn(pool: Pool, seed: int, crop: int = 0, flip: bool = False) -> tuple[torch.Tensor, torch.Tensor | None]:
    torch.manual_seed(seed)
    found = pool.draw((5, 2), flip, crop)
    return found.images, found.corners


def test_a_step_draws_the_same_whatever_was_drawn_before(pool: Pool) -> None:
    there = [drawn(pool, seed, crop=8) for seed in (7, 8, 9)]
    again = [drawn(pool, seed, crop=8) for seed in (9, 7, 8)]
    for (images, corners), (same, corner) in zip(there, [*again[1:], again[0]], strict=True):
        assert torch.equal(images, same)
        assert torch.equal(corners, corner)  # type: ignore[arg-type]
    assert not torch.equal(there[0][0], there[1][0])


def test_whole_images_are_those_of_the_training_part(pool: Pool, images: TrainingSet) -> None:
    found, corners = drawn(pool, 3)
    assert corners is None
    assert found.shape == (5, 2, 3, 24, 32)
    for image in found.flatten(0, 1):
        number = int(image[0, 0, 0])
        assert number < 20
        np.testing.assert_array_equal(image.numpy(), images.images[np.array([number])][0])  # type: ignore[index]


def test_parts_lie_where_their_corners_say_and_everywhere(pool: Pool) -> None:
    seen = set()
    for seed in range(40):
        found, corners = drawn(pool, seed, crop=16)
        assert corners is not None
        assert found.shape == (5, 2, 3, 16, 16)
        for image, (top, left) in zip(found.flatten(0, 1), corners.flatten(0, 1).tolist(), strict=True):
            assert image[1, :, 0].tolist() == list(range(top, top + 16))
            assert image[2, 0].tolist() == list(range(left, left + 16))
            seen.add((top, left))
    assert {top for top, _ in seen} == set(range(9))
    assert {left for _, left in seen} == set(range(17))


def test_half_of_the_images_are_mirrored(pool: Pool) -> None:
    mirrored = []
    for seed in range(40):
        found, _ = drawn(pool, seed, flip=True)
        mirrored += [bool(image[2, 0, 0] > image[2, 0, -1]) for image in found.flatten(0, 1)]
    assert 0.4 < np.mean(mirrored) < 0.6


def test_what_a_step_draws_beside_its_images_is_of_its_seed_alone(pool: Pool, images: TrainingSet) -> None:
    """As SNRs, fading and noise are: in a run that is gone on with, and in each part of a batch that is shared."""

    def others(pool: Pool, seed: int) -> torch.Tensor:
        drawn(pool, seed, crop=8)
        return torch.rand(4)

    whole = [others(pool, seed) for seed in (7, 8, 9)]
    # From step 8 on, in two parts each; the pool has gone elsewhere between.
    drawn(pool, 70)
    parts = [others(pool, seed) for seed in (8, 8, 9, 9)]
    assert torch.equal(torch.stack(parts), torch.stack([whole[place] for place in (1, 1, 2, 2)]))


def test_images_are_read_once_for_all_parts_of_a_step(images: TrainingSet, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    begun: list[object] = []

    class Reads(pool_module._Parts):
        def __getitem__(self, request: pool_module._Request) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            read.append(request.seed)
            return super().__getitem__(request)

    class Begins(pool_module._Ahead):
        def __iter__(self) -> Iterator[pool_module._Request]:
            begun.append(self)
            return super().__iter__()

    monkeypatch.setattr(pool_module, "_Parts", Reads)
    monkeypatch.setattr(pool_module, "_Ahead", Begins)
    pool = Pool(images, resident=0)
    found = [drawn(pool, seed)[0] for seed in (7, 7, 8, 8, 9, 9)]
    assert (read, len(begun)) == ([7, 8, 9], 1)
    assert all(torch.equal(*pair) for pair in zip(found[::2], found[1::2], strict=True))
