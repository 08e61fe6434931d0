"""How a T' is chosen: on a made-up table of means."""

import math
from pathlib import Path

import pandas as pd
import pytest

import linksim
from linksim.engine.tune import TUNE_METRICS, choice_by, groups_for, tune
from linksim.errors import LinksimError
from linksim.metrics import METRICS, SetMetric
from linksim.refine.ddim.starts import own_table


def means() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "psnr_db": [20.0, 19.9, 19.6, 19.4, 18.0],
            "lpips_alex": [0.100, 0.090, 0.095, 0.101, 0.120],
            "lpips_alex_vs_first_ci95": [math.nan, 0.002, 0.002, 0.002, 0.002],
            "fid": [130.0, 120.0, 100.0, 90.0, 60.0],
        },
        index=[0, 8, 40, 60, 120],
    )


@pytest.mark.parametrize(
    ("metrics", "loss", "best"),
    [
        ("psnr,lpips-alex,fid", 0.5, 40),  # 60 costs 0.6 dB
        ("psnr,lpips-alex,fid", 0.7, 60),  # its LPIPS is higher by less than can be told
        ("psnr,lpips-alex,fid", 3.0, 60),  # 120 raises LPIPS
        ("psnr,lpips-alex,fid", 0.0, 0),
        ("lpips-alex", 0.5, 8),
        ("psnr", 0.5, 0),
    ],
)
def test_the_lowest_fid_is_taken_that_costs_little_psnr_and_no_lpips(metrics: str, loss: float, best: int) -> None:
    assert choice_by(metrics.split(","), loss).best(means()) == best


def test_where_nothing_is_better_nothing_is_refined() -> None:
    table = means()
    table["fid"] += table.index  # the larger T', the worse
    table.loc[8, "fid"] = 131
    assert choice_by(["psnr", "lpips-alex", "fid"], 0.5).best(table.loc[[0, 8]]) == 0


@pytest.mark.parametrize("users", [1, 2, 3, 8])
def test_as_many_groups_as_the_metrics_ask_for(users: int) -> None:
    groups = groups_for(TUNE_METRICS, users)
    for name in TUNE_METRICS:
        if issubclass(kind := METRICS.find(name), SetMetric):
            kind.check_count(groups * users)
            assert groups <= 256 or (groups - 1) * users < kind.MIN_IMAGES
    assert groups_for(("lpips-alex",), users) == 256


@pytest.mark.parametrize("metrics", ["fid", "psnr,fid", "psnr,lpips-alex", "psnr,fid,kid", "psnr,ssim,lpips-alex,fid"])
def test_other_metrics_choose_nothing(metrics: str) -> None:
    with pytest.raises(LinksimError, match="T' is chosen by one metric of single images"):
        choice_by(metrics.split(","), 0.5)


def test_a_start_of_zero_is_kept_and_leaves_images_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "weights"))
    values = {
        "scheme": "kd+ddim", "channel": "awgn", "rho": "1/6", "snr": "20", "groups": 2, "metrics": "psnr",
        "dataset": "cifar10-mini",
    }  # fmt: skip
    # No refinement raises PSNR.
    _, (tuned,) = tune(values, (200,), tmp_path / "tuned", workers=1, replace=True)
    assert (tuned.starts.one, tuned.starts.by_snr) == (0, {20.0: 0})
    assert '"criterion": "best mean psnr_db"' in own_table().read_text()
    table = linksim.sweep(tmp_path / "x", scheme="kdd", snr="20", groups=2, metrics="psnr", progress=False)
    assert list(table["refine_start"])[1:] == [0.0]
    assert list(table["refine_steps"])[1:] == [0.0]
    assert table["psnr_db"].nunique() == 1
    assert list(table["psnr_db_vs_first"])[1:] == [0.0]
