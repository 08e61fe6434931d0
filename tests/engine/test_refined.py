"""A second stage in the harness: both stages' metrics, draws by image, memory, resume, comparison, figures."""

import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import linksim
from linksim import LinksimError, Params, Received, Refiner, Scheme, SideInfo
from linksim.cli import main
from linksim.engine.config import make_config
from linksim.engine.variants import find, parse
from linksim.refine import registry as refiners
from linksim.refine.behind import refined
from linksim.report.figures import _shown_twice, draw
from linksim.schemes import registry


class Dim(Scheme):
    """Silent; shows a dark grey, a little brighter from group to group."""

    name: ClassVar[str] = "dim"
    summary: ClassVar[str] = "for tests"

    def transmit(self, images: Tensor, side: SideInfo) -> Tensor:
        return torch.zeros(*images.shape[:2], self.symbols_per_user, dtype=torch.complex64)

    def receive(self, received: Tensor, side: SideInfo) -> Received:
        brightness = torch.tensor(side.draws[1]).float().view(-1, 1, 1, 1, 1) / 1000 + 0.2
        return Received(brightness.expand(*side.h_flat.shape, *self.setting.image_shape).clone())


class GrainParams(Params):
    strength: float = 0.1


class Grain(Refiner):
    """Brightens and adds noise."""

    name: ClassVar[str] = "grain"
    summary: ClassVar[str] = "for tests"
    Params: ClassVar[type[Params]] = GrainParams
    largest: ClassVar[int] = 10**6
    seen: ClassVar[list[int]] = []

    def evaluations(self, snr_db: float) -> int:
        return 7

    def refine(self, images: Tensor, snr_db: float, draws: Sequence[np.random.Generator], report: Any) -> Tensor:
        self.seen.append(len(images))
        if len(images) > self.largest:
            raise torch.OutOfMemoryError("out of memory")
        report(1, 2)
        noise = np.stack([draw.standard_normal(images.shape[1:], np.float32) for draw in draws])
        report(2, 2)
        return images + 0.2 + self.params.strength * torch.from_numpy(noise)


@pytest.fixture(autouse=True)
def local() -> Iterator[None]:
    linksim.register(Dim)
    linksim.register_refiner(Grain)
    Grain.seen.clear()
    yield
    registry.unregister("dim")
    refiners.unregister("grain")


def quick(folder: Path, **settings: Any) -> pd.DataFrame:
    given = {"scheme": "dim+grain", "snr": "0:5:5", "groups": 66, "metrics": "psnr,ssim", "progress": False}
    return linksim.sweep(folder, **{**given, **settings})


def test_both_stages_are_in_the_table_and_the_first_is_the_schemes_own(tmp_path: Path) -> None:
    table = quick(tmp_path / "x", scheme="dim,dim+grain:strength=0.02")
    behind = table[table["scheme"] == "dim+grain"]
    assert list(behind["stage"]) == ["first", "grain"] * 2
    assert (behind["strength"] == "0.02").all()
    columns = ["psnr_db", "psnr_db_ci95", "psnr_pooled_db", "ssim", "tx_power", "n_images"]
    for stage, rows in behind.groupby("stage"):
        same = np.allclose(rows[columns], table[table["scheme"] == "dim"][columns], equal_nan=True)
        assert same == (stage == "first")
    second = behind[behind["stage"] == "grain"]
    assert (second["refine_steps"] == 7).all()
    np.testing.assert_allclose(second["refine_images_per_s"] * second["refine_seconds"], 132)
    assert behind[behind["stage"] == "first"]["refine_seconds"].isna().all()
    images = linksim.load_images(tmp_path / "x")
    assert set(images["stage"]) == {"first", "grain"}
    assert Grain.seen == [128, 4, 128, 4] or Grain.seen == [128, 128, 4, 4]


def test_draws_belong_to_the_image_whatever_batch_it_is_in(tmp_path: Path) -> None:
    quick(tmp_path / "x")
    quick(tmp_path / "y", groups=65)
    mine, theirs = (linksim.load_images(tmp_path / name).query("group < 65") for name in "xy")
    pd.testing.assert_frame_equal(mine.reset_index(drop=True), theirs.reset_index(drop=True))
    by_snr = mine[mine["stage"] == "grain"].pivot(index=["group", "user"], columns="snr_db", values="psnr_db")
    np.testing.assert_array_equal(by_snr[0.0], by_snr[5.0])
    assert by_snr[0.0].nunique() > 100


def test_images_that_do_not_fit_go_in_smaller_batches_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = quick(tmp_path / "x", snr="0").drop(columns=["seconds", "refine_seconds", "refine_images_per_s"])
    monkeypatch.setattr(Grain, "largest", 40)
    Grain.seen.clear()
    # A refiner remembers what fits, and the sweep before has remembered it.
    from linksim.engine import evaluate

    evaluate._system.cache_clear()
    with pytest.warns(UserWarning, match=r"grain: out of memory on cpu: 64 images at once from here on"):
        parts = quick(tmp_path / "y", snr="0")
    pd.testing.assert_frame_equal(parts.drop(columns=["seconds", "refine_seconds", "refine_images_per_s"]), whole)
    assert Grain.seen == [128, 64, 32, 32, 32, 32, 4]
    monkeypatch.setattr(Grain, "largest", 0)
    evaluate._system.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(LinksimError, match="does not hold one image"):
            quick(tmp_path / "z", snr="0")


