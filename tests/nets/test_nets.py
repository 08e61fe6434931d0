"""The networks against the paper's tables, layer by layer, and against plain modules with the same numbers."""

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional

from linksim.errors import LinksimError
from linksim.link.power import symbol_power
from linksim.nets.depthwise import DepthwiseConv2d
from linksim.nets.layers import AFModule, AttentionBlock, ConvNextBlock, Downsample, OutputLayer, Upsample
from linksim.nets.network import side_information, to_features, to_symbols
from linksim.schemes.semnoma.codec import CodecShape, Decoder, Encoder, codec_shape
from linksim.schemes.semnoma.network import Transceiver


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shape(size: str = "paper", symbols: int = 1024, side_dim: int = 1) -> CodecShape:
    return codec_shape((3, 32, 32), symbols, side_dim, size)  # type: ignore[arg-type]


def test_parameter_counts_are_the_papers() -> None:
    assert count(Encoder(shape())) == 3_522_528
    assert count(Decoder(shape())) == 4_439_107
    total = count(Transceiver(shape(), 2, shared_decoder=False)) - 2 * 32 * 32
    assert round(total / 1e6, 1) == 12.4


@pytest.mark.parametrize(("rho", "channels"), [("1/12", 8), ("1/6", 16), ("1/3", 32)])
def test_ratios_give_the_feature_maps_of_table_ii(rho: str, channels: int) -> None:
    assert shape(symbols=int(Fraction(rho) * 3072)).channels == channels


def test_256x256_images_give_32_maps_of_16x16_at_one_forty_eighth() -> None:
    laid_out = codec_shape((3, 256, 256), 4096, 1, "compact")
    assert (laid_out.channels, laid_out.feature_side) == (32, (16, 16))
    encoder, decoder = Encoder(laid_out).eval(), Decoder(laid_out).eval()
    with torch.no_grad():
        features = encoder(torch.rand(1, 4, 256, 256), torch.zeros(1, 1))
        assert features.shape == (1, 32, 16, 16)
        assert decoder(features, torch.zeros(1, 1)).shape == (1, 3, 256, 256)


def test_sizes_that_the_tables_do_not_have_are_refused() -> None:
    with pytest.raises(LinksimError, match="--image-size"):
        codec_shape((3, 30, 34), 1024, 1, "paper")
    with pytest.raises(LinksimError, match="feature maps"):
        codec_shape((3, 32, 32), 1000, 1, "paper")


def test_the_decoders_layers_are_numbered_as_in_table_iv() -> None:
    kinds = [type(layer) for layer in Decoder(shape("compact")).layers]
    stage = [nn.Sequential, AFModule, AttentionBlock, Upsample]
    assert kinds == [nn.Sequential, *stage, *stage, OutputLayer]
    kinds = [type(layer) for layer in Encoder(shape("compact")).layers]
    stage = [nn.Sequential, AFModule, AttentionBlock]
    assert kinds == [nn.Sequential, *stage, Downsample, *stage, nn.Sequential]


def plain_block(block: ConvNextBlock, x: torch.Tensor) -> torch.Tensor:
    state = block.state_dict()
    y = functional.conv2d(x, state["block.0.weight"], state["block.0.bias"], padding=3, groups=x.shape[1])
    y = functional.layer_norm(y.permute(0, 2, 3, 1), x.shape[1:2], state["block.2.weight"], state["block.2.bias"], 1e-6)
    y = functional.gelu(functional.linear(y, state["block.3.weight"], state["block.3.bias"]))
    y = functional.linear(y, state["block.5.weight"], state["block.5.bias"]).permute(0, 3, 1, 2)
    return x + state["layer_scale"] * y


