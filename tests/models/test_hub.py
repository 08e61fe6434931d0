"""Models as folders in Hugging Face's layout, out and in again."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import linksim
from linksim.cli import main
from linksim.models import weights
from linksim.models.hub import CARD, CONFIG, WEIGHTS
from linksim.modules import Transceiver

NAME = "semoma_awgn_1-12_n2_own_sum_32px_compact"


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "weights"))
    assert main(["card", NAME, "--export", str(tmp_path / "x")]) == 0
    return tmp_path / "x"


def test_what_was_exported_comes_in_again_with_its_card(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = weights.cards()[NAME]
    with safe_open(exported / WEIGHTS, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert (exported / CARD).read_text().startswith("---\nlibrary_name: linksim\nlicense: mit\n")
    assert main(["card", "--import", str(exported)]) == 0
    own = weights.cards()[NAME]
    assert {**own, "folder": ""} == {**shipped, "folder": ""}
    assert not weights.is_shipped(own)
    assert main(["verify", NAME]) == 0
    capsys.readouterr()
    assert main(["card", "--import", str(exported)]) == 2
    assert "--replace puts these in their place" in capsys.readouterr().err
    assert main(["card", "--import", str(exported), "--replace"]) == 0


def test_a_transceiver_is_saved_as_it_is_now(exported: Path, tmp_path: Path) -> None:
    model, shipped = Transceiver.from_pretrained(exported), linksim.load_model("semoma", rho="1/6")
    images = torch.rand(2, 2, 3, 32, 32)
    assert torch.equal(model(images, 10.0, seed=0), shipped(images, 10.0, seed=0))
    with torch.no_grad():
        next(model.parameters()).mul_(0.5)
    model.save_pretrained(tmp_path / "mine")
    again = Transceiver.from_pretrained(tmp_path / "mine")
    torch.testing.assert_close(again(images, 10.0, seed=0), model(images, 10.0, seed=0), atol=2e-3, rtol=0)
    # What was changed has no card, and is not taken for what is shipped.
    assert "card" not in json.loads((tmp_path / "mine" / CONFIG).read_text())
    assert "license: other" in (tmp_path / "mine" / CARD).read_text()


@pytest.mark.parametrize(
    ("part", "value", "hint"),
    [
        ("card", None, "weights without a card"),
        ("card.pairs", None, "its card is none (pairs: "),
        ("model.method", "kd", "not of the network of kd_"),
        ("model.rho", "1/0", "is of no model of linksim"),
        ("model.method", "gone", "unknown scheme 'gone'"),
        ("model", "text", "is of no model of linksim"),
        ("model.users", 10**9, "is of no model of linksim"),
        ("model.image_shape", [3, -32, 32], "is of no model of linksim"),
        ("model.ablation", "a b", "is of no model of linksim"),
        ("model.ablation", "zz", "semoma has no ablation 'zz'"),
        ("card.pairs", "1", "its card is none (pairs: "),
        ("card.parts", 5, "its card is none (parts: "),
        ("card.score", float("nan"), "its card is none (score: "),
        ("card.settings", {"snr_db": 5}, "its card is none (settings.snr_db: "),
        ("card.validation", {"psnr_0db": "1"}, "its card is none (validation.psnr_0db: "),
    ],
)
def test_a_config_that_is_none_is_one_line_and_changes_nothing(
    part: str, value: object, hint: str, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((exported / CONFIG).read_text())
    *above, last = part.split(".")
    place = config[above[0]] if above else config
    place.pop(last) if value is None else place.update({last: value})
    (exported / CONFIG).write_text(json.dumps(config))
    refused(exported, hint, capsys)


def test_files_that_are_none_are_one_line_and_change_nothing(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (exported / WEIGHTS).write_bytes(b"x")
    refused(exported, "no safetensors file", capsys)
    (exported / WEIGHTS).unlink()
    os.mkfifo(exported / WEIGHTS)
    refused(exported, "is no file", capsys)
    (exported / WEIGHTS).unlink()
    refused(exported, f"{WEIGHTS} is no file: give a folder that linksim card --export wrote", capsys)
    (exported / CONFIG).unlink()
    refused(exported, "give a folder that linksim card --export wrote", capsys)


def refused(folder: Path, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["card", "--import", str(folder)]) == 2
    said = capsys.readouterr().err
    assert hint in said
    assert said.count("\n") == 1
    assert not (folder.parent / "weights").exists()


def test_a_folder_that_holds_something_is_left_alone(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (exported / WEIGHTS).read_bytes()
    assert main(["card", NAME, "--export", str(exported)]) == 2
    assert "is not empty: give a new folder" in capsys.readouterr().err
    assert (exported / WEIGHTS).read_bytes() == before
    assert main(["card"]) == 2
    assert main(["card", NAME, "--import", str(exported)]) == 2