def test_a_stopping_rule_looks_at_the_refined_images(tmp_path: Path) -> None:
    table = quick(tmp_path / "x", groups=None, until="psnr=0.2", min_groups=64, snr="0", scheme="dim+grain")
    last = table[table["stage"] == "grain"].iloc[0]
    assert last["psnr_db_ci95"] <= 0.2
    assert last["n_groups"] < 256


def test_stages_are_compared_in_pairs(tmp_path: Path) -> None:
    quick(tmp_path / "x", scheme="dim,dim+grain")
    images = linksim.load_images(tmp_path / "x").query("snr_db == 0")
    means = images.groupby(["variant", "stage", "group"])["psnr_db"].mean()
    wanted = (means["dim+grain", "grain"] - means["dim", "first"]).mean()
    found = linksim.compare(tmp_path / "x", "dim").set_index(["variant", "stage", "snr_db"])
    assert found["difference"]["dim+grain", "grain", 0.0] == pytest.approx(wanted)
    assert found["difference"]["dim+grain", "first", 0.0] == 0
    own = linksim.compare(tmp_path / "x", "dim+grain", stage="first").set_index(["variant", "stage", "snr_db"])
    assert own["difference"]["dim+grain", "grain", 0.0] == pytest.approx(wanted)
    with pytest.raises(LinksimError, match="did you mean 'grain'"):
        linksim.compare(tmp_path / "x", "dim+grain", stage="grains")


def test_a_first_stage_is_drawn_dotted_unless_its_scheme_is_drawn(tmp_path: Path) -> None:
    table = quick(tmp_path / "x", scheme="dim,dim+grain")
    assert list(table[_shown_twice(table)]["stage"]) == ["first"] * 2
    alone = table[table["scheme"] == "dim+grain"]
    assert not _shown_twice(alone).any()
    assert draw(alone, tmp_path / "figures", ("png",))
    assert draw(table, tmp_path / "figures", ("png",))


def test_what_does_not_go_together_is_refused() -> None:
    for name, hint in [
        ("dim+grains", "unknown refiner 'grains': did you mean 'grain'"),
        ("dimm+grain", "did you mean 'dim'"),
        ("bpg-capacity+grain", "is a bound"),
        ("dim+grain:strong=1", "did you mean 'strength'"),
        ("bpg-ldpc-qam-sic+cgan", "learned scheme"),
        ("bpg-ldpc-qam-sic+diffbir-mini", "learned scheme"),
    ]:
        with pytest.raises(LinksimError, match=hint):
            parse(name).build(linksim.Setting(linksim.LinkConfig("awgn", 2), (3, 32, 32), linksim_rho()))
    with pytest.raises(LinksimError, match="has a second stage already"):
        refined(find("dim+grain"), Grain)
    for kind in (
        type("Cgan", (Grain,), {"name": "cgan"}),
        type("First", (Grain,), {"name": "first"}),
        type("Bad", (Grain,), {"name": "a b"}),
        Dim,
    ):
        with pytest.raises(LinksimError, match=r"exists|cannot be named|no linksim Refiner"):
            linksim.register_refiner(kind)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("returned", "hint"),
    [
        (lambda images: images[:1], r"images of shape \[1, 3, 32, 32\], \[4, 3, 32, 32\] is wanted"),
        (lambda images: (images * 255).to(torch.uint8), "images of type torch.uint8"),
        (lambda images: images.to(torch.complex64), "images of type torch.complex64"),
        (lambda images: images * 255, "returned values from 0 to 25"),
        (lambda images: images / 0, "not finite"),
        (lambda images: None, "returned a NoneType"),
    ],
)
def test_what_a_refiner_must_not_return(
    returned: Callable[[Tensor], Any], hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Grain, "refine", lambda self, images, *_: returned(images))
    setting = linksim.Setting(linksim.LinkConfig("awgn", 2), (3, 32, 32), linksim_rho())
    system = parse("dim+grain").build(setting)
    side = SideInfo(torch.zeros(2), torch.ones(2), torch.ones(2, 2), draws=(0, (0, 1)))
    images = torch.linspace(0, 1, 2 * 2 * 3072).reshape(2, 2, 3, 32, 32)
    with pytest.raises(LinksimError, match=hint):
        system.refiner(images, side)


@pytest.mark.parametrize("value", ["AUTO", "8.5", "1e2"])
def test_a_parameter_that_is_a_number_or_a_word_says_so(value: str) -> None:
    with pytest.raises(LinksimError, match=r"start: .*valid integer.* or .*'auto' or 'paper'"):
        parse(f"kdd:start={value}")


