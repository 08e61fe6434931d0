"""Networks on images of other sizes than those that they were trained on: whole, in tiles, with planes side by side."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from linksim import LinksimError
from linksim.models.spec import ModelSpec
from linksim.nets.network import Network, in_tiles, tiled, with_planes
from linksim.schemes.learned import learned

SPEC = ModelSpec("semnoma", "compact", "awgn", Fraction(1, 24), image_shape=(3, 128, 128))


def build(spec: ModelSpec) -> Network:
    torch.manual_seed(0)
    return learned(spec.method).network(spec).eval()


def through(network: Network, images: torch.Tensor) -> torch.Tensor:
    side = torch.full((len(images), network.users, 1), 0.5)
    with torch.no_grad():
        sent = network.encode(images, side, (0.5, 0.5))
        return network.receive(sent.sum(1), side)


def test_planes_stand_side_by_side_and_are_cut_as_their_images_are() -> None:
    planes = torch.arange(2 * 6.0).view(2, 1, 2, 3)
    wide = tiled(planes, (5, 7))
    assert wide.shape == (2, 1, 5, 7)
    for row in range(5):
        for column in range(7):
            assert torch.equal(wide[:, :, row, column], planes[:, :, row % 2, column % 3])
    corners = torch.tensor([[[1, 2], [0, 0]], [[3, 4], [2, 5]]])
    cut = tiled(planes, (2, 2), corners)
    far = tiled(planes, (9, 9))
    for group in range(2):
        for user in range(2):
            top, left = corners[group, user].tolist()
            assert torch.equal(cut[group, user], far[user, :, top : top + 2, left : left + 2])
    shown = with_planes(torch.zeros(2, 2, 3, 2, 2), planes, corners)
    assert torch.equal(shown[:, 3:].unflatten(0, (2, 2)), cut)


@pytest.mark.parametrize("method", ["semnoma", "semoma", "deepjscc-noma"])
def test_a_network_serves_another_size_as_one_that_was_laid_out_for_it(method: str) -> None:
    spec = replace(SPEC, method=method, csi="snr" if method == "deepjscc-noma" else "own")
    if method == "deepjscc-noma":
        spec = replace(spec, image_shape=(3, 32, 32))
    small = build(spec)
    _, height, width = spec.image_shape
    large_spec = replace(spec, image_shape=(3, 2 * height, height + width // 2))
    large = build(large_spec)
    large.load_state_dict(small.state_dict())
    assert large.planes.shape == small.planes.shape  # type: ignore[union-attr]
    images = torch.rand(1, 2, *large_spec.image_shape)
    side = torch.full((1, 2, 1), 0.5)
    with torch.no_grad():
        sent = large.encode(images, side, (0.5, 0.5))
        assert sent.shape[-1] == large_spec.symbols
        small.serve(large_spec.image_shape)
        torch.testing.assert_close(small.encode(images, side, (0.5, 0.5)), sent)
        heard = sent if method == "semoma" else sent.sum(1)
        torch.testing.assert_close(small.receive(heard, side), large.receive(heard, side))
    with pytest.raises(LinksimError, match="multiples of"):
        small.serve((3, 130, 128))


def test_tiles_show_what_the_whole_does_but_for_what_lies_far_away() -> None:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 2, 1), torch.nn.Conv2d(4, 2, 3, 1, 1))

    def down(part: torch.Tensor, side: torch.Tensor) -> torch.Tensor:
        return layers(part)

    x = torch.rand(2, 1, 40, 56)
    with torch.no_grad():
        whole = down(x, x)
        torch.testing.assert_close(in_tiles(down, x, x, 16, 8, Fraction(1, 2)), whole)
        near = in_tiles(down, x, x, 16, 0, Fraction(1, 2))
    assert near.shape == whole.shape
    # Without overlap the edges of the tiles show.
    assert not torch.allclose(near, whole)


def test_a_large_image_goes_through_in_tiles() -> None:
    network = build(replace(SPEC, image_shape=(3, 256, 384)))
    images = torch.rand(1, 2, 3, 256, 384)
    whole = through(network, images)
    network.tile = 256
    parts = through(network, images)
    assert parts.shape == whole.shape
    error = (parts - whole).square().mean() / whole.var()
    assert 0 < error < 1e-2


def test_weights_of_another_size_serve_where_the_stages_are_the_same() -> None:
    semnoma, jscc = learned("semnoma"), learned("deepjscc-noma")
    wanted = replace(SPEC, image_shape=(3, 512, 768))
    assert semnoma.serves(SPEC, wanted)
    assert not semnoma.serves(replace(SPEC, image_shape=(3, 64, 64)), wanted)
    assert not semnoma.serves(replace(SPEC, rho=Fraction(1, 12)), wanted)
    assert not semnoma.serves(replace(SPEC, channel="rayleigh"), wanted)
    other = replace(SPEC, method="deepjscc-noma", csi="snr", image_shape=(3, 32, 32))
    assert jscc.serves(other, replace(other, image_shape=(3, 512, 768)))
