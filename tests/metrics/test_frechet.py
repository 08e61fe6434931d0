from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from linksim.data import ImageSet, load_dataset
from linksim.errors import LinksimError
from linksim.metrics import Fid, Kid, make_metric, reference_features
from linksim.metrics.frechet import inception_state_dict
from tests.metrics.pictures import noisy, photos

Install = Callable[[str], None]


@pytest.fixture(scope="module")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inception") / "inception.pth"


def _saved(file: Path) -> str:
    if not file.exists():
        torch.save(inception_state_dict(), file)
    return str(file)


def test_torchmetrics_published_fid_is_reproduced_with_these_weights(install: Install, network_file: Path) -> None:
    """torchmetrics' documentation: seed 42, the network built (which draws from the stream), two sets of noise."""
    install("inception-fid")
    from torchmetrics.image.fid import FrechetInceptionDistance

    weights = _saved(network_file)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(42)
        fid = FrechetInceptionDistance(feature=64, feature_extractor_weights_path=weights)
        first = torch.randint(0, 200, (100, 3, 299, 299), dtype=torch.uint8)
        second = torch.randint(100, 255, (100, 3, 299, 299), dtype=torch.uint8)
    for start in range(0, 100, 20):
        fid.update(first[start : start + 20], real=True)
        fid.update(second[start : start + 20], real=False)
    np.testing.assert_allclose(fid.compute().item(), 12.6388, atol=5e-4)


class _Some(torch.nn.Module):
    """The first features of a network: torchmetrics' distance takes the cube of their number."""

    num_features = 128

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)[:, : self.num_features]


def test_the_fid_of_a_small_set_equals_torchmetrics_without_its_own_resizing(
    install: Install, network_file: Path
) -> None:
    """torchmetrics resizes with antialiasing by default, which changes this number by 1.6%."""
    install("inception-fid")
    from torchmetrics.image.fid import FrechetInceptionDistance

    reference = photos(6)
    received = noisy(reference)
    metric = make_metric("fid")
    assert isinstance(metric, Fid)
    network = FrechetInceptionDistance(
        feature=2048, antialias=False, feature_extractor_weights_path=_saved(network_file)
    ).inception
    ours, theirs = [], FrechetInceptionDistance(feature=_Some(network))
    for images, real in ((reference, True), (received, False)):
        pixels = (images * 255).round().to(torch.uint8)
        ours.append(metric.features(images))
        np.testing.assert_allclose(ours[-1], network(pixels), rtol=1e-3, atol=1e-4)
        theirs.update(pixels, real=real)
    distance = metric.distance(*(features[:, : _Some.num_features] for features in ours))
    np.testing.assert_allclose(distance, theirs.compute().item(), rtol=1e-4)


def test_features_are_those_of_the_image_rounded_to_8_bits_in_any_batch(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("inception-fid")
    metric = make_metric("fid")
    assert isinstance(metric, Fid)
    monkeypatch.setattr(metric, "_chunk", 4)
    images = photos(9)
    nearby = (images + 0.4 / 255 * torch.where(images < 0.5, 1, -1)).clamp(0, 1)
    features = metric.features(images)
    assert features.shape == (9, 2048)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, metric.features(nearby))
    np.testing.assert_allclose(features[7:], metric.features(images[7:]), atol=1e-4)
    assert not np.array_equal(features[:1], metric.features((images[:1] + 1 / 255).clamp(0, 1)))


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    # The distance of features needs no network.
    return Fid.distance(Fid.__new__(Fid), first.astype(np.float32), second.astype(np.float32))


def test_the_distance_of_gaussian_features_is_the_closed_form() -> None:
    """Diagonal Gaussians: the distance is sum (m1 - m2)^2 + sum (s1 - s2)^2."""
    rng = np.random.default_rng(0)
    mean, deviation = np.linspace(-1, 1, 8), np.linspace(0.5, 2, 8)
    first = rng.standard_normal((200_000, 8))
    second = mean + deviation * rng.standard_normal((200_000, 8))
    expected = (mean**2).sum() + ((1 - deviation) ** 2).sum()
    assert _distance(first, second) == pytest.approx(expected, rel=0.01)


def test_fewer_images_than_features_still_give_the_exact_distance() -> None:
    """Against the singular values of the centred features' product, which needs no covariance of full rank."""
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((20, 256)), rng.standard_normal((30, 256)) + 0.1
    one, two = ((part - part.mean(0)) / np.sqrt(len(part) - 1) for part in (first, second))
    shared = np.linalg.svd(one @ two.T, compute_uv=False).sum()
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + (one**2).sum() + (two**2).sum() - 2 * shared
    assert _distance(first, second) == pytest.approx(expected, rel=1e-4)


def test_a_set_has_no_distance_from_itself() -> None:
    features = np.random.default_rng(0).standard_normal((500, 16))
    assert _distance(features, features) == pytest.approx(0, abs=1e-4)


