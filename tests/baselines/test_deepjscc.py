"""DeepJSCC-NOMA's networks against plain functional code, its counts, and what its ends are told."""

from fractions import Fraction

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from baselines.deepjscc_noma import DeepJsccNoma
from baselines.deepjscc_noma.network import DeepJsccNetwork, Gdn
from linksim import LinkConfig, LinksimError, Setting
from linksim.models.owner import Model
from linksim.models.spec import ModelSpec
from linksim.nets.network import side_information
from linksim.schemes.learned import transceiver
from linksim.train.models import asked_model


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def network(side_dim: int = 1) -> DeepJsccNetwork:
    torch.manual_seed(0)
    return DeepJsccNetwork((3, 32, 32), 2, 16, side_dim, 16).eval()


def test_parameter_counts_are_those_of_the_released_baseline() -> None:
    found = asked_model("deepjscc-noma", "awgn", "1/3", "paper", 2, None, "sum").build()
    assert isinstance(found, DeepJsccNetwork)
    assert count(found.encoder) == 8_556_128
    assert count(found.decoder) == 13_824_670


def test_gdn_is_its_formula() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5)
    for inverse in (False, True):
        gdn = Gdn(3, inverse)
        torch.nn.init.normal_(gdn.root_g)
        b, g = gdn.root_b**2 + 1e-6, gdn.root_g**2
        wanted = torch.empty_like(x)
        for i in range(3):
            root = torch.sqrt(b[i] + sum(g[i, j] * x[:, j] ** 2 for j in range(3)))
            wanted[:, i] = x[:, i] * root if inverse else x[:, i] / root
        torch.testing.assert_close(gdn(x), wanted)


class Plain:
    """The layer lists of the specification, written out with functional calls on a state dict."""

    def __init__(self, state: dict[str, Tensor], prefix: str, side: Tensor) -> None:
        self.state, self.prefix, self.side = state, prefix, side

    def conv(self, x: Tensor, name: str, stride: int = 1, padding: int | None = None) -> Tensor:
        weight = self.state[f"{self.prefix}.{name}.weight"]
        padding = weight.shape[-1] // 2 if padding is None else padding
        return functional.conv2d(x, weight, self.state[f"{self.prefix}.{name}.bias"], stride=stride, padding=padding)

    def gdn(self, x: Tensor, name: str, inverse: bool) -> Tensor:
        b = self.state[f"{self.prefix}.{name}.root_b"] ** 2 + 1e-6
        g = self.state[f"{self.prefix}.{name}.root_g"] ** 2
        root = torch.sqrt(torch.einsum("ij,bjhw->bihw", g, x**2) + b[:, None, None])
        return x * root if inverse else x / root

    def af(self, x: Tensor, layer: int) -> Tensor:
        def linear(value: Tensor, name: str) -> Tensor:
            return functional.linear(
                value,
                self.state[f"{self.prefix}.{layer}.{name}.weight"],
                self.state[f"{self.prefix}.{layer}.{name}.bias"],
            )

        context = torch.cat([x.mean((2, 3)), self.side], 1)
        mask = torch.sigmoid(linear(functional.leaky_relu(linear(context, "mask.0")), "mask.2"))
        return x * mask[:, :, None, None]

    def rb(self, x: Tensor, layer: int) -> Tensor:
        y = functional.leaky_relu(self.conv(x, f"{layer}.branch.0"))
        y = functional.leaky_relu(self.conv(y, f"{layer}.branch.2"))
        return y + (self.conv(x, f"{layer}.skip") if f"{self.prefix}.{layer}.skip.weight" in self.state else x)

    def stride(self, x: Tensor, layer: int) -> Tensor:
        y = functional.leaky_relu(self.conv(x, f"{layer}.branch.0", stride=2))
        y = self.gdn(self.conv(y, f"{layer}.branch.2"), f"{layer}.branch.3", False)
        return y + self.conv(x, f"{layer}.skip", stride=2)

    def up(self, x: Tensor, layer: int) -> Tensor:
        y = functional.leaky_relu(functional.pixel_shuffle(self.conv(x, f"{layer}.branch.0.0"), 2))
        y = self.gdn(self.conv(y, f"{layer}.branch.2"), f"{layer}.branch.3", True)
        return y + functional.pixel_shuffle(self.conv(x, f"{layer}.skip.0"), 2)

    def att(self, x: Tensor, layer: int) -> Tensor:
        def units(branch: str) -> Tensor:
            y = x
            for unit in range(3):
                name = f"{layer}.{branch}.{unit}.conv"
                z = functional.relu(self.conv(y, f"{name}.0"))
                z = functional.relu(self.conv(z, f"{name}.2"))
                y = functional.relu(y + self.conv(z, f"{name}.4"))
            return y

        return x + units("trunk") * torch.sigmoid(self.conv(units("gate"), f"{layer}.gate.3"))


