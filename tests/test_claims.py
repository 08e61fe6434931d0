"""The verdicts on the paper's claims come from paired differences, and say what they cannot say."""

import csv
import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import linksim
from linksim.engine.pairs import kept, per_group
from linksim.report.compare import by_training

FILE = Path(__file__).parent.parent / "benchmarks" / "claims.py"
spec = importlib.util.spec_from_file_location("claims", FILE)
assert spec is not None
assert spec.loader is not None
claims = sys.modules["claims"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(claims)

CLAIM = claims.Claim("fig06", "awgn", "1/6", (0.0, 10.0), "kd", "semnoma", "text", (0.2, 0.3))


def images(gap: float, spread: float = 0.05) -> pd.DataFrame:
    """200 pairs whose quality differs by decibels, at three SNRs; `kd` is above `semnoma` by `gap` up to 10 dB."""
    draws = np.random.default_rng(0)
    rows = []
    for group in range(200):
        quality = draws.normal(25, 5)
        for snr in (0.0, 10.0, 20.0):
            for user in range(2):
                for variant, more in (("semnoma", 0.0), ("kd", gap if snr <= 10 else -9.0)):
                    psnr = quality + more + draws.normal(0, spread)
                    rows.append((variant, "first", "awgn", 1 / 6, snr, group, user, 10 ** (-psnr / 10), psnr / 50))
    columns = ["variant", "stage", "channel", "rho", "snr_db", "group", "user", "mse", "ssim"]
    return pd.DataFrame(rows, columns=columns).assign(psnr_db=lambda rows: -10 * np.log10(rows["mse"]))


def measured(table: pd.DataFrame, claim: "claims.Claim") -> tuple[float, float] | None:
    """What a claim comes to by a table of images."""
    found: tuple[float, float] | None = claims.measured(per_group(table), claim)
    return found


def test_a_gap_is_paired_within_groups_over_the_snrs_of_the_claim() -> None:
    mean, half = measured(images(0.25), CLAIM)
    assert mean == pytest.approx(0.25, abs=0.02)
    # Images differ by 5 dB, differences of a pair of schemes by hundredths: 2 users, 2 SNRs, 2 schemes, 200 groups.
    assert half == pytest.approx(1.97 * 0.05 * np.sqrt(2 / 4 / 200), rel=0.2)


def test_shuffled_groups_make_no_difference_and_missing_curves_no_verdict() -> None:
    shuffled = images(0.25).sample(frac=1, random_state=0)
    assert measured(shuffled, CLAIM) == pytest.approx(measured(images(0.25), CLAIM))
    kd_alone, elsewhere = images(0.25).query("variant == 'kd'"), images(0.25).assign(channel="rayleigh")
    in_part = images(0.25).query("variant == 'kd' or snr_db > 0 or group > 0")
    for other in (kd_alone, elsewhere, in_part):
        assert measured(other, CLAIM) is None
    assert claims.verdict(CLAIM, None) == "not yet measurable"


@pytest.mark.parametrize(
    ("gap", "spread", "verdict"),
    [
        (0.25, 0.05, "holds"),
        (0.19, 0.5, "holds"),
        (0.5, 0.05, "holds: by more"),
        (0.1, 0.05, "fails: above, by less"),
        (-0.25, 0.05, "fails"),
        (0.0, 1.0, "fails"),
    ],
)
def test_a_claim_holds_where_the_interval_is_above_zero_and_reaches_the_stated_gap(
    gap: float, spread: float, verdict: str
) -> None:
    assert claims.verdict(CLAIM, measured(images(gap, spread), CLAIM)) == verdict


def test_an_order_needs_no_gap_and_what_is_comparable_has_none() -> None:
    order, equal = replace(CLAIM, said=None), replace(CLAIM, said=None, equal=True)
    for gap, verdicts in ((0.05, ("holds", "holds")), (1.0, ("holds", "fails")), (-1.0, ("fails", "fails"))):
        found = measured(images(gap), order)
        assert (claims.verdict(order, found), claims.verdict(equal, found)) == verdicts
    mean, _ = measured(images(0.25), replace(CLAIM, metric="ssim"))
    assert mean == pytest.approx(0.25 / 50, abs=0.001)


def test_psnr_is_of_the_error_pooled_over_a_groups_users() -> None:
    table = images(0.0, 0.0)
    table.loc[(table["variant"] == "kd") & (table["user"] == 0), "mse"] *= 3
    mean, half = measured(table, CLAIM)
    assert mean == pytest.approx(-10 * np.log10(2))
    assert half == pytest.approx(0, abs=1e-9)


def test_a_level_is_a_mean_of_its_own_and_a_share_is_in_percent_of_the_other() -> None:
    table = images(0.25)
    mean = table.query("variant == 'kd' and snr_db <= 10")["psnr_db"].mean()
    level = replace(CLAIM, worse="", said=(20.0, 30.0), metric="psnr_db", level=True)
    found = measured(table, level)
    assert found[0] == pytest.approx(mean)
    assert claims.verdict(level, found) == "holds"
    assert claims.verdict(replace(level, said=(40.0, 41.0)), found).startswith("fails")
    share = replace(CLAIM, said=(0.5, 0.5), metric="psnr_db", share=True)
    assert measured(table, share)[0] == pytest.approx(100 * 0.25 / (mean - 0.25), rel=0.1)


def test_of_lpips_less_is_better() -> None:
    table = images(0.25).assign(lpips_vgg=lambda rows: rows["mse"])
    assert claims.verdict(replace(CLAIM, said=None, metric="lpips_vgg"),
                          measured(table, replace(CLAIM, said=None, metric="lpips_vgg"))) == "holds"  # fmt: skip


def test_a_claim_names_the_budgets_of_both_sides() -> None:
    rows = [("kd", "awgn", 1 / 6, 291200), ("semnoma", "awgn", 1 / 6, 60400), ("kd", "rayleigh", 1 / 6, 1000)]
    table = pd.DataFrame(rows, columns=["variant", "channel", "rho", "trained_pairs"])
    table["snr_db"] = 0.0
    assert claims.budgets(table, CLAIM) == (291200, 60400)
    digital = claims.Claim("fig06", "awgn", "1/6", (0.0, 6.0), "kd", claims.BASELINE, "text")
    pairs = claims.budgets(table, digital)
    assert pairs == pytest.approx((291200, np.nan), nan_ok=True)
    assert not claims.favoured(pairs)


def test_a_gap_of_the_one_that_was_trained_longer_says_nothing_unless_it_is_below() -> None:
    assert claims.favoured((120, 100))
    assert not claims.favoured((105, 100))
    assert not claims.favoured((100, 120))
    order = replace(CLAIM, said=None)
    assert claims.verdict(order, measured(images(0.25), order), True) == "not yet measurable: unequal budgets"
    assert claims.verdict(order, measured(images(-0.25), order), True) == "fails"


def test_every_claim_is_of_a_sweep_file_that_asks_for_its_curves() -> None:
    from linksim.engine.config import make_config, read_sweep_file

    for claim in claims.CLAIMS:
        config = make_config(read_sweep_file(FILE.parent.parent / "sweeps" / f"{claim.figure}.yaml"))
        curves = by_training(pd.DataFrame({"variant": config.scheme}))["variant"]
        assert {claim.better, claim.worse} - {""} <= set(curves), claim
        assert (claim.worse == "") == claim.level
        assert claim.channel in config.channel
        assert claim.rho in config.rho
        assert set(claim.snr_db) <= set(config.snr)


def results(folder: Path, hashes: dict[str, str], per_image: bool) -> None:
    """A folder fig06 with both curves of CLAIM at 0 and 10 dB."""
    rows = [(name, "first", "awgn", 1 / 6, snr) for name in ("kd", "semnoma") for snr in (0.0, 10.0)]
    table = pd.DataFrame(rows, columns=["variant", "stage", "channel", "rho", "snr_db"])
    table = table.assign(trained_pairs=1000, psnr_pooled_db=25.0, ssim=0.5, bler=np.nan, tx_power=1.0, n_images=1000)
    table = table.assign(kind="scheme", dataset="cifar10", power="sum", users=2, channel_uses=512, stop_reason="groups")
    (folder / "fig06").mkdir(exist_ok=True)
    table.to_parquet(folder / "fig06" / "table.parquet")
    identity = {f"{name} awgn 1/6 weights": digest for name, digest in hashes.items()}
    (folder / "fig06" / "run.json").write_text(json.dumps({"identity": identity, "config": {}}))
    if per_image:
        images(0.25).to_parquet(folder / "fig06" / "per_image.parquet")
    else:
        (folder / "fig06" / "per_image.parquet").unlink(missing_ok=True)


def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The line of CLAIM in claims.csv after one run."""
    monkeypatch.setattr(claims, "CLAIMS", [CLAIM])
    monkeypatch.setattr(sys, "argv", ["claims.py", str(folder)])
    claims.main()
    with (folder / "claims.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    return line


def test_a_line_stays_while_the_curves_are_of_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hashes = {"kd": "0123456789abcdef", "semnoma": "fedcba9876543210"}
    results(tmp_path, hashes, per_image=True)
    begin, end = claims.marks("claims")
    (tmp_path / "README.md").write_text(f"# R\n{begin}\nold\n{end}\nrest\n")
    line = run(tmp_path, monkeypatch)
    assert (line["weights"], line["verdict"]) == ("01234567 / fedcba98", "holds")
    assert float(line["gap"]) == pytest.approx(0.25, abs=0.02)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith(f"# R\n{begin}\n\n| claim |")
    assert text.endswith(f"| 1k / 1k | holds |\n\n{end}\nrest\n")
    results(tmp_path, hashes, per_image=False)
    assert run(tmp_path, monkeypatch) == line
    # Tables that are gone or damaged take nothing with them.
    shutil.rmtree(tmp_path / "fig06")
    assert run(tmp_path, monkeypatch) == line
    results(tmp_path, hashes, per_image=False)
    (tmp_path / "fig06" / "run.json").write_text('{"id')
    assert run(tmp_path, monkeypatch) == line
    assert "claims on it stay as they were" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == text
    results(tmp_path, {**hashes, "kd": "aaaaaaaaaaaaaaaa"}, per_image=False)
    assert run(tmp_path, monkeypatch)["verdict"] == "not yet measurable"
    assert "not yet measurable" in capsys.readouterr().out


def test_curves_of_other_weights_are_measured_on_the_groups_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = {"kd": "0123456789abcdef", "semnoma": "fedcba9876543210"}
    results(tmp_path, hashes, per_image=True)
    line = run(tmp_path, monkeypatch)
    rows = images(0.3)
    short = kept(rows.query("group < 60 or variant == 'kd'"))
    short.to_parquet(tmp_path / "fig06" / "per_group.parquet")
    results(tmp_path, hashes, per_image=False)
    assert run(tmp_path, monkeypatch) == line
    results(tmp_path, {**hashes, "kd": "aaaaaaaaaaaaaaaa"}, per_image=False)
    again = run(tmp_path, monkeypatch)
    assert float(again["gap"]) == pytest.approx(0.3, abs=0.02)
    assert 1.5 < float(again["gap_ci95"]) / float(line["gap_ci95"]) < 2.2
    assert again["weights"] == "aaaaaaaa / fedcba98"


def test_no_tables_and_no_lines_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, monkeypatch)
    assert stopped.value.code == 2


def test_lines_that_are_no_claims_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results(tmp_path, {"kd": "0", "semnoma": "1"}, per_image=True)
    for content in (b"gap\nx\n", b"better,worse\nkd,semnoma\n", b"gap,gap_ci95\n\xff\xfe,1\n"):
        (tmp_path / "claims.csv").write_bytes(content)
        with pytest.raises(SystemExit) as stopped:
            run(tmp_path, monkeypatch)
        assert stopped.value.code == 2
        assert "claims.csv holds no claims" in capsys.readouterr().err
        assert (tmp_path / "claims.csv").read_bytes() == content


def test_the_committed_table_of_claims_is_that_of_claims_csv_and_complete() -> None:
    folder = FILE.parent.parent / "results"
    with (folder / "claims.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [{key: line[key] for key in claim.key} for line, claim in zip(lines, claims.CLAIMS, strict=True)] == [
        claim.key for claim in claims.CLAIMS
    ]
    text, shown = (folder / "README.md").read_text(), []
    for marks in claims.PAPERS.values():
        begin, end = claims.marks(marks)
        assert begin in text
        table = text.partition(begin)[2].partition(end)[0]
        shown += [row.split(" | ") for row in table.splitlines() if row.startswith("| `")]
    assert [row[-1].removesuffix(" |") for row in shown] == [line["verdict"] for line in lines]
    for row, line, claim in zip(shown, lines, claims.CLAIMS, strict=True):
        if line["verdict"] == claims.UNKNOWN:
            assert row[6].strip() == ""
            assert np.isnan(float(line["gap"]))
            continue
        assert claims.kept([line], claim) is not None
        assert row[6].strip() == claims._shown(claim, (float(line["gap"]), float(line["gap_ci95"])))
    # What the KDD paper claims of these figures is measured.
    assert claims.UNKNOWN not in [line["verdict"] for line, claim in zip(lines, claims.CLAIMS, strict=True)
                                  if claim.paper == "KDD"]  # fmt: skip


def test_several_trainings_are_one_curve_whose_chance_is_in_the_interval(tmp_path: Path) -> None:
    rows = []
    for seed, better in enumerate((0.2, 0.3, 0.4)):
        more = images(0.0).assign(
            mse=lambda rows, better=better: rows["mse"] * 10 ** (-better / 10 * (rows["variant"] == "kd"))
        )
        rows.append(more.assign(variant=more["variant"] + f":weights=runs/seed{seed}"))
    mean, half = measured(pd.concat(rows), CLAIM)
    assert mean == pytest.approx(0.3, abs=0.02)
    # Three trainings 0.1 dB apart, and of the other model three that are alike: t of 2 degrees of freedom.
    assert half == pytest.approx(4.303 * 0.1 / np.sqrt(3), rel=0.1)
    one = measured(rows[0], CLAIM)
    assert one is not None
    assert one[1] < half / 10
    table = pd.DataFrame(
        {"variant": [f"{name}:weights=runs/seed{seed}" for name in ("kd", "semnoma") for seed in range(2)]}
    )
    table = table.assign(channel="awgn", rho=1 / 6, snr_db=0.0, trained_pairs=[10.0, 20.0, 15.0, 15.0])
    table.attrs["run"] = {
        "identity": {f"{one} awgn 1/6 weights": f"{number}" * 64 for number, one in enumerate(table["variant"])}
    }
    assert claims.budgets(table, CLAIM) == (20.0, 15.0)
    assert claims.weights(table, CLAIM) == "00000000+11111111 / 22222222+33333333"


@pytest.mark.parametrize("figure", claims.FIGURES)
def test_the_committed_tables_of_curves_are_those_of_the_results(figure: str) -> None:
    folder = FILE.parent.parent / "results"
    text = (folder / "README.md").read_text()
    assert claims.marks(figure)[0] in text
    assert claims.placed(text, figure, claims.curves(linksim.load(folder / figure))) == text


def test_a_table_of_curves_shows_pooled_psnr_ssim_and_pairs_of_each_channel_and_rho() -> None:
    rows = [(name, "first", "awgn", rho, snr) for rho in (1 / 6, 1 / 3) for name in ("kd", "bpg") for snr in (0.0, 5.0)]
    table = pd.DataFrame(rows, columns=["variant", "stage", "channel", "rho", "snr_db"])
    table = table.assign(psnr_pooled_db=table["rho"] * 60 + table["snr_db"], ssim=table["snr_db"] / 10)
    table["trained_pairs"] = table["variant"].map({"kd": 348_800.0, "bpg": np.nan})
    lines = claims.curves(table)
    assert [line for line in lines if "rho" in line] == [
        f"| AWGN, rho {rho}: PSNR / SSIM | 0 dB | 5 dB | 10 dB | 15 dB | 20 dB | pairs |" for rho in ("1/6", "1/3")
    ]
    assert "| `kd` | 10.00 / 0.000 | 15.00 / 0.500 |  |  |  | 349k |" in lines
    assert "| `bpg` | 20.00 / 0.000 | 25.00 / 0.500 |  |  |  | - |" in lines
