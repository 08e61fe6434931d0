"""What the project is known by works from the package alone: refined schemes with shipped weights, no assets."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import linksim
from linksim import LinkConfig, Setting
from linksim.engine.variants import parse
from linksim.errors import LinksimError
from linksim.refine.behind import Refined
from linksim.refine.ddim.refiner import Ddim
from linksim.refine.ddim.starts import Starts, keep_starts, known
from linksim.schemes.learned import Learned


@pytest.fixture(autouse=True)
def nothing_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("LINKSIM_ASSETS", str(tmp_path / "assets"))


@pytest.mark.parametrize("channel", ["awgn", "rayleigh"])
def test_every_refiner_with_shipped_weights_stands_behind_its_scheme(channel: str) -> None:
    setting = Setting(LinkConfig(channel, 2), (3, 32, 32), Fraction(1, 6))
    for text in ("kdd", "kdd:start=paper", "kd+cgan", "kd+flow", "bpg-ldpc-qam-sic+flow", "semnoma+diffbir-mini"):
        system = parse(text).build(setting)
        assert isinstance(system, Refined)
        assert all(system.provenance().values())
    one, by_snr = (parse(text).build(setting) for text in ("kdd:start=paper", "kdd"))
    assert isinstance(one, Refined)
    assert isinstance(by_snr, Refined)
    assert isinstance(one.refiner, Ddim)
    assert isinstance(by_snr.refiner, Ddim)
    assert len({one.refiner.start(snr) for snr in (-5.0, 0.0, 20.0)}) == 1
    starts = [by_snr.refiner.start(snr) for snr in (-5.0, 0.0, 5.0, 10.0, 15.0, 20.0)]
    assert starts == sorted(starts, reverse=True)
    # SNRs rise, whatever the order in the file.
    wanted = {"awgn": "-5dB:120/0dB:76/5dB:40/10dB:0", "rayleigh": "-5dB:120/0dB:60/5dB:40/10dB:20"}
    assert by_snr.refiner.provenance()["start"] == wanted[channel]
    # 10 dB is the highest that was validated.
    assert starts[0] > 0 == starts[-1] == by_snr.refiner.start(10.5)


def test_a_start_is_of_the_weights_that_it_was_validated_with(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(LinkConfig("awgn", 2), (3, 32, 32), Fraction(1, 6))
    system = parse("kdd").build(setting)
    assert isinstance(system, Refined)
    assert isinstance(system.refiner, Ddim)
    start = system.refiner.start(0.0)
    # An own table for other weights does not hide the package's.
    keep_starts(replace(system.refiner.stages, weights={"prior": "0", "first": "0"}), Starts(77, {0.0: 77}), 1, "psnr")
    again = parse("kdd").build(setting)
    assert isinstance(again, Refined)
    assert isinstance(again.refiner, Ddim)
    assert again.refiner.start(0.0) == start != 77
    monkeypatch.setattr(Learned, "provenance", lambda self: {"weights": "trained again"})
    with pytest.raises(LinksimError, match=r"of other weights.*give start=T'.*linksim tune --scheme kd\+ddim"):
        parse("kdd").build(setting)
    assert parse("kdd:start=40").build(setting)


def test_a_start_found_over_one_link_leaves_those_of_others_alone() -> None:
    def refiner(link: LinkConfig) -> Ddim:
        system = parse("kdd").build(Setting(link, (3, 32, 32), Fraction(1, 6)))
        assert isinstance(system, Refined)
        assert isinstance(system.refiner, Ddim)
        return system.refiner

    rayleigh, rician = LinkConfig("rayleigh", 2), LinkConfig("rician:k_db=3", 2)
    at_first = refiner(rayleigh).start(0.0)
    # The weights are those of Rayleigh fading, and so is T' until there is another.
    assert refiner(rician).start(0.0) == at_first
    assert not known(refiner(rician).stages)
    keep_starts(refiner(rician).stages, Starts(77, {0.0: 77}), 1, "psnr")
    assert known(refiner(rician).stages)
    keep_starts(refiner(replace(rayleigh, csi_error_var=0.1)).stages, Starts(33, {0.0: 33}), 1, "psnr")
    found = [
        refiner(link).start(0.0)
        for link in (rician, replace(rician, channel="rician:k_db=9"), rayleigh, replace(rayleigh, csi_error_var=0.1))
    ]
    assert found == [77, at_first, at_first, 33]


def test_the_highest_snr_of_a_table_is_in_it_where_float32_rounds_it_up() -> None:
    system = parse("kdd").build(Setting(LinkConfig("awgn", 2), (3, 32, 32), Fraction(1, 6)))
    assert isinstance(system, Refined)
    assert isinstance(system.refiner, Ddim)
    keep_starts(system.refiner.stages, Starts(40, {0.0: 60, 12.3: 40}), 1, "psnr")
    again = parse("kdd").build(system.setting)
    assert isinstance(again, Refined)
    assert isinstance(again.refiner, Ddim)
    assert float(np.float32(12.3)) > 12.3
    assert [again.refiner.start(snr) for snr in (12.3, float(np.float32(12.3)), 12.4)] == [40, 40, 0]


def test_refinement_lowers_lpips_and_not_by_chance(tmp_path: Path) -> None:
    """Twenty-four pairs at 0 dB over fading: both refiners, paired with the first stage."""
    linksim.sweep(
        tmp_path / "x", scheme="kd,kdd,kd+cgan", channel="rayleigh", snr="0", groups=24,
        metrics="psnr,lpips-alex", progress=False,
    )  # fmt: skip
    lpips = linksim.compare(tmp_path / "x", "kd", "lpips_alex").set_index(["variant", "stage"])
    for refined in (("kdd", "ddim"), ("kd+cgan", "cgan")):
        assert lpips["difference"][refined] < -lpips["difference_ci95"][refined] < 0
    psnr = linksim.compare(tmp_path / "x", "kd").set_index(["variant", "stage"])
    assert -1.5 < psnr["difference"]["kdd", "ddim"] < 0
    assert psnr["difference"]["kdd", "first"] == 0
    table = linksim.load(tmp_path / "x")
    assert np.isfinite(table["lpips_alex"]).all()
