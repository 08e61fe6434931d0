"""What goes along with results, so that others can pair with them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import linksim
from linksim.cli import main
from linksim.engine.config import make_config
from linksim.engine.pairs import GROUPS, kept, per_group
from linksim.engine.reproduce import reproduce


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
    for column in ("psnr_db", "psnr_pooled_db", "ssim"):
        gaps, spread = short[column] - whole[column][:GROUPS], whole[column].std()
        assert spread / 1000 < np.abs(gaps).max() < spread / 300
        assert abs(gaps.mean()) < spread / 3000
        assert short[column].dtype == np.float32


def test_a_metric_of_little_spread_is_not_rounded_away() -> None:
    rows = images(40).assign(own=lambda rows: 1000 + rows["mse"], tiny=lambda rows: 1e-44 * rows["mse"], same=1 / 3)
    whole, short = per_group(rows), kept(rows)
    for column in ("own", "tiny", "same"):
        assert np.abs(short[column] - whole[column]).max() <= whole[column].std() / 300


def test_values_without_a_number_stay_so() -> None:
    rows = images(3).assign(ssim=[np.nan, np.nan, np.inf, np.inf, 0.0, 0.0])
    np.testing.assert_array_equal(kept(rows)["ssim"], [np.nan, np.inf, 0.0])


def test_curves_that_are_not_run_again_keep_their_rows() -> None:
    before = pd.concat([kept(images(4)), kept(images(4, "semoma")), kept(images(4, rho=1 / 3))])
    found = kept(images(5), before)
    counts = found.groupby(["variant", "rho"])["group"].count().to_dict()
    assert counts == {("kd", 1 / 6): 5, ("kd", 1 / 3): 4, ("semoma", 1 / 6): 4}


def test_results_are_paired_with_where_the_table_of_images_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"channel": "rayleigh", "snr": "0,10", "groups": 6, "metrics": "psnr,ssim", "progress": False}
    linksim.sweep(tmp_path / "paper", scheme="bpg-capacity", **given)
    linksim.sweep(tmp_path / "mine", scheme="klt", **given | {"groups": 4})
    linksim.sweep(tmp_path / "elsewhere", scheme="klt", **given | {"groups": 4, "snr": "5"})
    linksim.sweep(tmp_path / "psnr", scheme="klt", **given | {"groups": 4, "metrics": "psnr"})
    whole = linksim.compare(tmp_path / "paper", "bpg-capacity", "psnr_pooled_db", others=[tmp_path / "mine"])
    linksim.sweep(tmp_path / "one", scheme="klt", **given | {"groups": 4, "snr": "10"})
    at_one = linksim.compare(tmp_path / "paper", "bpg-capacity", "psnr_pooled_db", others=[tmp_path / "one"])
    pd.testing.assert_frame_equal(at_one, whole[whole["snr_db"] == 10].reset_index(drop=True))
    words = ["compare", str(tmp_path / "paper"), "--with", str(tmp_path / "mine"), "--baseline", "bpg-capacity"]
    assert main([*words, "--curves", "klt"]) == 0
    assert main([*words, "--curves", "klr"]) == 2
    assert main([*words, "--curves", ""]) == 2
    (tmp_path / "paper" / "per_image.parquet").unlink()
    capsys.readouterr()
    assert main([*words, "--curves", "klt"]) == 0
    assert "of 6 groups" not in capsys.readouterr().out
    few = pd.read_parquet(tmp_path / "paper" / "per_group.parquet").query("group < 4")
    few.to_parquet(tmp_path / "paper" / "per_group.parquet")
    assert main([*words, "--curves", "klt"]) == 0
    assert "4 of 6 groups, the first ones" in capsys.readouterr().out
    short = linksim.compare(tmp_path / "paper", "bpg-capacity", "psnr_pooled_db", others=[tmp_path / "mine"])
    assert list(short["groups"]) == list(whole["groups"]) == [4, 4]
    assert list(short["difference"]) == pytest.approx(list(whole["difference"]), abs=0.008)
    with pytest.raises(linksim.LinksimError, match="no curve has ssim of the same image groups"):
        linksim.compare(tmp_path / "paper", "bpg-capacity", "ssim", others=[tmp_path / "psnr"])
    with pytest.raises(linksim.LinksimError, match="elsewhere have no channel, rho and SNR in common: sweep one of"):
        linksim.compare(tmp_path / "paper", "bpg-capacity", others=[tmp_path / "elsewhere"])
    (tmp_path / "paper" / "per_group.parquet").write_bytes(b"PAR1")
    with pytest.raises(linksim.LinksimError, match=r"per_group\.parquet cannot be read"):
        linksim.compare(tmp_path / "paper", "bpg-capacity", others=[tmp_path / "mine"])


@pytest.mark.parametrize(
    ("column", "value"),
    [("group", np.nan), ("group", "x"), ("stage", 1), ("rho", "x"), ("psnr_db", "x"), ("variant", None), ("group", 0)],
)
def test_a_damaged_table_of_groups_is_one_line_before_any_work(tmp_path: Path, column: str, value: object) -> None:
    """The last one has every row twice."""
    folder = tmp_path / "figure"
    config = make_config({"scheme": "klt", "snr": "10", "groups": 4, "metrics": "psnr"})
    reproduce(config, folder, workers=1)
    (folder / "per_image.parquet").unlink()
    path = folder / "per_group.parquet"
    pd.read_parquet(path).assign(**{column: value}).to_parquet(path)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    for act in (lambda: linksim.load_groups(folder), lambda: reproduce(config, folder, workers=1)):
        with pytest.raises(linksim.LinksimError, match=r"per_group\.parquet (lacks|has rows twice|has no numbers)"):
            act()
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before


def trained(model: str, effects: list[float], noise: float = 0.1) -> pd.DataFrame:
    """SSIM of 50 groups for several trainings of a model, each with an effect of its own."""
    random = np.random.default_rng(len(model))
    rows = [
        images(50, f"{model}{',' if ':' in model else ':'}weights=runs/{seed}").assign(
            ssim=lambda rows, effect=effect: effect + noise * random.standard_normal(len(rows))
        )
        for seed, effect in enumerate(effects)
    ]
    return pd.concat(rows, ignore_index=True)


def test_one_training_is_not_counted_as_two(tmp_path: Path) -> None:
    name = "semoma_awgn_1-12_n2_own_sum_32px_compact"
    linksim.sweep(
        tmp_path / "x", scheme=f"semoma,semoma:weights={name},klt", rho="1/6", snr=10, groups=2, metrics="psnr",
        progress=False,
    )  # fmt: skip
    assert len(linksim.compare(tmp_path / "x", "klt")) == 2
    with pytest.raises(linksim.LinksimError, match=f"semoma and semoma:weights={name} have the same weights"):
        linksim.compare(tmp_path / "x", "klt", trainings=True)
    for folder, scheme in (("y", "semoma,klt"), ("z", f"semoma:weights={name}")):
        linksim.sweep(tmp_path / folder, scheme=scheme, rho="1/6", snr=10, groups=2, metrics="psnr", progress=False)
    with pytest.raises(linksim.LinksimError, match=f"semoma and semoma:weights={name} have the same weights"):
        linksim.compare(tmp_path / "y", "klt", others=[tmp_path / "z"], trainings=True)


def test_the_chance_in_training_is_in_the_interval_of_several_trainings() -> None:
    from linksim.report.compare import by_training, paired_differences

    both = pd.concat([trained("kd:ablation=fa", [1.0, 3.0, 5.0]), trained("semnoma", [0.0, 1.0])])
    alone = paired_differences(both, "semnoma:weights=runs/0", "ssim")
    assert "trainings" not in alone
    with pytest.raises(linksim.LinksimError, match=r"names several variants: .*: give one in full, or --trainings"):
        paired_differences(both, "semnoma", "ssim")
    # By the name of one of them too.
    pd.testing.assert_frame_equal(
        paired_differences(by_training(both), "semnoma:weights=runs/1", "ssim"),
        paired_differences(by_training(both), "semnoma", "ssim"),
    )
    (found,) = paired_differences(by_training(both), "semnoma", "ssim").to_dict("records")
    assert found["variant"] == "kd:ablation=fa"
    assert (found["trainings"], found["baseline_trainings"], found["groups"]) == (3, 2, 50)
    assert found["difference"] == pytest.approx(2.5, abs=0.05)
    # Welch's interval by hand: variances 4 / 3 and 0.5 / 2 with 2 and 1 degrees of freedom; groups add next to nothing.
    from scipy.stats import t

    degrees = (4 / 3 + 0.25) ** 2 / ((4 / 3) ** 2 / 2 + 0.25**2)
    assert found["difference_ci95"] == pytest.approx(t.ppf(0.975, degrees) * (4 / 3 + 0.25) ** 0.5, rel=0.05)
    assert not found["clear"]
    assert alone[alone["variant"] == "kd:ablation=fa,weights=runs/2"]["clear"].item()
    # Of one training each, nothing is known of chance: the interval is that of the groups.
    once = pd.concat([trained("kd", [1.0]), trained("semnoma", [0.0])])
    (known,) = paired_differences(by_training(once), "semnoma", "ssim").to_dict("records")
    (plain,) = paired_differences(once, "semnoma:weights=runs/0", "ssim").to_dict("records")
    assert known["difference_ci95"] == pytest.approx(plain["difference_ci95"])
    assert (known["trainings"], known["baseline_trainings"]) == (1, 1)


def test_trainings_that_a_point_lacks_and_groups_that_one_lacks_are_left_out() -> None:
    from linksim.report.compare import by_training, paired_differences

    both = pd.concat([trained("kd", [1.0, 2.0, 3.0]), trained("semnoma", [0.0, 0.0])])
    both = both[(both["variant"] != "kd:weights=runs/1") | (both["group"] < 30)]
    fading = both[~both["variant"].isin(["kd:weights=runs/2"])].assign(channel="rayleigh")
    found = paired_differences(by_training(pd.concat([both, fading])), "semnoma", "ssim").set_index("channel")
    assert found["trainings"].to_dict() == {"awgn": 3, "rayleigh": 2}
    assert found["groups"].to_dict() == {"awgn": 30, "rayleigh": 30}
    assert found["difference"].to_dict() == pytest.approx({"awgn": 2.0, "rayleigh": 1.5}, abs=0.05)


def test_nine_in_ten_intervals_over_three_trainings_and_more_hold_the_difference() -> None:
    """Effects of trainings of both models, of groups on both, and noise."""
    from linksim.engine.stats import difference_of_trainings

    random = np.random.default_rng(3)
    held = 0
    for _ in range(2000):
        of_groups = random.standard_normal(40)
        ones, others = (
            of_groups * scale + random.standard_normal((3, 1)) * spread + 0.3 * random.standard_normal((3, 40))
            for scale, spread in ((1.2, 0.2), (1.0, 0.1))
        )
        mean, half = difference_of_trainings(ones, others)
        held += abs(mean) <= half
    # Student's t on few trainings: nominal, up to Satterthwaite's approximation.
    assert 0.93 < held / 2000 < 0.985