ENCODER = ["stride", "af", "rb", "rb", "af", "att", "rb", "stride", "af", "rb", "rb", "af", "att"]
DECODER = ["att", "rb", "rb", "af", "rb", "up", "af", "att", "rb", "rb", "af", "rb", "up", "af"]


@pytest.mark.parametrize("side_dim", [1, 3])
def test_the_network_equals_plain_functions_with_the_same_numbers(side_dim: int) -> None:
    net = network(side_dim)
    h = torch.randn(3, 2, dtype=torch.complex64)
    side = side_information(torch.tensor([0.0, 7.0, 20.0]), h, side_dim)
    images = torch.rand(3, 2, 3, 32, 32)
    state = {name: value.detach() for name, value in net.state_dict().items()}

    x = torch.cat([images, state["planes"].expand(3, -1, -1, -1, -1)], 2).flatten(0, 1)
    plain = Plain(state, "encoder", side.flatten(0, 1))
    for layer, kind in enumerate(ENCODER):
        x = getattr(plain, kind)(x, layer)
    values = x.reshape(3, 2, 2, -1)
    symbols = torch.complex(values[:, :, 0], values[:, :, 1])
    symbols = symbols * torch.sqrt(0.5 / symbols.abs().square().mean(-1, keepdim=True))
    with torch.no_grad():
        torch.testing.assert_close(net.encode(images, side, (0.5, 0.5)), symbols, rtol=1e-3, atol=1e-4)

    received = torch.randn(3, 512, dtype=torch.complex64)
    joint = side[:, 0, :1]
    if side_dim == 3:
        joint = torch.cat([joint, side[:, 0, 1:], side[:, 1, 1:]], 1)
    x = torch.cat([received.real, received.imag], 1).reshape(3, 16, 8, 8)
    plain = Plain(state, "decoder", joint)
    for layer, kind in enumerate(DECODER):
        x = getattr(plain, kind)(x, layer)
    with torch.no_grad():
        torch.testing.assert_close(net.receive(received, side), x.reshape(3, 2, 3, 32, 32), rtol=1e-3, atol=1e-4)


def test_side_information_is_gamma_alone_unless_asked_for_the_fading() -> None:
    rayleigh = Setting(LinkConfig("rayleigh", 2), (3, 32, 32), Fraction(1, 6))
    assert DeepJsccNoma.model(rayleigh, DeepJsccNoma.Params()).side_dim == 1
    own = DeepJsccNoma.model(rayleigh, DeepJsccNoma.Params(csi="own"))
    assert own.side_dim == 3
    assert DeepJsccNoma.network(own).side_dim == 3
    assert "--csi own" in Model(own, DeepJsccNoma).command


def test_a_start_over_another_channel_keeps_what_fits_and_another_network_is_refused() -> None:
    source, target = network(1), network(3)
    target.adopt(source)
    torch.testing.assert_close(target.encoder[2].branch[0].weight, source.encoder[2].branch[0].weight)
    # Told of h as well, it does what it did.
    images, side = torch.rand(2, 2, 3, 32, 32), torch.randn(2, 2, 3)
    sent = target.encode(images, side, (0.5, 0.5))
    torch.testing.assert_close(sent, source.encode(images, side[..., :1], (0.5, 0.5)))
    shown = target.receive(sent.sum(1), side)
    torch.testing.assert_close(shown, source.receive(sent.sum(1), side[..., :1]))
    convnext = transceiver(ModelSpec("semoma", "compact", "awgn", Fraction(1, 6))).build()
    for one, other in ((target, convnext), (convnext, target)):
        with pytest.raises(LinksimError, match="cannot start from"):
            one.adopt(other)


def test_a_start_from_more_feature_maps_keeps_the_first_of_each_part() -> None:
    wide, narrow = (DeepJsccNetwork((3, 32, 32), 2, maps, 3, 16) for maps in (12, 6))
    narrow.adopt(wide)
    maps, halves = [0, 1, 2, 6, 7, 8], [0, 1, 2]
    for name, rows, columns in (
        ("encoder.10.branch.2.weight", maps, maps),
        ("encoder.11.mask.0.weight", maps, [*maps, 12, 13, 14]),
        ("encoder.12.trunk.0.conv.0.weight", halves, maps),
        ("decoder.0.trunk.0.conv.2.weight", halves, halves),
        ("decoder.1.skip.weight", range(16), maps),
        ("decoder.2.branch.0.weight", range(16), range(16)),
    ):
        learned = wide.state_dict()[name]
        assert torch.equal(narrow.state_dict()[name], learned[list(rows)][:, list(columns)]), name


def test_symbols_that_give_no_feature_maps_are_refused() -> None:
    with pytest.raises(LinksimError, match="multiple of 1/48"):
        asked_model("deepjscc-noma", "awgn", "1/96", "compact", 2, None, "sum")
    for csi in ("all", "none"):
        with pytest.raises(LinksimError, match="unknown csi"):
            asked_model("deepjscc-noma", "rayleigh", "1/6", "compact", 2, csi, "sum")
