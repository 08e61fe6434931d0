"""One registry for every kind of plug-in: names are claimed once, and edited code is other code."""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import linksim
from linksim import LinksimError
from linksim.cli import main
from linksim.data import DATASETS, DataSource, ImageSet, load_dataset
from linksim.data.datasets import fingerprint
from linksim.metrics import METRICS, ImageMetric
from linksim.refine.registry import REFINERS
from linksim.registry import Registry
from linksim.schemes.registry import SCHEMES
from linksim.source import source_digest
from tests.conftest import Cli

PLUGIN = """
import torch
from helper import LEVEL
from linksim import Received, Scheme

class Level(Scheme):
    name = "level"
    summary = "for tests"

    def transmit(self, images, side):
        return torch.full((*images.shape[:2], self.symbols_per_user), 0.5**0.5, dtype=torch.complex64)

    def receive(self, received, side):
        return Received(torch.full((*side.h_flat.shape, *self.setting.image_shape), LEVEL))
"""


def install(folder: Path, distribution: str, group: str, **points: str) -> None:
    """A distribution with nothing but entry points."""
    info = folder / f"{distribution.replace('-', '_')}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))


@pytest.mark.parametrize(
    ("registry", "name", "group"),
    [(SCHEMES, "semoma", "schemes"), (REFINERS, "ddim", "refiners"), (METRICS, "psnr", "metrics"),
     (DATASETS, "cifar10", "datasets")],
)  # fmt: skip
def test_a_plug_in_of_a_taken_name_is_refused_and_both_distributions_are_named(
    registry: Registry[Any], name: str, group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "other-people", f"linksim.{group}", **{name: "theirs:Thing"})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_points", None)
    with pytest.raises(LinksimError, match=rf"several plug-ins name .* {name!r}: linksim .* and other-people \(theirs"):
        registry.find(name)


