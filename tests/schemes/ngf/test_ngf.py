"""NGF, MU-NGF and DeepJSCC: counts of the papers, what the receiver equalises, and users that antennas tell apart."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import linksim
from baselines.deepjscc.network import ConvNetwork
from linksim import LinkConfig, Setting
from linksim.engine.variants import parse
from linksim.errors import LinksimError
from linksim.link.draws import KeyedDraws
from linksim.link.realisation import realise
from linksim.models import weights
from linksim.models.spec import ModelSpec
from linksim.nets.network import Network, side_information
from linksim.nets.orthogonal import OrthogonalNetwork, equalised, maps_of
from linksim.schemes.learned import transceiver
from linksim.schemes.ngf.network import NgfNetwork
from linksim.train.models import asked_model

SHAPE = (3, 32, 32)


def count(network: torch.nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def macs(network: OrthogonalNetwork) -> tuple[float, float]:
    """Multiplications of encoder and decoder for one image, in millions."""
    from torch.utils.flop_counter import FlopCounterMode

    image, features = torch.rand(1, *SHAPE), torch.rand(1, network.maps, 32 // network.stride, 32 // network.stride)
    found = []
    for part, given in ((network.encoder, image), (network.decoder, features)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            part(given, None)
        found.append(counter.get_total_flops() / 2e6)
    return found[0], found[1]


def test_networks_have_the_parameters_and_operations_of_the_papers() -> None:
    ngf = NgfNetwork("paper", SHAPE, 64, 1, told=False)
    deepjscc = ConvNetwork(SHAPE, 16, 1, told=False)
    assert (count(ngf), count(deepjscc)) == (479_904, 156_252)
    assert macs(ngf) == pytest.approx((5.08, 5.08), rel=0.05)
    assert macs(deepjscc) == pytest.approx((5.22, 5.22), rel=0.05)
    assert count(NgfNetwork("wide", SHAPE, 16, 1, told=False)) == pytest.approx(7.4e6, rel=0.02)


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 64, 96), (3, 40, 24)])
@pytest.mark.parametrize("scheme", ["ngf", "deepjscc"])
def test_images_of_any_size_come_back_in_it(scheme: str, shape: tuple[int, int, int]) -> None:
    spec = ModelSpec(scheme, "paper", "rayleigh", Fraction(1, 6), users=1, csi="snr", image_shape=shape)
    network = transceiver(spec).build()
    assert isinstance(network, Network)
    side = side_information(torch.zeros(2), torch.ones(2, 3) + 0j, 3)
    symbols = network.encode(torch.rand(2, 3, *shape), side, (1.0, 1.0, 1.0))
    assert symbols.shape == (2, 3, spec.symbols)
    assert symbols.abs().square().mean(-1).tolist() == [pytest.approx([1.0] * 3)] * 2
    assert network.receive(symbols, side).shape == (2, 3, *shape)


def test_equalisers_find_what_was_sent() -> None:
    draws = torch.Generator().manual_seed(0)
    sent = torch.complex(*torch.randn(2, 4, 3, 500, generator=draws)) / 2**0.5
    h = torch.complex(*torch.randn(2, 4, 3, generator=draws))
    noise = torch.complex(*torch.randn(2, 4, 3, 500, generator=draws)) / 2**0.5
    snr_db = torch.tensor([0.0, 5.0, 10.0, 20.0])
    var = 10 ** (-snr_db / 10)
    y = h[..., None] * sent + noise * var.sqrt()[:, None, None]
    side = side_information(snr_db, h, 3)
    gain = h.abs().square()
    for equaliser, error in (("zf", var[:, None] / gain), ("mmse", var[:, None] / (gain + var[:, None]))):
        measured = (equalised(y, side, equaliser) - sent).abs().square().mean(-1)  # type: ignore[arg-type]
        torch.testing.assert_close(measured, error, rtol=0.25, atol=0.01)


def test_maps_that_are_none_are_refused() -> None:
    assert maps_of(512, SHAPE, 4) == 16
    with pytest.raises(LinksimError, match=r"take a rho that is a multiple of 1/192"):
        maps_of(8, SHAPE, 8)
    with pytest.raises(LinksimError, match="sides that are multiples of 8, not 36x36"):
        maps_of(648, (3, 36, 36), 8)
    with pytest.raises(LinksimError, match="csi: Input should be 'none' or 'snr'"):
        parse("ngf:csi=own")


def test_weights_behind_zero_forcing_are_of_another_name(own: Path) -> None:
    model = asked_model("ngf", "awgn", "1/6", None, 1, None, "sum", "zf")
    assert model.name == "ngf_awgn_1-6_n1_none_sum_32px_paper_zf"
    assert "--ablation zf" in model.command
    network = model.build()
    assert isinstance(network, OrthogonalNetwork)
    assert network.equaliser == "zf"
    setting = Setting(LinkConfig("awgn", 1), SHAPE, Fraction(1, 6))
    with pytest.raises(LinksimError, match="--ablation zf"):
        parse("ngf:equaliser=zf").build(setting)
    for scheme, hint in (("gsc", "ngf with sft behind it"), ("klt", "there is nothing to train")):
        with pytest.raises(LinksimError, match=hint):
            asked_model(scheme, "awgn", "1/6", None, 1, None, "sum")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights of NGF and DeepJSCC over both channels, of one user."""
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "weights"))
    facts: dict[str, Any] = {"pairs": 0, "lineage": [], "validation": {}, "score": 0.0, "golden_psnr_db": 0.0}
    torch.manual_seed(0)
    for scheme in ("ngf", "deepjscc"):
        for channel in ("awgn", "rayleigh"):
            model = asked_model(scheme, channel, "1/6", None, 1, None, "sum")
            weights.install(model, model.build(), facts)
    return tmp_path