def linksim_rho() -> Any:
    from fractions import Fraction

    return Fraction(1, 6)


def test_a_refined_scheme_on_the_embedded_images_is_short_unless_told_otherwise() -> None:
    with pytest.warns(UserWarning, match=r"groups 32, snr 0:20:5, metrics psnr,ssim,lpips-alex"):
        config = make_config({"scheme": "dim+grain"})
    assert (config.groups, config.snr) == (32, (0.0, 5.0, 10.0, 15.0, 20.0))
    assert config.metrics == ("psnr", "ssim", "lpips-alex")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = make_config({"scheme": "dim+grain", "groups": 8, "snr": "3", "metrics": "psnr"})
        assert (told.groups, told.snr, told.metrics) == (8, (3.0,), ("psnr",))
        assert make_config({"scheme": "dim"}).groups is None
        assert make_config({"scheme": "dim+grain", "dataset": "cifar10"}).groups is None


def test_a_killed_refinement_goes_on_at_its_batch(cli_env: dict[str, str], tmp_path: Path) -> None:
    """With the shipped prior: batches of 64 groups, a journal line each."""
    words = [
        sys.executable, "-m", "linksim", "sweep", "--scheme", "kdd", "--start", "4", "--snr", "0", "--groups",
        "66", "--metrics", "psnr", "--workers", "1", "--quiet", "--out", "x",
    ]  # fmt: skip
    process = subprocess.Popen(words, env=cli_env, cwd=tmp_path)
    journal = tmp_path / "x" / "journal"
    deadline = time.monotonic() + 1200
    while not any(path.read_bytes().count(b"\n") for path in journal.glob("*.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = sum(path.read_bytes().count(b"\n") for path in journal.glob("*.jsonl"))
    assert kept < 2
    assert main([*words[3:-1], str(tmp_path / "x")]) == 0
    assert main([*words[3:-1], str(tmp_path / "y")]) == 0
    mine, theirs = (linksim.load_images(tmp_path / name) for name in "xy")
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


def test_features_and_metrics_of_a_first_stage_are_taken_once_for_all_that_stand_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from linksim.engine.reproduce import reproduce
    from linksim.metrics import Fid, Kid, Psnr

    seen: list[int] = []
    measured: list[int] = []
    real = Psnr.measure

    def measure(self: Psnr, reference: Tensor, image: Tensor) -> Tensor:
        measured.append(len(image))
        return real(self, reference, image)

    def features(self: Fid, images: Tensor) -> Any:
        seen.append(len(images))
        return images.flatten(1)[:, :32].numpy()

    monkeypatch.setattr(Kid, "asset", None)
    monkeypatch.setattr(Fid, "__init__", lambda self, device="cpu": None)
    monkeypatch.setattr(Fid, "identity", lambda self: "a test")
    monkeypatch.setattr(Fid, "features", features)
    monkeypatch.setattr(Psnr, "measure", measure)
    settings = {"scheme": "dim,dim+grain", "snr": "0", "groups": 66, "metrics": "psnr,kid"}
    table = quick(tmp_path / "x", **settings)
    assert sorted(seen[:-1]) == sorted(measured) == [4, 4, 128, 128]
    alone = quick(tmp_path / "alone", **{**settings, "metrics": "psnr"})
    np.testing.assert_array_equal(alone["psnr_db"], table["psnr_db"])
    assert table["kid"].iloc[0] == table["kid"].iloc[1] != table["kid"].iloc[2]
    assert not (tmp_path / "x" / "features").exists()
    seen.clear()
    again = reproduce(make_config(settings), tmp_path / "y", workers=1).table
    assert sorted(seen) == [4, 4, 128, 128]
    np.testing.assert_array_equal(again["kid"], table["kid"])
    assert not (tmp_path / "y" / "features").exists()


def test_a_metric_of_pairs_of_images_gets_sent_and_received_ones_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from linksim.metrics import Fid, Kid

    same: list[NDArray[np.bool_]] = []

    def distance(self: Kid, reference: NDArray[np.float32], received: NDArray[np.float32]) -> float:
        apart = np.abs(received[:, None] - reference).mean(2)
        same.append(apart.argmin(1) == np.arange(len(reference)))
        return 0.5

    monkeypatch.setattr(Kid, "asset", None)
    monkeypatch.setattr(Fid, "__init__", lambda self, device="cpu": None)
    monkeypatch.setattr(Fid, "identity", lambda self: "every 96th sample")
    monkeypatch.setattr(Fid, "features", lambda self, images: images.flatten(1)[:, ::96].numpy())
    monkeypatch.setattr(Kid, "paired_distance", distance)
    table = quick(tmp_path / "x", scheme="klt", snr="20", groups=66, metrics="kid")
    assert table["kid"].tolist() == [0.5]
    assert same[0].shape == (132,)
    assert same[0].mean() > 0.9
    assert linksim.load(tmp_path / "x").attrs["run"]["identity"]["kid estimate"] == Kid.estimate
