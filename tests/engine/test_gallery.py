"""Example images: what a gallery shows is what a sweep measures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import linksim
from linksim.cli import main
from linksim.engine.config import make_config
from linksim.engine.gallery import simulate_gallery


def test_a_gallery_shows_what_the_sweep_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["gallery", "--scheme", "kd,kd+cgan,semnoma:size=paper", "--snr", "5", "--groups", "3,1", "--channel",
             "awgn,rayleigh", "--out", str(tmp_path / "g")]  # fmt: skip
    assert main(words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("left out  semnoma:size=paper: no weights")
    assert [Path(line).name for line in said[1:]] == [
        f"gallery_{channel}.{kind}" for channel in ("awgn", "rayleigh") for kind in ("png", "pdf")
    ]
    shown = pd.read_csv(tmp_path / "g" / "gallery.csv")
    linksim.sweep(
        tmp_path / "s", scheme="kd,kd+cgan", snr="5", groups=4, channel="awgn,rayleigh", metrics="psnr,lpips-alex",
        progress=False,
    )  # fmt: skip
    images = linksim.load_images(tmp_path / "s").set_index(["channel", "variant", "stage", "group", "user"])
    for row in shown[shown["shown"] != "original"].to_dict("records"):
        group, user = (int(part.split()[1]) for part in row["image"].split(", "))
        stage = "cgan" if row["shown"] == "kd+cgan" else "first"
        there = images.loc[row["channel"], row["shown"], stage, group, user]
        np.testing.assert_allclose(row["psnr_db"], there["psnr_db"], atol=0.05)
        np.testing.assert_allclose(row["lpips_alex"], there["lpips_alex"], atol=5e-3)
    assert len(shown) == 2 * 4 * 3
    run = json.loads((tmp_path / "g" / "gallery.json").read_text())
    assert run["groups"] == [3, 1]
    assert run["finished"]


def test_a_group_of_a_gallery_shares_its_code_block_with_those_of_the_sweep(tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "scheme": "bpg-ldpc-qam-sic:block=joint",
        "users": 1,
        "channel": "awgn",
        "snr": 1.2,
        "metrics": "psnr",
    }
    shown = simulate_gallery(make_config({**asked, "groups": 1}), [2, 5]).rows
    linksim.sweep(tmp_path / "s", groups=8, workers=1, progress=False, **asked)
    there = linksim.load_images(tmp_path / "s").set_index("group")["psnr_db"]
    mine = [row["psnr_db"] for row in shown if row["shown"] != "original"]
    np.testing.assert_allclose(mine, there[[2, 5]], atol=0.05)


def test_a_new_gallery_takes_its_own_old_figures_alone_away(tmp_path: Path) -> None:
    (tmp_path / "gallery_mine.png").write_bytes(b"mine")
    words = ["gallery", "--scheme", "kd", "--out", str(tmp_path), "--groups"]
    assert main([*words, "0", "--channel", "awgn,rayleigh"]) == 0
    assert main([*words, "999", "--channel", "rayleigh"]) == 2
    assert (tmp_path / "gallery_awgn.png").exists()
    assert main([*words, "0", "--channel", "rayleigh"]) == 0
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["gallery_mine.png", "gallery_rayleigh.png"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--scheme", "kd", "--snr", "0,5"], "one SNR and one rho"),
        (["--scheme", "kd", "--groups", "0,256"], "groups 0 to 255, not 256"),
        (["--scheme", "kd", "--groups", "a"], "whole numbers from 0"),
        (["--scheme", "kd:size=paper"], "no scheme of this gallery has its weights"),
        (["--scheme", "kd", "--out", "."], "current folder"),
        (["--scheme", "kd", "--out", f"{__file__}/g"], "cannot be written (Not a directory)"),
        ([], "no scheme given"),
    ],
)
def test_galleries_that_cannot_be_are_refused(
    words: list[str], hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["gallery", *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("linksim: ")
    assert hint in lines[-1]
    assert not any(line.startswith("kd, awgn") for line in lines)
    assert not any(tmp_path.rglob("*.png"))


def test_refiners_are_listed_with_their_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "refiners"]) == 0
    said = capsys.readouterr().out
    for word in ("cgan ", "ddim ", "diffbir ", "diffbir-mini ", "  start=auto", "  guidance=4.0"):
        assert word in said


@pytest.mark.parametrize("groups", ["0,0", ",".join(map(str, range(65)))])
def test_groups_of_a_gallery_are_few_and_each_is_named_once(
    groups: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["gallery", "--scheme", "bpg-capacity", "--groups", groups, "--out", str(tmp_path / "g")]
    assert main(words) == 2
    assert "64 groups at the most, and each once" in capsys.readouterr().err
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize("content", ["[]", '{"figures": 5}', '{"figures": [5, null, "../x", "gallery_a.png"]}', "{"])
def test_a_record_of_another_form_is_no_gallery_of_before(tmp_path: Path, content: str) -> None:
    from linksim.report.gallery import _figures

    (tmp_path / "gallery.json").write_text(content)
    assert _figures(tmp_path / "gallery.json") == (["gallery_a.png"] if "gallery_a" in content else [])
