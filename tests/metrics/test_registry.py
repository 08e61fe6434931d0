from pathlib import Path

import pytest

from linksim.errors import LinksimError
from linksim.metrics import METRICS, Psnr, conventions, make_metric, require


@pytest.fixture(autouse=True)
def empty_assets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LINKSIM_ASSETS", str(tmp_path))


def test_the_names_and_columns_are_the_documented_ones() -> None:
    assert {name: metric.column for name, metric in METRICS.items()} == {
        "psnr": "psnr_db",
        "ssim": "ssim",
        "lpips": "lpips_vgg",
        "lpips-alex": "lpips_alex",
        "fid": "fid",
        "kid": "kid",
    }
    assert [name for name, metric in METRICS.items() if metric.higher_is_better] == ["psnr", "ssim"]
    assert [name for name, metric in METRICS.items() if metric.of_a_set] == ["fid", "kid"]
    assert all(metric.summary and "\n" not in metric.summary for metric in METRICS.values())


def test_every_metric_states_its_convention() -> None:
    words = conventions()
    assert set(words) == set(METRICS)
    assert "per-image" in words["psnr"]
    assert "11x11 Gaussian" in words["ssim"]
    assert "VGG16" in words["lpips"]
    assert "AlexNet" in words["lpips-alex"]
    assert "299x299" in words["fid"]


def test_metrics_without_weights_need_nothing() -> None:
    require(["psnr", "ssim"])


@pytest.mark.parametrize(("name", "asset"), [("lpips", "vgg16"), ("fid", "inception-fid")])
def test_missing_weights_are_named_with_their_command_before_anything_runs(name: str, asset: str) -> None:
    for ask in (lambda: require(["psnr", name]), lambda: make_metric(name)):
        with pytest.raises(LinksimError, match=rf"^{asset} is not installed: linksim assets get {asset}$"):
            ask()


def test_one_lpips_needs_no_weights_but_the_packages(tmp_path: Path) -> None:
    require(["lpips-alex"])
    make_metric("lpips-alex")
    with pytest.raises(LinksimError, match="vgg16 is not installed"):
        require(["lpips"])


def test_an_unknown_metric_gets_the_nearest_name() -> None:
    for ask in (lambda: require(["psnrr"]), lambda: make_metric("psnrr")):
        with pytest.raises(LinksimError, match="did you mean 'psnr'"):
            ask()


def test_two_metrics_that_write_one_column_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Psnr):
        name = "mine"

    monkeypatch.setitem(METRICS._registered, "mine", Mine)
    require(["psnr", "psnr", "ssim"])
    with pytest.raises(LinksimError, match=r"^metrics 'psnr' and 'mine' both write the column 'psnr_db': take one"):
        require(["psnr", "ssim", "mine"])
