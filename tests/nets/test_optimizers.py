"""Muon takes the matrices and equals PyTorch's; a checkpoint brings both halves of the optimiser back."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import nn

from linksim.models.spec import ModelSpec
from linksim.nets import optimizers
from linksim.nets.optimizers import Muon, Optimizer, matrices, orthogonalised
from tests.models.build import build

SPEC = ModelSpec("semoma", "compact", "rayleigh", Fraction(1, 6))


def test_muon_takes_linear_layers_and_convolutions_and_leaves_the_rest_to_adamw() -> None:
    network = build(SPEC)
    taken = set(map(id, matrices(network)))
    names = {name for name, parameter in network.named_parameters() if id(parameter) in taken}
    assert {"encoder.layers.1.0.block.3.weight", "decoders.0.layers.0.0.weight", "decoders.0.layers.4.1.weight"} < names
    left = {name for name, _ in network.named_parameters()} - names
    # The planes, the stem, depthwise kernels, the AF-Modules, the output layer, and whatever is no matrix.
    for name in ("planes", "encoder.layers.0.0.weight", "encoder.layers.1.0.block.0.weight"):
        assert name in left
    assert {"encoder.layers.2.mask.0.weight", "encoder.layers.2.encode_side.3.weight"} < left
    assert {"decoders.0.layers.9.0.weight", "encoder.layers.1.0.block.3.bias"} < left
    # Eight maps are too few to orthogonalise.
    narrow = build(replace(SPEC, rho=Fraction(1, 12)))
    assert id(narrow.get_parameter("decoders.0.layers.0.0.weight")) not in set(map(id, matrices(narrow)))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon to compare with")
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 32), (32, 64), (48, 48)])
def test_muon_equals_pytorchs_within_its_bfloat16(inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    mine = nn.Linear(inputs, outputs, bias=False)
    theirs = nn.Linear(inputs, outputs, bias=False)
    theirs.load_state_dict(mine.state_dict())
    start = mine.weight.detach().clone()
    optimizers = [
        (mine, Muon([mine.weight], 2e-3, 0.1)),
        (theirs, torch.optim.Muon([theirs.weight], lr=2e-3, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")),
    ]
    for _ in range(4):
        x = torch.randn(16, inputs)
        for layer, optimizer in optimizers:
            optimizer.zero_grad()
            layer(x).square().mean().backward()
            optimizer.step()
    weight = mine.weight.detach()
    moved, apart = (weight - start).norm(), (weight - theirs.weight.detach()).norm()
    # bfloat16 has eight bits, and Newton-Schulz steps amplify what they round.
    assert float(apart / moved) < 0.1


def test_a_convolution_moves_as_the_matrix_of_its_outputs() -> None:
    torch.manual_seed(0)
    conv, flat = nn.Conv2d(16, 24, 3, bias=False), nn.Linear(144, 24, bias=False)
    flat.weight.data.copy_(conv.weight.flatten(1))
    conv.weight.grad = torch.randn_like(conv.weight)
    flat.weight.grad = conv.weight.grad.flatten(1).clone()
    for weight in (conv.weight, flat.weight):
        Muon([weight], 1e-2, 0.0).step()
    torch.testing.assert_close(conv.weight.flatten(1), flat.weight)


def test_orthogonalised_matrices_have_singular_values_near_one_in_the_precision_that_is_native(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    drawn = torch.randn(3, 24, 96)
    found = []
    for native in (False, True):
        monkeypatch.setattr(optimizers, "trains_in_bfloat16", lambda device, native=native: native)
        found.append(orthogonalised(drawn))
        values = torch.linalg.svdvals(found[-1])
        assert float(values.min()) > 0.6
        assert float(values.max()) < 1.3
        assert found[-1].dtype == torch.float32
    apart = float((found[0] - found[1]).norm() / found[0].norm())
    assert 1e-3 < apart < 0.03


def test_the_state_of_both_parts_comes_back_and_that_of_another_optimiser_is_refused() -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 3))

    def step(model: nn.Module, optimizer: Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.ones(2, 16)).square().mean().backward()
        optimizer.step(1e-2)

    whole, cut = network(), network()
    first, second = (Optimizer(model, "muon", 1e-2, 1e-4) for model in (whole, cut))
    for _ in range(2):
        step(whole, first)
    step(cut, second)
    again = Optimizer(cut, "muon", 1e-2, 1e-4)
    again.load_state_dict(second.state_dict())
    step(cut, again)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))
    with pytest.raises((KeyError, ValueError)):
        again.load_state_dict(Optimizer(network(), "adamw", 1e-2, 1e-4).state_dict())
