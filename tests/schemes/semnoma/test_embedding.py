"""Users that superpose start as users in separate channel uses."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from linksim.data import load_dataset
from linksim.data.training import training_set_of
from linksim.errors import LinksimError
from linksim.link.draws import FreshDraws
from linksim.link.realisation import Realisation
from linksim.models import weights
from linksim.models.batch import Transmission
from linksim.models.pool import Pool
from linksim.models.spec import ModelSpec
from linksim.nets.network import Network, side_information
from linksim.schemes.learned import transceiver
from linksim.schemes.semnoma.embedding import embedding_error, orthogonal_symbols, train_embedding
from linksim.schemes.semnoma.network import Transceiver
from linksim.schemes.semnoma.recipe import RECIPES
from tests.models.build import build

SPEC = ModelSpec("semnoma", "compact", "rayleigh", Fraction(1, 6))


def embedded(spec: ModelSpec, shipped: bool = True) -> tuple[Transceiver, Transceiver]:
    """A model after `embed`, and its source: the shipped one, where it is asked for and there, or random numbers."""
    orthogonal, model = transceiver(spec).begins_as, transceiver(spec).build()
    assert orthogonal is not None
    assert isinstance(orthogonal.spec, ModelSpec)
    torch.manual_seed(1)
    known = shipped and orthogonal.name in (cards := weights.cards()) and weights.present(cards[orthogonal.name])
    source = weights.load(orthogonal) if known else build(orthogonal.spec).eval()
    assert isinstance(source, Transceiver)
    assert isinstance(model, Transceiver)
    model.embed(source)
    return model.eval(), source


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, rho=Fraction(1, 3), users=4, channel="awgn")])
def test_its_decoders_show_what_the_source_shows_when_the_orthogonal_symbols_are_superposed(spec: ModelSpec) -> None:
    model, source = embedded(spec)
    torch.manual_seed(0)
    images = torch.rand(3, spec.users, 3, 32, 32)
    h = torch.randn(3, spec.users, dtype=torch.complex64) if spec.channel != "awgn" else torch.ones(3, spec.users) + 0j
    side = side_information(torch.full((3,), 10.0), h, spec.side_dim)
    # Under `sum` each user has 1/N of the power in N times the symbols: the same on its own maps.
    wanted = orthogonal_symbols(model, source, images, side) / spec.users**0.5
    assert wanted.abs().square().mean((1, 2)).tolist() == pytest.approx([1 / spec.users] * 3)
    link = Realisation(h[:, None, :, None], "noma", FreshDraws(3))
    superposed = link.through(wanted, torch.zeros(3))[:, 0]
    alone = source.encode(images, side, (1.0,) * spec.users)
    heard = replace(link, access="oma").through(alone, torch.zeros(3))[:, 0]
    torch.testing.assert_close(model.receive(superposed, side), source.receive(heard, side), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("small_networks")
def test_the_encoder_learns_to_leave_the_other_users_maps_empty() -> None:
    """From random numbers, which takes no more than 150 steps; a source that was trained for long takes many more."""
    model, source = embedded(SPEC, shipped=False)
    pixels = load_dataset("cifar10-mini").images
    images = pixels[:64].reshape(32, 2, 3, 32, 32)
    h = torch.randn(32, 2, dtype=torch.complex64, generator=torch.manual_seed(0))
    _, leakage = embedding_error(model, source, images, 10.0, h)
    # At first all users' maps hold the same: half of the power is on the other's.
    assert leakage == pytest.approx(-3.01, abs=0.01)
    decoders = {name: value.clone() for name, value in model.decoders.state_dict().items()}
    recipe = replace(RECIPES["finetune"], batch=4, embed_steps=150)
    pool = Pool(training_set_of(pixels[::-1], 64))
    assert train_embedding(model, source, Transmission(SPEC, "noma"), recipe, pool, 0) == 600
    error, leakage = embedding_error(model.eval(), source, images, 10.0, h)
    assert error < -10
    assert leakage < -18
    assert all(torch.equal(value, decoders[name]) for name, value in model.decoders.state_dict().items())


def test_maps_that_do_not_divide_and_other_networks_are_refused() -> None:
    model, source = embedded(SPEC)
    with pytest.raises(LinksimError, match="16 maps of 2 users cannot start as 16 maps of 2 users"):
        model.embed(build(replace(SPEC, method="semoma")))
    with pytest.raises(LinksimError, match="cannot start from"):
        source.embed(model)
    apart = transceiver(ModelSpec("deepjscc-noma", "compact", "rayleigh", Fraction(1, 6), csi="snr")).build()
    assert isinstance(apart, Network)
    with pytest.raises(LinksimError, match="cannot start from"):
        apart.embed(source)