def test_one_model_serves_any_number_of_users_that_take_turns_and_any_power(own: Path) -> None:
    one = linksim.sweep(own / "one", scheme="ngf,deepjscc", users=1, rho="1/6", snr="10", groups=4, progress=False)
    assert set(one["channel_uses"]) == {512}
    three = linksim.sweep(
        own / "three", scheme="ngf", users=3, rho="1/2", snr="10", groups=4, power="per-ue", channel="rayleigh",
        progress=False,
    )  # fmt: skip
    assert three["channel_uses"].item() == 3 * 512
    assert three["csi"].item() == "none"


def test_users_that_zero_forcing_tells_apart_are_users_alone(own: Path) -> None:
    """Over AWGN every user has an antenna of its own: MU-NGF is NGF, image by image but for the noise."""
    asked = {"snr": "10", "groups": 32, "metrics": "psnr", "power": "per-ue", "progress": False}
    alone = linksim.sweep(own / "a", scheme="ngf", users=3, rho="1/2", **asked)
    together = linksim.sweep(
        own / "b", scheme="mu-ngf:detector=zf,mu-ngf", users=3, antennas=3, rho="1/6", **asked
    )  # fmt: skip
    assert list(together["detector"]) == ["zf", "lmmse"]
    assert together["channel_uses"].tolist() == [512, 512]
    np.testing.assert_allclose(together["psnr_db"], alone["psnr_db"].item(), atol=0.05)
    fading = linksim.sweep(
        own / "c", scheme="mu-ngf:detector=zf,mu-ngf:detector=lmmse", users=3, antennas=3, rho="1/6",
        channel="rayleigh", **asked,
    )  # fmt: skip
    assert list(fading["detector"]) == ["zf", "lmmse"]
    with pytest.raises(LinksimError, match="--antennas 3, or detector=lmmse"):
        linksim.sweep(own / "d", scheme="mu-ngf:detector=zf", users=3, antennas=2, rho="1/6", **asked)


def test_the_sum_of_the_powers_costs_what_it_must(own: Path) -> None:
    """Three users under "sum" have a third of the power each: what they show is that of 4.77 dB less."""
    setting = Setting(LinkConfig("awgn", 3, "sum", antennas=3), SHAPE, Fraction(1, 6))
    scheme = parse("mu-ngf").build(setting)
    lower = parse("mu-ngf").build(replace(setting, link=replace(setting.link, power="per-ue")))
    images = torch.rand(4, 3, *SHAPE, generator=torch.Generator().manual_seed(1))
    shown = []
    for system, snr_db in ((scheme, 10.0), (lower, 10 - 10 * np.log10(3))):
        draws = KeyedDraws(0, range(4))
        channel = realise(system.setting.link, draws, 512, "noma")
        gamma = torch.full((4,), float(snr_db))
        side = linksim.SideInfo(gamma, 10 ** (-gamma / 10), channel.h)
        sent = system.transmit(images, side)
        received = channel.through(sent, side.noise_var, channel.noise(512))
        shown.append(system.receive(received, side).images)
    torch.testing.assert_close(shown[0], shown[1], atol=1e-4, rtol=0)
