import os
from collections.abc import Callable
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
import torchvision

from linksim.errors import LinksimError
from linksim.metrics import LpipsAlex, LpipsVgg, make_metric
from tests.metrics.pictures import noisy, photos, smooth

Install = Callable[[str], None]
NETS = {
    "lpips": (LpipsVgg, torchvision.models.vgg16, (3, 8, 15, 22, 29), "vgg"),
    "lpips-alex": (LpipsAlex, torchvision.models.alexnet, (1, 4, 7, 9, 11), "alex"),
}


@pytest.fixture
def at_hand(install: Install) -> Install:
    """Makes sure of a metric's weights: VGG16's are an asset, AlexNet's come with the package."""
    return lambda name: install("vgg16") if name == "lpips" else None


@torch.inference_mode()
def _by_the_formula(name: str, reference: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """LPIPS as section 3 of Zhang et al. 2018 writes it, on torchvision's own network."""
    metric, network, layers, package_name = NETS[name]
    features = network(weights=None).features.eval()
    tensors = metric.features()
    features.load_state_dict({key.removeprefix("features."): torch.from_numpy(v) for key, v in tensors.items()})
    heads = torch.load(f"{lpips.__path__[0]}/weights/v0.1/{package_name}.pth", map_location="cpu", weights_only=True)
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    x, y = ((2 * part - 1 - shift) / scale for part in (reference, image))
    total = torch.zeros(len(reference))
    head = 0
    for number, layer in enumerate(features[: layers[-1] + 1]):
        x, y = layer(x), layer(y)
        if number in layers:
            difference = (x / (x.norm(dim=1, keepdim=True) + 1e-10) - y / (y.norm(dim=1, keepdim=True) + 1e-10)) ** 2
            total += (difference * heads[f"lin{head}.model.1.weight"]).sum(1).mean((1, 2))
            head += 1
    assert head == 5
    return total


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("size", [32, 64])
def test_lpips_equals_the_papers_formula_on_torchvisions_network(at_hand: Install, name: str, size: int) -> None:
    at_hand(name)
    reference = photos(4) if size == 32 else smooth(4, size, size)
    image = noisy(reference)
    got = make_metric(name)(reference, image)
    assert got.shape == (4,)
    torch.testing.assert_close(got, _by_the_formula(name, reference, image), atol=1e-5, rtol=1e-4)


def test_lpips_over_vgg16_gives_the_value_that_torchmetrics_published(install: Install) -> None:
    """An older torchmetrics' documentation: seed 123, the network built, two batches of noise: 0.3493.

    Building the network draws from the random stream before the images do: 13 + 3 layers and 5 heads.
    """
    install("vgg16")
    metric = make_metric("lpips")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        torchvision.models.vgg16(init_weights=False)
        for channels in (64, 128, 256, 512, 512):
            torch.nn.Conv2d(channels, 1, 1, bias=False)
        first, second = torch.rand(10, 3, 100, 100), torch.rand(10, 3, 100, 100)
    np.testing.assert_allclose(metric(first, second).mean().item(), 0.3493, atol=6e-5)


@pytest.mark.parametrize("name", NETS)
def test_equal_images_have_no_distance_and_worse_ones_more(at_hand: Install, name: str) -> None:
    at_hand(name)
    metric = make_metric(name)
    reference = photos(4)
    assert metric(reference, reference).abs().max() == 0
    assert (metric(reference, noisy(reference, 0.3)) > metric(reference, noisy(reference, 0.03))).all()


@pytest.mark.parametrize("name", NETS)
def test_training_sees_the_same_distance_and_the_layers_behind_it(at_hand: Install, name: str) -> None:
    at_hand(name)
    metric = NETS[name][0]()
    reference = photos(2)
    image = noisy(reference).requires_grad_()
    distance, sent, shown = metric.compared(reference, image)
    torch.testing.assert_close(distance, _by_the_formula(name, reference, image), atol=1e-5, rtol=1e-4)
    for layers in (sent, shown):
        assert tuple(layer.shape[1] for layer in layers) == metric.widths
        for layer in layers:
            norms = layer.norm(dim=1)
            torch.testing.assert_close(norms[norms > 0.5], torch.ones_like(norms[norms > 0.5]))
    assert not any(layer.requires_grad for layer in sent)
    (slope,) = torch.autograd.grad(distance.sum(), image)
    assert slope.abs().sum() > 0


@pytest.mark.parametrize("name", NETS)
def test_building_it_leaves_the_random_stream_alone_and_carries_no_gradient(at_hand: Install, name: str) -> None:
    at_hand(name)
    before = torch.get_rng_state()
    metric = make_metric(name)
    assert torch.equal(torch.get_rng_state(), before)
    image = photos(1).requires_grad_()
    assert not metric(image, noisy(image.detach())).requires_grad


@pytest.mark.parametrize("name", NETS)
def test_the_smallest_size_is_where_the_network_still_has_pixels(at_hand: Install, name: str) -> None:
    at_hand(name)
    metric = make_metric(name)
    least = metric.min_side
    assert torch.isfinite(metric(smooth(1, least, least), smooth(1, least, least, 1))).all()
    with pytest.raises(LinksimError, match=f"needs images of {least}x{least}"):
        metric(smooth(1, least - 1, 64), smooth(1, least - 1, 64))
    with pytest.raises(RuntimeError):
        metric._network(smooth(1, least - 1, least - 1), smooth(1, least - 1, least - 1))


def test_the_shipped_features_are_torchvisions_rounded(tmp_path: Path) -> None:
    folder = os.environ.get("LINKSIM_TEST_WEIGHTS")
    if not folder:
        pytest.skip("LINKSIM_TEST_WEIGHTS does not say where the weights of AlexNet are")
    there = torch.load(Path(folder) / "alexnet_imagenet_features.pth", weights_only=True)
    shipped = LpipsAlex.features()
    assert shipped.keys() == there.keys()
    for name, value in there.items():
        assert np.array_equal(shipped[name], value.half().float().numpy())
    metric = LpipsAlex()
    reference = photos(8)
    image = noisy(reference)
    rounded = metric(reference, image)
    own = {name: torch.from_numpy(value) for name, value in shipped.items()}
    state = metric._network.net.state_dict()
    for name in state:
        _, layer, leaf = name.split(".")
        assert torch.equal(state[name], own[f"features.{layer}.{leaf}"])
        state[name] = there[f"features.{layer}.{leaf}"]
    metric._network.net.load_state_dict(state)
    torch.testing.assert_close(metric(reference, image), rounded, atol=1e-3, rtol=0)


def test_shipped_features_that_are_damaged_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linksim.metrics.perceptual._ALEXNET", "0" * 64)
    with pytest.raises(LinksimError, match=r"damaged .*: install linksim again"):
        LpipsAlex()