@pytest.mark.parametrize("raised", ["BaseException('x')", "SystemExit(3)", "GeneratorExit('x')", "ValueError('x')"])
def test_whatever_a_plug_in_raises_at_import_is_one_line(
    raised: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "bad", "linksim.metrics", bad="raising_plugin:Bad")
    (tmp_path / "raising_plugin.py").write_text(f"raise {raised}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(METRICS, "_points", None)
    with pytest.raises(
        LinksimError, match=r"the plug-in of metric 'bad' \(raising_plugin:Bad\) does not import"
    ) as caught:
        METRICS.find("bad")
    assert "\n" not in str(caught.value)
    (tmp_path / "raising_plugin.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        METRICS.find("bad")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What a test found among entry points does not stay."""
    yield
    for registry in (SCHEMES, REFINERS, METRICS, DATASETS):
        registry._points = None


class Darkness(ImageMetric):
    """A plug-in metric."""

    name = "darkness"
    column = "darkness"
    higher_is_better = False
    summary = "for tests"
    convention = "1 - mean"

    def measure(self, reference: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return 1 - image.flatten(1).mean(1)


class Grey(DataSource):
    """A plug-in data set."""

    name = "grey"
    summary = "for tests"

    @classmethod
    def load(cls, spec: str, data_dir: Path | None, image_size: int | None) -> ImageSet:
        images = np.full((8, 3, 32, 32), int(spec.partition(":")[2]), np.uint8)
        return ImageSet(spec, images, (3, 32, 32), fingerprint(images), (0.5, 0.5, 0.5), "")


def test_metrics_and_data_sets_of_ones_own_take_part_in_a_sweep(tmp_path: Path) -> None:
    from tests.engine.test_sweep import Still

    linksim.register_metric(Darkness)
    linksim.register_dataset(Grey)
    linksim.register(Still)
    try:
        settings: dict[str, Any] = {"scheme": "still", "dataset": "grey:51", "metrics": "psnr,darkness", "snr": "0"}
        table = linksim.sweep(tmp_path / "x", progress=False, **settings)
        with pytest.raises(LinksimError, match="one worker"):
            linksim.sweep(tmp_path / "y", workers=2, progress=False, **{**settings, "snr": "0,1"})
    finally:
        for plug_in in (Darkness, Grey, Still):
            linksim.unregister(plug_in)
    assert table["darkness"].item() == pytest.approx(0.5)
    assert table["psnr_db"].item() == pytest.approx(-20 * np.log10(0.5 - 0.2), abs=1e-4)
    run = linksim.load(tmp_path / "x").attrs["run"]
    assert {"metric darkness plug-in", "dataset plug-in", "still awgn 1/6 plug-in"} <= set(run["identity"])
    assert run["conventions"]["darkness"] == "1 - mean"


def test_a_cell_that_runs_again_registers_anew_and_linksims_own_names_stay() -> None:
    again, psnr = type("Again", (Darkness,), {}), type("Psnr", (Darkness,), {"name": "psnr", "column": "own"})
    linksim.register_metric(Darkness)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            linksim.register_metric(Darkness)
        with pytest.warns(UserWarning, match="the metric 'darkness' is registered anew"):
            linksim.register_metric(again)
        images = torch.full((2, 3, 8, 8), 0.25)
        assert linksim.metric("darkness")(images, images).tolist() == [0.75, 0.75]
        with pytest.raises(LinksimError, match="a metric named 'psnr' exists"):
            linksim.register_metric(psnr)
        with pytest.raises(LinksimError, match="is not registered in this process"):
            linksim.unregister(Darkness)
    finally:
        linksim.unregister(again)
    assert "darkness" not in METRICS


@pytest.mark.parametrize("changes", [{"column": "tx_power"}, {"column": "A b"}, {"convention": None}])
def test_a_metric_that_would_hide_a_column_or_says_too_little_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(LinksimError, match="metric 'odd' has"):
        linksim.register_metric(type("Odd", (Darkness,), {"name": "odd", **changes}))


def test_an_edited_plug_in_does_not_return_its_old_results(
    cli: Cli, here: Cli, tmp_path: Path, cli_env: dict[str, str]
) -> None:
    place = Path(cli_env["PYTHONPATH"].split(":")[0])
    install(place, "level", "linksim.schemes", level="level_plugin:Level")
    (place / "level_plugin.py").write_text(PLUGIN)
    (place / "helper.py").write_text("LEVEL = 0.25\n")
    words = ["sweep", "--scheme", "level", "--snr", "0", "--groups", "2", "--metrics", "psnr", "--quiet"]
    words += ["--workers", "1", "--out", "x"]
    try:
        assert here(*words).returncode == 0
        before = linksim.load(tmp_path / "x")["psnr_db"].item()
        assert cli(*words).returncode == 0
        (place / "helper.py").write_text("LEVEL = 0.75\n")
        edited = cli(*words)
        assert edited.returncode == 2
        assert "level awgn 1/6 plug-in:" in edited.stderr
        assert edited.stderr.count("\n") == 1
        assert cli(*words, "--force-new").returncode == 0
        assert linksim.load(tmp_path / "x")["psnr_db"].item() != before
    finally:
        for module in ("level_plugin", "helper"):
            sys.modules.pop(module, None)
        (place / "level-1.dist-info" / "entry_points.txt").unlink()


NOTEBOOK = """
import linksim
from linksim.source import source_digest
SCALE = {scale}
def helper(x):
    return x * {factor}
class Mine(linksim.Scheme):
    name = "mine"
    summary = "{summary}"
    levels = (1, {level})
    def transmit(self, images, side):
        return helper(images) * SCALE
    def receive(self, received, side):
        return {{"a", "b", "c", "{word}"}}
print(source_digest(Mine))
"""


def test_a_class_of_a_notebook_is_told_by_its_code_in_every_session() -> None:
    plain = {"scale": 1, "factor": 2, "summary": "x", "level": 3, "word": "d"}

    def digest(**changes: object) -> str:
        done = subprocess.run(
            [sys.executable, "-"],
            input=NOTEBOOK.format(**{**plain, **changes}),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    found = [digest(), *(digest(**{key: 9}) for key in plain)]
    assert len(set(found)) == len(found) == 6
    assert digest() == found[0]
    assert len(found[0]) == 16


def test_linksims_own_code_goes_by_its_version() -> None:
    for registry in (SCHEMES, REFINERS, METRICS, DATASETS):
        own = registry.names()
        assert own
        for name in own:
            assert source_digest(registry.find(name)) == ""


def test_unknown_names_get_the_nearest() -> None:
    for registry, name, near in ((REFINERS, "dimm", "ddim"), (METRICS, "ssimm", "ssim"), (SCHEMES, "semona", "semoma")):
        with pytest.raises(LinksimError, match=f"did you mean '{near}'"):
            registry.find(name)
    with pytest.raises(LinksimError, match="did you mean 'cifar10'"):
        load_dataset("cifar-10")


def test_a_clone_that_was_never_installed_says_so() -> None:
    with pytest.raises(LinksimError, match=r"kind 'kd': none is known, .* not installed: pip install -e \."):
        Registry("kind", "linksim.nothing", lambda: object, "Kind").find("kd")


def test_list_in_a_clone_that_was_never_installed_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(SCHEMES, "_points", {})
    assert main(["list", "schemes"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "schemes: none is known, for linksim's code is here and not installed: pip install -e ." in shown.err


def test_the_example_metric_is_that_of_its_paper(plugin_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(plugin_path)
    from gradient_similarity import Gmsd

    images = torch.from_numpy(load_dataset("cifar10-mini").images[:6]).float() / 255
    assert Gmsd()(images, images).abs().max() == 0
    noisy = (images + 0.1 * torch.randn(images.shape, generator=torch.manual_seed(0))).clamp(0, 1)

    def luma(image: torch.Tensor) -> np.ndarray:
        y = 255 * np.tensordot([0.299, 0.587, 0.114], image.numpy(), 1)
        return y.reshape(16, 2, 16, 2).mean((1, 3))

    def magnitude(y: np.ndarray) -> np.ndarray:
        out = np.empty((14, 14))
        kernel = np.array([[1, 0, -1]] * 3) / 3
        for row, column in np.ndindex(14, 14):
            window = y[row : row + 3, column : column + 3]
            out[row, column] = np.hypot((window * kernel).sum(), (window * kernel.T).sum())
        return out

    for index, found in enumerate(Gmsd()(images, noisy)):
        one, other = magnitude(luma(images[index])), magnitude(luma(noisy[index]))
        expected = ((2 * one * other + 170) / (one**2 + other**2 + 170)).std()
        assert float(found) == pytest.approx(expected, rel=1e-4)


@pytest.mark.figures
def test_the_example_metric_is_a_column_beside_the_others(here: Cli, tmp_path: Path) -> None:
    words = ("--scheme", "bpg-capacity", "--snr", "0,10", "--groups", "8", "--metrics", "psnr,gmsd", "--quiet")
    done = here("sweep", *words, "--workers", "1", "--out", "x")
    assert done.returncode == 0, done.stderr
    table = linksim.load(tmp_path / "x").set_index("snr_db")
    assert table.loc[10, "gmsd"] < table.loc[0, "gmsd"]
    assert (tmp_path / "x" / "figures" / "gmsd_awgn.png").is_file()