def plain_af(af: AFModule, x: torch.Tensor, side: torch.Tensor) -> torch.Tensor:
    s = af.state_dict()
    f = functional.linear(side, s["encode_side.0.weight"], s["encode_side.0.bias"])
    f = functional.leaky_relu(functional.layer_norm(f, (128,), s["encode_side.1.weight"], s["encode_side.1.bias"]))
    f = functional.linear(f, s["encode_side.3.weight"], s["encode_side.3.bias"])
    m = torch.cat([x.mean((2, 3)), f], 1)
    m = functional.leaky_relu(functional.linear(m, s["mask.0.weight"], s["mask.0.bias"]))
    m = functional.leaky_relu(functional.linear(m, s["mask.3.weight"], s["mask.3.bias"]))
    return x * torch.sigmoid(functional.linear(m, s["mask.5.weight"], s["mask.5.bias"]))[:, :, None, None]


def plain_attention(attention: AttentionBlock, x: torch.Tensor) -> torch.Tensor:
    s = attention.state_dict()

    def unit(y: torch.Tensor, name: str) -> torch.Tensor:
        z = functional.relu(functional.conv2d(y, s[f"{name}.conv.0.weight"], s[f"{name}.conv.0.bias"]))
        z = functional.relu(functional.conv2d(z, s[f"{name}.conv.2.weight"], s[f"{name}.conv.2.bias"], padding=1))
        return functional.relu(y + functional.conv2d(z, s[f"{name}.conv.4.weight"], s[f"{name}.conv.4.bias"]))

    trunk = gate = x
    for index in range(3):
        trunk, gate = unit(trunk, f"trunk.{index}"), unit(gate, f"gate.{index}")
    gate = functional.conv2d(gate, s["gate.3.weight"], s["gate.3.bias"])
    return trunk * torch.sigmoid(gate) + x


def channel_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    return (x - mean) / torch.sqrt(var + 1e-6) * weight[:, None, None] + bias[:, None, None]


