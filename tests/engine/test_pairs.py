"""What goes along with results, so that others can pair with them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import linksim
from linksim.engine.pairs import GROUPS, kept, per_group


def images(groups: int, variant: str = "kd", rho: float = 1 / 6) -> pd.DataFrame:
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"group": np.repeat(np.arange(groups), 2), "user": np.tile([0, 1], groups)})
    rows = rows.assign(variant=variant, scheme=variant, stage="first", channel="awgn", rho=rho, snr_db=10.0)
    rows = rows.assign(
        mse=random.uniform(1e-3, 1e-2, len(rows)), image=0, lost=False, ssim=random.uniform(size=len(rows))
    )
    return rows.assign(psnr_db=-10 * np.log10(rows["mse"]))


def test_a_groups_psnr_is_the_mean_and_the_pooled_that_of_its_mean_error() -> None:
    found = per_group(images(40))
    mse = images(40)["mse"].to_numpy().reshape(-1, 2)
    np.testing.assert_allclose(found["psnr_db"], (-10 * np.log10(mse)).mean(axis=1))
    np.testing.assert_allclose(found["psnr_pooled_db"], -10 * np.log10(mse.mean(axis=1)))
    assert found.columns.intersection(["mse", "lost", "image", "user"]).empty


def test_what_is_kept_is_short_and_near() -> None:
    whole, short = per_group(images(GROUPS + 7)), kept(images(GROUPS + 7))
    assert list(short["group"]) == list(range(GROUPS))
    for column, most in (("psnr_db", 0.008), ("psnr_pooled_db", 0.008), ("ssim", 2.5e-4)):
        gaps = short[column] - whole[column][:GROUPS]
        assert 0 < np.abs(gaps).max() <= most
        assert abs(gaps.mean()) < most / 8
        assert (short[column].to_numpy(np.float32).view(np.int32) % 2**13 == 0).all()


def test_values_without_a_number_stay_so() -> None:
    rows = images(3).assign(ssim=[np.nan, np.nan, np.inf, np.inf, 0.0, 0.0])
    np.testing.assert_array_equal(kept(rows)["ssim"], [np.nan, np.inf, 0.0])


def test_curves_that_are_not_run_again_keep_their_rows() -> None:
    before = pd.concat([kept(images(4)), kept(images(4, "semoma")), kept(images(4, rho=1 / 3))])
    found = kept(images(5), before)
    counts = found.groupby(["variant", "rho"])["group"].count().to_dict()
    assert counts == {("kd", 1 / 6): 5, ("kd", 1 / 3): 4, ("semoma", 1 / 6): 4}


def test_results_are_paired_with_where_the_table_of_images_is_gone(tmp_path: Path) -> None:
    given = {"channel": "rayleigh", "snr": "0,10", "groups": 6, "metrics": "psnr,ssim", "progress": False}
    linksim.sweep(tmp_path / "paper", scheme="bpg-capacity", **given)
    linksim.sweep(tmp_path / "mine", scheme="klt", **given | {"groups": 4})
    whole = linksim.compare(tmp_path / "paper", "bpg-capacity", "psnr_pooled_db", others=[tmp_path / "mine"])
    (tmp_path / "paper" / "per_image.parquet").unlink()
    short = linksim.compare(tmp_path / "paper", "bpg-capacity", "psnr_pooled_db", others=[tmp_path / "mine"])
    assert list(short["groups"]) == list(whole["groups"]) == [4, 4]
    assert list(short["difference"]) == pytest.approx(list(whole["difference"]), abs=0.008)
    (tmp_path / "paper" / "per_group.parquet").write_bytes(b"PAR1")
    with pytest.raises(linksim.LinksimError, match=r"per_group\.parquet cannot be read"):
        linksim.compare(tmp_path / "paper", "bpg-capacity", others=[tmp_path / "mine"])
