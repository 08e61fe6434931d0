"""A plug-in brings its own network, loss and recipe: it is trained, carded, swept and refined as linksim's own are."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import linksim
from linksim import LinksimError
from linksim.cli import main
from linksim.models import weights
from linksim.refine.registry import REFINERS
from linksim.schemes.registry import SCHEMES
from tests.conftest import EXAMPLE
from tests.train.test_command import folder, train

__all__ = ["folder"]

FIRST = "edge-jscc_rayleigh_1-6_n2_own_sum_32px_compact"


@pytest.fixture
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The examples, registered in this process."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    from edge_jscc import EdgeJscc
    from sharpener import Sharpener

    linksim.register(EdgeJscc)
    linksim.register_refiner(Sharpener)
    yield
    SCHEMES.unregister("edge-jscc")
    REFINERS.unregister("sharpener")
    for name in ("edge_jscc", "sharpener"):
        sys.modules.pop(name)


def test_a_scheme_and_a_refiner_of_ones_own_are_trained_and_swept(
    plug_ins: None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scheme = ("--scheme", "edge-jscc", "--channel", "rayleigh")
    refiner = ("--refiner", "sharpener", *scheme)
    assert train(folder, *refiner, "--steps", "1") == 2
    assert f"no weights {FIRST}: there are none for edge-jscc; train them: linksim train" in capsys.readouterr().err
    assert train(folder, *scheme, "--steps", "2", "--set", "edges=0.5", "--recipe", "adamw") == 0
    assert train(folder, *refiner, "--steps", "2", "--set", "power=1") == 0
    card, behind = (weights.cards()[name] for name in (FIRST, f"sharpener_{FIRST}"))
    assert (card["recipe"], behind["recipe"]) == ("adamw batch=2 edges=0.5", "fast batch=2 power=1.0")
    assert behind["parts"] == {"first": list(card["files"].values())}
    assert card["command"] == (
        "linksim train --scheme edge-jscc --channel rayleigh --rho 1/6 --size compact --steps 2 --recipe adamw "
        "--set batch=2 --set edges=0.5"
    )
    losses = folder / "runs" / FIRST / "train.csv"
    assert losses.read_text().startswith("step,mae,edges,total\n")
    assert main(["verify", FIRST, f"sharpener_{FIRST}"]) == 0
    assert train(folder, *scheme, "--more", "--steps", "1", "--replace") == 0
    table = linksim.sweep(
        folder / "sweep", scheme="edge-jscc", channel="rayleigh", snr="10", groups=2, metrics="psnr", progress=False
    )
    assert table["trained_pairs"].item() == 6
    with pytest.raises(LinksimError, match=f"was trained with other weights of {FIRST}"):
        linksim.sweep(folder / "behind", scheme="edge-jscc+sharpener", channel="rayleigh", groups=2, progress=False)
    assert train(folder, *refiner, "--steps", "1", "--out", str(folder / "again")) == 0
    table = linksim.sweep(
        folder / "behind", scheme="edge-jscc+sharpener", channel="rayleigh", snr="10", groups=2, metrics="psnr",
        progress=False,
    )  # fmt: skip
    assert list(table["stage"]) == ["first", "sharpener"]


@pytest.mark.whole
def test_a_refiner_of_ones_own_stands_behind_linksims_schemes(plug_ins: None, folder: Path) -> None:
    words = ("--refiner", "sharpener", "--scheme", "kd", "--steps", "1", "--set", "learning_rate=1e-5")
    assert train(folder, *words) == 0
    table = linksim.sweep(
        folder / "x", scheme="kd+sharpener", snr="10", rho="1/6", groups=2, metrics="psnr", progress=False
    )
    first, refined = table["psnr_db"]
    assert refined == pytest.approx(first, abs=0.1)


@pytest.mark.whole
def test_cards_of_a_plug_in_that_has_gone_are_listed_and_say_what_is_missing(
    plug_ins: None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(folder, "--refiner", "sharpener", "--scheme", "kd", "--steps", "1") == 0
    REFINERS.unregister("sharpener")
    name = "sharpener_kd_awgn_1-6_n2_own_sum_32px_compact"
    assert main(["list", "weights"]) == 0
    assert name in capsys.readouterr().out
    assert main(["verify", name]) == 2
    assert f"{name} is of the refiner 'sharpener', which is not there" in capsys.readouterr().out
    linksim.sweep(folder / "x", scheme="kd", snr="10", groups=2, metrics="psnr", progress=False)