def test_too_few_images_are_refused_and_few_ones_noted() -> None:
    with pytest.raises(LinksimError, match=r"fid of 999 images.*1000 or more"):
        Fid.check_count(999)
    Fid.check_count(1000)
    assert "2048" in Fid.note(2047)
    assert Fid.note(2048) == ""


class _Counting(Fid):
    """Features that cost nothing: the mean colour; counts the images that it was asked for."""

    def __init__(self) -> None:
        self.seen = 0

    def features(self, images: torch.Tensor) -> np.ndarray:
        self.seen += len(images)
        return images.mean((2, 3)).numpy()


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ImageSet:
    monkeypatch.setenv("LINKSIM_CACHE", str(tmp_path / "cache"))
    return load_dataset("cifar10-mini")


def test_reference_features_are_computed_once_for_a_set_and_an_order(data: ImageSet) -> None:
    metric = _Counting()
    order = np.arange(300)[::-1]
    told: list[tuple[int, int]] = []
    first = reference_features(metric, data, order, lambda *step: told.append(step))
    assert told == [(256, 300), (300, 300)]
    np.testing.assert_allclose(first, data.images[order].mean((2, 3)) / 255, atol=1e-5)
    np.testing.assert_array_equal(reference_features(metric, data, order), first)
    assert metric.seen == 300
    reference_features(metric, data, order[::-1])
    assert metric.seen == 600


def test_features_of_a_plug_in_that_was_edited_are_computed_again(
    data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = _Counting()
    for code, seen in (("a", 10), ("b", 20), ("a", 20)):
        monkeypatch.setattr("linksim.metrics.frechet.source_digest", lambda kind, code=code: code)
        reference_features(metric, data, np.arange(10))
        assert metric.seen == seen


def test_a_damaged_cache_is_computed_again(data: ImageSet, tmp_path: Path) -> None:
    metric = _Counting()
    first = reference_features(metric, data, np.arange(10))
    (kept,) = (tmp_path / "cache" / "features").iterdir()
    whole = kept.read_bytes()
    # The last is a number that changed in place: every length is right.
    for content in (b"", whole[:-40], b"no array", whole[:-4] + b"\0\0\0\0"):
        kept.write_bytes(content)
        np.testing.assert_array_equal(reference_features(metric, data, np.arange(10)), first)
    assert metric.seen == 50


def test_kid_of_sent_and_received_images_is_the_same_on_average_of_few_and_of_many() -> None:
    draw = np.random.default_rng(0)
    kid = object.__new__(Kid)
    x = draw.normal(size=(4000, 16)).astype(np.float32)
    y = 0.9 * x + 0.3 * draw.normal(size=x.shape).astype(np.float32) + np.float32(0.2)
    few = [kid.paired_distance(x[start : start + 20], y[start : start + 20]) for start in range(0, 4000, 20)]
    many = kid.paired_distance(x, y)
    assert np.mean(few) == pytest.approx(many, abs=3 * np.std(few) / np.sqrt(len(few)))
    # With its own copy among what an image is compared with, twenty images would seem to be nearer than none apart.
    assert kid.distance(x[:20], y[:20]) < 0 < many


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    data: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LINKSIM_CACHE", str(tmp_path / "file"))
    assert reference_features(_Counting(), data, np.arange(4)).shape == (4, 3)


def test_kid_is_the_unbiased_estimate_over_all_pairs_and_torch_fidelitys_on_whole_sets() -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    draw = np.random.default_rng(0)
    x, y = draw.random((60, 2048), np.float32), (1.1 * draw.random((60, 2048), np.float32))
    kid = Kid.distance(object.__new__(Kid), x, y)
    kernel = lambda a, b: (float(np.dot(a.astype(np.float64), b)) / 2048 + 1) ** 3  # noqa: E731
    pairs = [(i, j) for i in range(60) for j in range(60)]
    within = sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in pairs if i != j) / (60 * 59)
    np.testing.assert_allclose(kid, within - 2 * sum(kernel(x[i], y[j]) for i, j in pairs) / 3600, rtol=1e-6)
    theirs = kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=1, kid_subset_size=60, verbose=False
    )["kernel_inception_distance_mean"]
    np.testing.assert_allclose(kid, theirs, rtol=1e-4)
    # In a sweep an image is not compared with its own copy.
    apart = Kid.paired_distance(object.__new__(Kid), x, y)
    across = sum(kernel(x[i], y[j]) for i, j in pairs if i != j) / (60 * 59)
    np.testing.assert_allclose(apart, within - 2 * across, rtol=1e-6)
    shifted = draw.random((60, 2048), np.float32)
    assert abs(Kid.distance(object.__new__(Kid), x, shifted)) < abs(kid) / 5