def perturbed(module: nn.Module) -> nn.Module:
    """Every parameter moved, so that biases, norms and layer scales count."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


@torch.no_grad()
def test_a_block_equals_torchvisions_by_name_and_to_the_last_bit() -> None:
    from torchvision.models.convnext import CNBlock

    torch.manual_seed(0)
    mine, theirs = ConvNextBlock(8, 0.5, 0.3), CNBlock(8, 0.3, 0.5)
    theirs.load_state_dict(mine.state_dict())
    x = torch.randn(16, 8, 12, 12).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        for training in (False, True):
            torch.manual_seed(1)
            shown = mine.train(training)(x)
            torch.manual_seed(1)
            assert torch.equal(shown, theirs.train(training)(x))


def test_the_encoder_equals_plain_modules_with_the_same_numbers() -> None:
    encoder = perturbed(Encoder(shape("compact", side_dim=3)))
    assert isinstance(encoder, Encoder)
    x, side = torch.rand(2, 4, 32, 32), torch.rand(2, 3)
    layers, s = list(encoder.layers), encoder.layers.state_dict()
    y = functional.conv2d(x, s["0.0.weight"], s["0.0.bias"], stride=2, padding=1)
    y = channel_norm(y, s["0.1.weight"], s["0.1.bias"])
    for first in (1, 5):
        for block in layers[first]:  # type: ignore[union-attr]
            y = plain_block(block, y)
        y = plain_attention(layers[first + 2], plain_af(layers[first + 1], y, side))  # type: ignore[arg-type]
        if first == 1:
            y = channel_norm(y, s["4.0.weight"], s["4.0.bias"])
            y = functional.conv2d(y, s["4.1.weight"], s["4.1.bias"], stride=2)
    y = channel_norm(y, s["8.0.weight"], s["8.0.bias"])
    y = functional.conv2d(y, s["8.1.weight"], s["8.1.bias"])
    torch.testing.assert_close(encoder(x, side), y, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_decoder_equals_plain_modules_and_can_be_cut_at_any_layer() -> None:
    decoder = perturbed(Decoder(shape("compact", side_dim=1)))
    assert isinstance(decoder, Decoder)
    x, side = torch.randn(2, 32, 8, 8), torch.rand(2, 1)
    layers, s = list(decoder.layers), decoder.layers.state_dict()
    y = functional.conv2d(x, s["0.0.weight"], s["0.0.bias"])
    y = channel_norm(y, s["0.1.weight"], s["0.1.bias"])
    for first in (1, 5):
        for block in layers[first]:  # type: ignore[union-attr]
            y = plain_block(block, y)
        y = plain_attention(layers[first + 2], plain_af(layers[first + 1], y, side))  # type: ignore[arg-type]
        up = f"{first + 3}"
        y = channel_norm(y, s[f"{up}.0.weight"], s[f"{up}.0.bias"])
        y = functional.conv2d(y, s[f"{up}.1.weight"], s[f"{up}.1.bias"], padding=1)
        batch, channels, height, width = y.shape
        y = y.reshape(batch, channels // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
        y = y.reshape(batch, channels // 4, 2 * height, 2 * width)
    y = torch.sigmoid(functional.conv2d(y, s["9.0.weight"], s["9.0.bias"]))
    torch.testing.assert_close(decoder(x, side), y, rtol=1e-4, atol=1e-5)
    for cut in range(1, 10):
        torch.testing.assert_close(decoder(decoder(x, side, 0, cut), side, cut), decoder(x, side))


@pytest.mark.parametrize(("batch", "channels", "side"), [(3, 8, 16), (2, 48, 8), (1, 5, 7)])
def test_the_fast_depthwise_gradient_equals_the_librarys(batch: int, channels: int, side: int) -> None:
    layer = DepthwiseConv2d(channels)
    x = torch.randn(batch, channels, side, side, requires_grad=True)
    weight = torch.randn(batch, channels, side, side)
    (layer(x) * weight).sum().backward()
    assert x.grad is not None
    mine = [x.grad.clone(), *(p.grad.clone() for p in layer.parameters() if p.grad is not None)]
    layer.zero_grad()
    x.grad = None
    plain = functional.conv2d(x, layer.weight, layer.bias, padding=3, groups=channels)
    (plain * weight).sum().backward()
    theirs = [x.grad, *(p.grad for p in layer.parameters() if p.grad is not None)]
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_symbols_hold_every_feature_once_and_come_back() -> None:
    laid_out = shape("compact", 512)
    features = torch.randn(3, 2, laid_out.channels, 8, 8)
    symbols = to_symbols(features)
    assert symbols.shape == (3, 2, 512)
    torch.testing.assert_close(symbols.abs().square().sum(), features.square().sum())
    torch.testing.assert_close(to_features(symbols, (laid_out.channels, *laid_out.feature_side)), features)


def test_side_information_is_of_the_user_itself_or_of_all() -> None:
    h = torch.tensor([[1 + 1j, -2 + 0j]], dtype=torch.complex64)
    gamma = torch.tensor([10.0])
    assert side_information(gamma, h, 1).tolist() == [[[0.5], [0.5]]]
    own = side_information(gamma, h, 3)
    torch.testing.assert_close(own[0], torch.tensor([[0.5, 2**0.5, 0.25], [0.5, 2.0, 1.0]]))
    everyone = side_information(gamma, h, 5)
    # The user's own first, then the others' in turn: what a network for `own` is told comes before the rest.
    torch.testing.assert_close(everyone[0], torch.cat([own[0], own[0, [1, 0], 1:]], dim=1))
    three = side_information(gamma, torch.tensor([[1 + 0j, 2 + 0j, 3 + 0j]]), 7)
    assert three[0, :, 1::2].tolist() == [[1, 2, 3], [2, 3, 1], [3, 1, 2]]


def test_users_are_told_apart_and_every_codeword_has_its_power() -> None:
    model = Transceiver(shape("compact", 512), 2, shared_decoder=False).eval()
    image = torch.rand(1, 1, 3, 32, 32).expand(2, 2, -1, -1, -1)
    with torch.no_grad():
        symbols = model.encode(image, torch.zeros(2, 2, 1), (0.8, 0.2))
    torch.testing.assert_close(symbol_power(symbols), torch.tensor([[0.8, 0.2]]).expand(2, 2))
    assert not torch.allclose(symbols[:, 0] / 0.8**0.5, symbols[:, 1] / 0.2**0.5, atol=1e-3)
