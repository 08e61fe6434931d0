"""Networks, channels and refiners in a loop of one's own: the harness's numbers, and gradients."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import linksim
from linksim.data import Grouping, load_dataset
from linksim.errors import LinksimError

pytestmark = pytest.mark.whole
DATA = load_dataset("cifar10-mini")


def images(groups: int, users: int = 2) -> torch.Tensor:
    chosen = Grouping(len(DATA), users).indices(np.arange(groups))
    found = np.asarray(DATA.images[chosen.ravel()]).reshape(*chosen.shape, 3, 32, 32)
    return torch.from_numpy(found).float() / 255


@pytest.mark.parametrize(
    ("scheme", "more"),
    [("kd", {}), ("semoma", {}), ("semoma", {"antennas": 2}), ("kd", {"users": 2, "power": "sum"})],
)
def test_ten_lines_give_the_numbers_of_a_sweep(scheme: str, more: dict[str, Any]) -> None:
    model = linksim.load_model(scheme, channel="rayleigh", rho="1/6", **more)
    sent = images(8)
    with torch.no_grad():
        use = model.link.draw(groups=8, snr_db=10.0, symbols=model.symbols, seed=5)
        shown = model.receive(use(model.encode(sent, use.side)), use.side).clamp(0, 1)
    psnr = -10 * (shown - sent).square().mean(dim=(2, 3, 4)).log10()
    sweep = linksim.sweep(
        scheme=scheme, channel="rayleigh", rho="1/6", snr=10, groups=8, seed=5, metrics="psnr", progress=False, **more
    )
    table = linksim.load_images(sweep.attrs["folder"]).set_index(["group", "user"]).psnr_db
    for (group, user), value in table.items():
        assert float(psnr[group, user]) == pytest.approx(value, abs=1e-3)


def test_the_page_on_a_sweeps_numbers_gives_them() -> None:
    page = (Path(__file__).parent.parent / "docs" / "howto" / "pytorch.md").read_text()
    (block,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "load_dataset(" in code)
    said: dict[str, Any] = {}
    with torch.no_grad():
        exec(compile(block, "pytorch.md", "exec"), said)
    sweep = linksim.sweep(
        scheme="kd", channel="rayleigh", rho="1/6", snr=10, groups=8, seed=0, metrics="psnr", progress=False
    )
    table = linksim.load_images(sweep.attrs["folder"]).sort_values(["group", "user"])
    np.testing.assert_allclose(said["psnr"], table["psnr_db"], atol=1e-3)


def test_gradients_reach_images_and_whatever_is_trained() -> None:
    model = linksim.load_model("kd", channel="rayleigh", rho="1/6")
    sent = images(2).requires_grad_(True)
    model(sent, 10.0, seed=0).square().mean().backward()
    assert sent.grad is not None
    assert bool(sent.grad.abs().sum() > 0)
    assert not any(parameter.requires_grad for parameter in model.parameters())

    # A decoder of one's own against the frozen encoder: ten steps, a lower error.
    decoder = torch.nn.Sequential(torch.nn.Linear(1024, 256), torch.nn.ReLU(), torch.nn.Linear(256, 2 * 3072))
    optimizer = torch.optim.Adam(decoder.parameters(), 1e-3)
    pictures, errors = images(64), []
    for _ in range(10):
        use = model.link.draw(64, snr_db=15.0, symbols=model.symbols)
        with torch.no_grad():
            received = use(model.encode(pictures, use.side))
        shown = decoder(torch.view_as_real(received[:, 0]).flatten(1)).unflatten(1, (2, 3, 32, 32))
        error = (shown - pictures).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.7 * errors[0]

    model.requires_grad_(True)
    model(pictures[:2], torch.tensor([0.0, 20.0])).mean().backward()
    assert any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in model.parameters())


def test_a_refiner_is_that_of_a_sweep() -> None:
    model = linksim.load_model("kd", channel="awgn", rho="1/6")
    refine = linksim.refiner("ddim:start=8", behind=model)
    sent = images(4)
    with torch.no_grad():
        use = model.link.draw(groups=4, snr_db=0.0, symbols=model.symbols, seed=0)
        shown = refine(model.receive(use(model.encode(sent, use.side)), use.side), use.side)
    psnr = -10 * (shown - sent).square().mean(dim=(2, 3, 4)).log10()
    sweep = linksim.sweep(scheme="kd+ddim:start=8", rho="1/6", snr=0, groups=4, seed=0, metrics="psnr", progress=False)
    table = linksim.load_images(sweep.attrs["folder"]).query("stage == 'ddim'").set_index(["group", "user"]).psnr_db
    for (group, user), value in table.items():
        assert float(psnr[group, user]) == pytest.approx(value, abs=1e-3)


def test_groups_of_several_snrs_are_refined_as_those_of_each() -> None:
    model = linksim.load_model("kd", channel="awgn", rho="1/6")
    refine = linksim.refiner("ddim:start=auto", behind=model)
    sent = images(3)
    mixed = model.link.draw(3, torch.tensor([0.0, 20.0, 0.0]), model.symbols, seed=0).side
    found = refine(sent, mixed)
    for snr_db, groups in ((0.0, [0, 2]), (20.0, [1])):
        alone = model.link.draw(groups, snr_db, model.symbols, seed=0).side
        torch.testing.assert_close(found[groups], refine(sent[groups], alone), rtol=0, atol=1e-5)
    assert torch.equal(found[1], sent[1])
    assert not torch.equal(found[2], sent[2])


def test_a_channel_is_drawn_anew_or_by_seed() -> None:
    link = linksim.channel("rayleigh", users=3, antennas=2)
    first, second = (link.draw(groups=4, snr_db=0.0, symbols=8) for _ in range(2))
    assert not torch.equal(first.side.h, second.side.h)
    # What a refiner draws is keyed by these.
    assert first.side.draws[0] != second.side.draws[0]
    torch.manual_seed(0)
    once = link.draw(groups=4, snr_db=0.0, symbols=8).side
    torch.manual_seed(0)
    again = link.draw(groups=4, snr_db=0.0, symbols=8).side
    assert torch.equal(once.h, again.h)
    assert once.draws == again.draws
    whole, part = link.draw(4, 0.0, 8, seed=1), link.draw([2], 0.0, 8, seed=1)
    assert torch.equal(whole.side.h[2:3], part.side.h)
    quiet = link.draw(2, 200.0, 8, seed=1)
    symbols = torch.randn(2, 3, 8, dtype=torch.complex64)
    torch.testing.assert_close(quiet(symbols), torch.einsum("bmn,bnk->bmk", quiet.side.h[..., 0], symbols))


def used(symbols: torch.Tensor) -> torch.Tensor:
    return linksim.channel("rayleigh-fast").draw(1, 0.0, 8)(symbols)


def received(signal: Any) -> torch.Tensor:
    model = linksim.load_model("kd")
    return model.receive(signal, model.link.draw(1, 0.0, model.symbols).side)


def refined(images: Any) -> torch.Tensor:
    model = linksim.load_model("kd")
    return linksim.refiner("flow", behind=model)(images, model.link.draw(1, 0.0, model.symbols).side)


def encoded(images: Any) -> torch.Tensor:
    model = linksim.load_model("semoma")
    return model.encode(images, model.link.draw(2, 0.0, model.symbols).side)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: linksim.channel("rayleih"), "did you mean 'rayleigh'"),
        (lambda: linksim.channel(users=0), "users = 0"),
        (lambda: linksim.channel(power="all"), "unknown power"),
        (lambda: linksim.load_model("bpg-ldpc-qam-sic"), "has no weights"),
        (lambda: linksim.load_model("kdd"), "load_model('kd')"),
        (lambda: linksim.load_model("kd", users=5), "no weights kd_"),
        (lambda: linksim.load_model("kd", rho=-1), "must be positive"),
        (lambda: linksim.channel().draw([1], 0.0, 8), "give seed=0"),
        (lambda: linksim.channel(device=5), "device 5: give a name"),
        (lambda: linksim.load_model("kd", channel=3), "channel = 3: give its name"),
        (lambda: linksim.channel().draw(-1, 0.0, 8), "groups = -1"),
        (lambda: linksim.channel().draw([], 0.0, 8, seed=0), "groups = 0"),
        (lambda: linksim.channel().draw(1, 0.0, None), "symbols = None"),
        (lambda: linksim.channel().draw(1, "x", 8), "snr_db = 'x'"),
        (lambda: linksim.channel().draw(1, float("nan"), 8), "give a finite number"),
        (lambda: linksim.channel().draw(2, torch.zeros(3), 8), "one for each of 2 groups"),
        (
            lambda: encoded(torch.zeros(2, 2, 3, 31, 31)),
            "torch.float32 (2, 2, 3, 31, 31): give float32 (2, 2, 3, 32, 32)",
        ),
        (lambda: encoded(torch.zeros(2, 2, 3, 32, 32, dtype=torch.uint8)), "images are torch.uint8"),
        (lambda: encoded([0.0]), "images are list"),
        (lambda: encoded(torch.full((2, 2, 3, 32, 32), 255.0)), "leave [0, 1] by far"),
        (lambda: encoded(torch.full((2, 2, 3, 32, 32), float("nan"))), "or are no numbers"),
        (lambda: linksim.channel(access="NOMA"), "did you mean 'noma'"),
        (lambda: linksim.channel(access=None), "unknown access"),
        (lambda: linksim.channel(csi_error_var=float("nan")), "csi_error_var = nan: give a number, 0 to 100"),
        (lambda: linksim.channel(csi_error_var=-1.0), "csi_error_var = -1.0"),
        (lambda: linksim.channel(csi_error_var="0"), "csi_error_var = '0'"),
        (lambda: linksim.channel().draw(1, 0.0, 8, seed=1.5), "seed = 1.5: give a whole number from 0"),
        (lambda: linksim.channel().draw(1, 0.0, 8, seed=True), "seed = True"),
        (lambda: linksim.channel().draw(1, 0.0, 8, seed=2**70), "seed = 11805"),
        (lambda: linksim.channel().draw([1.5], 0.0, 8, seed=0), "groups = [1.5]"),
        (lambda: linksim.channel().draw([-1], 0.0, 8, seed=0), "groups = [-1]"),
        (lambda: linksim.channel().draw(b"x", 0.0, 8, seed=0), "groups = b'x'"),
        (lambda: linksim.channel().draw(1, 1e6, 8), "at most 200 dB"),
        (lambda: linksim.load_model(None), "scheme = None: give its name"),
        (lambda: linksim.load_model("kd", image_shape=5), "image_shape = 5: give (C, H, W)"),
        (lambda: linksim.refiner("flow", behind=None), "behind = None: give what load_model gives"),
        (lambda: linksim.refiner(None, behind=linksim.load_model("kd")), "refiner = None: give its name"),
        (lambda: linksim.metric(["a"]), "metric ['a']: give its name"),
        (lambda: linksim.metric("psnr")(None, torch.zeros(1, 3, 8, 8)), "psnr of a NoneType"),
        (lambda: linksim.load_model("kd")(None, snr_db=0.0), "images are NoneType"),
        (lambda: linksim.load_model("kd").encode(torch.rand(1, 2, 3, 32, 32), None), "side is NoneType"),
        (
            lambda: received(torch.ones(1, 2, 5) + 0j),
            "received is torch.complex64 (1, 2, 5): give complex64 (1, 1, 512)",
        ),
        (lambda: received(None), "received is NoneType"),
        (lambda: refined(torch.rand(1, 2, 3, 32)), "images are torch.float32 (1, 2, 3, 32)"),
        (lambda: refined(None), "images are NoneType: give float32 (1, 2, 3, 32, 32)"),
        (lambda: used(torch.ones(1, 2, 9) + 0j), "9 symbols a user over a channel drawn for 8"),
        (lambda: used(torch.ones(1, 3, 8) + 0j), "(1, 3, 8): give complex64 (1, 2, S)"),
        (lambda: used(torch.ones(1, 2, 8)), "symbols are torch.float32"),
        (lambda: linksim.refiner("cgn", behind=linksim.load_model("kd")), "did you mean 'cgan'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(call: Any, text: str) -> None:
    with pytest.raises(LinksimError) as raised:
        call()
    assert text in str(raised.value)


def test_importing_linksim_waits_for_no_pytorch() -> None:
    code = "import sys, linksim; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = linksim.nothing
