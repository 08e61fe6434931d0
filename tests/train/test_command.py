"""`linksim train` from end to end: weights with a card, killed and gone on with, and what it refuses."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import linksim
from linksim import LinksimError
from linksim.cli import main
from linksim.data import cifar10
from linksim.models import weights
from linksim.models.checkpoint import load_checkpoint
from linksim.models.recipe import make_recipe
from linksim.models.spec import ModelSpec, began_with, lineage_pairs
from linksim.schemes.learned import transceiver
from linksim.schemes.semnoma.embedding import train_embedding
from linksim.schemes.semnoma.recipe import RECIPES, Recipe
from linksim.stopping import Stopped
from linksim.train import loop
from linksim.train.models import nearest, waves
from linksim.train.run import alone_in, run_training, set_aside
from tests.data.fake_cifar import install_fake, write_binary

OFFICIAL = os.environ.get("LINKSIM_TEST_CIFAR10")
BASE = ModelSpec("semoma", "compact", "awgn", Fraction(1, 24))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_networks: None) -> Path:
    """A folder with data and own weights, a validation set of 8 images, and small networks."""
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(cifar10, "VALIDATION", 8)
    write_binary(tmp_path / "data", install_fake(monkeypatch))
    return tmp_path


def train(folder: Path, *words: str) -> int:
    given = [*words] if any(word.startswith("batch") for word in words) else ["--set", "batch=2", *words]
    return main(["train", "--data-dir", str(folder / "data"), "--out", str(folder / "runs"), *given])


def source(folder: Path) -> None:
    """The orthogonal model that superposing ones at rho 1/24 start as."""
    assert train(folder, "--scheme", "semoma", "--rho", "1/24", "--steps", "1") == 0


SOURCE = "semoma_awgn_1-48_n2_own_sum_32px_compact"
EMBED = ("--set", "embed_steps=3")


def test_a_teacher_and_its_student_get_cards_that_verify(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(folder, "--scheme", "kd", "--rho", "1/24", "--steps", "2") == 2
    assert f"starts as {SOURCE}, users in separate channel uses" in capsys.readouterr().err
    source(folder)
    assert train(folder, "--scheme", "kd", "--rho", "1/24", "--steps", "2") == 2
    assert "no weights semoma_awgn_1-24" in capsys.readouterr().err
    assert train(folder, "--scheme", "semoma", "--rho", "1/12", "--steps", "3", "--set", "loss=mse") == 0
    student = ("--scheme", "kd-semnoma", "--rho", "1/24", "--steps", "2", "--set", "cross_layer=2", *EMBED)
    assert train(folder, *student) == 0
    # What comes before its first step is shown too.
    assert re.search(r"orthogonal embedding: .*3/3", capsys.readouterr().err)
    cards = weights.cards()
    teacher, student = cards[BASE.name], cards[replace(BASE, method="kd").name]
    assert (teacher["pairs"], lineage_pairs(teacher), teacher["lineage"]) == (6, 6, [])
    # Three steps of the embedding and two of the training, after the source's one.
    assert (student["pairs"], lineage_pairs(student), began_with(student)) == (10, 12, SOURCE)
    assert student["embedded"]
    assert student["command"].endswith("--recipe finetune --set batch=2 --set embed_steps=3 --set cross_layer=2 "
                                       "--warm embedded")  # fmt: skip
    assert teacher["recipe"] == "scratch batch=2 loss=mse"
    assert student["recipe"] == "finetune batch=2 embed_steps=3 cross_layer=2"
    assert set(student["validation"]) == {"psnr_0db", "psnr_10db", "psnr_20db"}
    for key in ("data", "seconds", "device", "code", "files", "command", "golden_psnr_db"):
        assert student[key] or student[key] == 0
    losses = (folder / "runs" / replace(BASE, method="kd").name / "train.csv").read_text().splitlines()
    assert losses[0] == "step,log-mse,fa,crosskd,total"
    assert main(["verify", BASE.name, replace(BASE, method="kd").name]) == 0


def test_trainings_that_start_alike_share_their_embedding(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source(folder)
    made: list[int] = []

    def counted(*given: Any) -> int:
        made.append(train_embedding(*given))
        return made[-1]

    monkeypatch.setattr("linksim.schemes.semnoma.training.train_embedding", counted)
    monkeypatch.setenv("LINKSIM_CACHE", str(tmp_path / "cache"))
    words = ("--scheme", "semnoma", "--rho", "1/24", "--steps", "1", "--replace", *EMBED)

    def trained(out: str, *more: str) -> dict[str, Any]:
        assert train(folder, *words, "--out", str(tmp_path / out), *more) == 0
        return weights.cards()["semnoma_awgn_1-24_n2_own_sum_32px_compact"]

    for version, times in (("0.1.0+abc", 1), ("0.1.0+abc+dirty", 2), ("0.1.0", 2)):
        made.clear()
        monkeypatch.setattr("linksim.schemes.semnoma.training.code_version", lambda version=version: version)
        first, second = trained(f"{version}a"), trained(f"{version}b")
        assert made == [6] * times
        # What is taken from the cache is what was made, and counts as much.
        assert (first["files"], first["pairs"]) == (second["files"], second["pairs"])
    monkeypatch.setattr("linksim.schemes.semnoma.training.code_version", lambda: "0.1.0+abc")
    made.clear()
    assert trained("seed", "--seed", "1")["pairs"] == 8
    assert made == [6]
    for path in (tmp_path / "cache" / "embeddings").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert trained("damaged")["files"] == first["files"]
    assert made == [6, 6]


def test_a_run_that_is_there_is_gone_on_with_only_when_told_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--scheme", "semoma", "--rho", "1/12", "--steps", "1")
    assert train(folder, *words) == 0
    assert train(folder, *words) == 2
    assert "--resume goes on with it" in capsys.readouterr().err
    assert train(folder, *words, "--resume") == 0
    assert train(folder, *words, "--resume", "--set", "loss=mse") == 2
    assert "another run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--steps", "1"), "give one of --scheme NAME, --refiner NAME, --prior and --for FILE"),
        (("--scheme", "semoma"), "no budget given"),
        (("--scheme", "semoma", "--steps", "1", "--set", "los=mse"), "did you mean 'loss'"),
        (("--scheme", "semoma", "--steps", "1", "--set", "batch=0"), "greater than or equal to 1"),
        (("--scheme", "semoma", "--steps", "1", "--set", "batch"), "write key=value"),
        (("--scheme", "semoma", "--steps", "1", "--set", "ema=0", "--set", "ema=0.9"), "'ema' is given twice"),
        (("--scheme", "semoma", "--steps", "1", "--budget", "1h"), "two lengths of one training"),
        (("--scheme", "semoma", "--steps", "1", "--out", ""), "--out names the current folder"),
        (("--scheme", "semoma", "--steps", "1", "--warm", "ngf_awgn_1-6_n1_none_sum_32px_paper"),
         "--warm ngf_awgn_1-6_n1_none_sum_32px_paper: a Transceiver cannot start from a NgfNetwork"),
        (("--scheme", "semoma", "--steps", "1", "--recipe", "quick"), "unknown recipe"),
        (("--scheme", "semoma", "--steps", "1", "--set", "cross_layer=9"), "less than or equal to 8"),
        (("--scheme", "bpg-capacity", "--steps", "1"), "there is nothing to train"),
        (("--scheme", "deepjscc-noma", "--steps", "1", "--csi", "all"), "unknown csi"),
        (("--scheme", "deepjscc-noma", "--steps", "1", "--warm", "semoma_awgn_1-3_n2_own_sum_32px_compact"),
         "same kind"),
        (("--scheme", "semoma", "--steps", "1", "--seed", "4294967296"), "--seed"),
        (("--scheme", "semoma", "--steps", "1", "--set", "snr_db=20/0"), "lower end first"),
        (("--scheme", "semoma", "--steps", "1", "--set", "snr_db=0/1e5"), "less than or equal to 200"),
        (("--scheme", "semoma", "--steps", "1", "--set", "learning_rate=inf"), "less than or equal to"),
        (("--scheme", "semoma", "--steps", "1", "--set", "batch=1000000000"), "less than or equal to 4096"),
        (("--scheme", "semoma", "--steps", "1", "--warm", "embedded"), "no orthogonal model to start as"),
        (("--scheme", "semnoma", "--rho", "1/24", "--steps", "1"), "train it first: linksim train --scheme semoma"),
        (("--scheme", "semnoma", "--rho", "1/3", "--users", "3", "--steps", "1"), "cannot start as 3 users in"),
        (("--scheme", "semnoma", "--rho", "1/16", "--steps", "1"), "cannot start as 2 users in separate"),
        (("--scheme", "semnoma", "--steps", "1", "--warm", "embeded"), "did you mean 'embedded'"),
        (("--scheme", "semoma", "--more", "soon"), "--more 'soon': write a time"),
        (("--scheme", "semoma", "--more", "1m"), "no run to go on with"),
        (("--scheme", "semoma", "--more", "1m", "--resume"), "leave --resume out"),
        (("--scheme", "semoma", "--more", "1m", "--steps", "1"), "two lengths of one training"),
        (("--scheme", "semoma", "--steps", "1", "--warm", "nosuch"), "unknown"),
        (("--for", "sweeps/fig06.yaml", "--steps", "1", "--size", "paper"), "leave it out with --for"),
        (("--for", "sweeps/fig08.yaml", "--steps", "1"), "images of 256x256"),
        (("--scheme", "semoma", "--budget", "1s", "--set", "batch=40", "--device", "cud"), "cpu and cuda"),
        (("--scheme", "semoma", "--budget", "0.000001s"), "too short for one step"),
        (("--scheme", "semoma", "--steps", "1", "--channel", ""), "unknown channel ''"),
        (("--scheme", "semoma", "--steps", "1", "--users", ""), "give a whole number"),
        (("--scheme", "semoma", "--budget", ""), "write a time like 40m"),
    ],
)  # fmt: skip
@pytest.mark.whole
def test_what_cannot_be_is_refused_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], hint: str
) -> None:
    assert train(folder, *words) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("linksim: ")]
    assert len(said) == 1
    assert hint in said[0]
    assert weights.cards().keys() == weights._read(weights.SHIPPED).keys()


def test_who_lacks_a_teacher_is_told_to_train_it_on_the_same_images(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draws = np.random.default_rng(0)
    (folder / "my images").mkdir()
    for number in range(24):
        pixels = draws.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "my images" / f"{number}.png")
    own = ["--dataset", f"folder:{folder / 'my images'}", "--image-size", "32"]
    # A teacher at rho, and the source of the embedding at rho/2 a user, which alone is asked for at first.
    for words, found in (["--steps", "1"], 1), (["--dry-run"], 2):
        main(["train", "--scheme", "kd", "--rho", "1/24", *words, *own, "--out", str(folder / "runs")])
        said = capsys.readouterr()
        lines = [line for line in (said.err + said.out).splitlines() if "train --scheme semoma" in line]
        assert len(lines) == found
        assert all(f"--dataset 'folder:{folder / 'my images'}' --image-size 32 --budget 40m" in line for line in lines)


def test_a_folder_without_the_training_batches_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for batch in range(1, 6):
        (folder / "data" / f"data_batch_{batch}.bin").unlink()
    assert train(folder, "--scheme", "semoma", "--steps", "1") == 2
    assert "data_batch_1" in capsys.readouterr().err


@pytest.mark.whole
def test_a_disk_that_is_full_leaves_the_weights_that_were_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(folder, "--scheme", "semoma", "--rho", "1/12", "--steps", "1") == 0
    before = weights.load(transceiver(BASE)).state_dict()

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("linksim.models.weights.write_atomic", full)
    assert train(folder, "--scheme", "semoma", "--rho", "1/12", "--steps", "2", "--seed", "1",
                 "--out", str(folder / "other")) == 2  # fmt: skip
    assert "No space left" in capsys.readouterr().err
    after = weights.load(transceiver(BASE)).state_dict()
    assert all(bool((after[name] == value).all()) for name, value in before.items())


def test_recipes_are_changed_by_words_that_say_what_changed() -> None:
    recipe = make_recipe("paper", {"weights": "10/0/1", "flip": "true", "learning_rate": "2e-4"}, Recipe)
    assert recipe == replace(RECIPES["paper"], weights=(10.0, 0.0, 1.0), flip=True, learning_rate=2e-4)
    assert recipe.words == "paper learning_rate=0.0002 flip=True weights=10/0/1"
    assert make_recipe("fast", {}, Recipe).words == "scratch"
    assert make_recipe("fast", {"fall": "0.4"}, Recipe, warm=True).words == "finetune fall=0.4"
    for changes in ({"loss": "l1"}, {"ema": "1"}, {"learning_rate": "-1"}, {"name": "x"}):
        with pytest.raises(LinksimError):
            make_recipe("fast", changes, Recipe)
    for text, hint in (("1/2", "write 3 values, like 10/1/1"), ("0/0/0", "nothing would be trained")):
        with pytest.raises(LinksimError, match=hint):
            make_recipe("fast", {"weights": text}, Recipe)


def test_models_come_in_the_order_of_who_learns_from_whom(folder: Path) -> None:
    wide = replace(BASE, rho=Fraction(1, 3))
    other, student = replace(BASE, channel="rayleigh"), replace(BASE, method="kd")
    free, apart = replace(BASE, method="semnoma"), replace(BASE, method="deepjscc-noma", csi="snr")
    ordered = waves(map(transceiver, [student, free, other, apart, BASE, wide]))
    assert [[model.spec for model in wave] for wave in ordered] == [[wide], [BASE, other], [apart, free, student]]


def test_a_warm_start_takes_the_nearest_model(folder: Path) -> None:
    assert nearest(replace(BASE, rho=Fraction(1, 3), channel="rayleigh")) == "semoma_awgn_1-3_n2_own_sum_32px_compact"
    assert nearest(replace(BASE, size="paper")) is None
    assert train(folder, "--scheme", "semoma", "--rho", "1/12", "--steps", "1") == 0
    assert nearest(replace(BASE, method="semnoma")) == BASE.name
    assert nearest(replace(BASE, channel="rayleigh")) == BASE.name


@pytest.mark.skipif(not OFFICIAL, reason="LINKSIM_TEST_CIFAR10 is not set")
def test_every_model_of_a_sweep_side_by_side_killed_and_gone_on_with(
    tmp_path: Path, few_held_out: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("scheme: [kd, semnoma]\nchannel: awgn\nrho: 1/24\n")
    words = ["train", "--for", "mine.yaml", "--steps", "1", "--set", "batch=2", "--jobs", "2", "--warm", "auto"]
    words += ["--set", "embed_steps=2", "--data-dir", str(OFFICIAL), "--out", "runs"]
    path = os.pathsep.join(filter(None, [few_held_out, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "LINKSIM_WEIGHTS": str(tmp_path / "weights"), "PYTHONPATH": path, "WHOLE": "1"}

    def start() -> "subprocess.Popen[bytes]":
        # Into a file: nobody reads a pipe while the process runs, and a full one would stop it.
        with (tmp_path / "said").open("wb") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "linksim", *words], cwd=tmp_path, env=environment, stdout=said, stderr=said
            )

    process = start()
    deadline = time.monotonic() + 1000
    while not list(tmp_path.glob("runs/*/checkpoint.pt")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(600) == 130, (tmp_path / "said").read_text()
    assert start().wait(3000) == 0, (tmp_path / "said").read_text()
    cards = json.loads((tmp_path / "weights" / "manifest.json").read_text())
    shipped = began_with(cards[BASE.name])
    assert weights.cards()[shipped]["model"]["method"] == "semoma"
    assert {name: began_with(card) for name, card in cards.items()} == {
        BASE.name: shipped,
        SOURCE: BASE.name,
        **{replace(BASE, method=method).name: SOURCE for method in ("kd", "semnoma")},
    }
    monkeypatch.setenv("LINKSIM_WEIGHTS", environment["LINKSIM_WEIGHTS"])
    monkeypatch.chdir(tmp_path)
    assert main(words) == 0
    assert "every model of this sweep has its weights" in capsys.readouterr().out


def test_a_function_trains_as_the_command_does(folder: Path) -> None:
    asked: dict[str, Any] = {
        "scheme": "semoma",
        "rho": "1/12",
        "steps": 1,
        "set": {"batch": 2},
        "data_dir": folder / "data",
    }
    run = linksim.train_model(folder / "runs", **asked)
    assert run == folder / "runs" / BASE.name
    assert (run / "best.pt").is_file()
    assert weights.cards()[BASE.name]["pairs"] == 2
    with pytest.raises(LinksimError, match="holds a run: --resume"):
        linksim.train_model(folder / "runs", **asked)
    assert linksim.train_model(folder / "runs", **asked, resume=True) == run
    with pytest.raises(LinksimError, match="unknown option '--stepps'"):
        linksim.train_model(folder / "runs", scheme="semoma", stepps=1)


def test_better_weights_stay_unless_told_otherwise(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--scheme", "semoma", "--rho", "1/12", "--steps", "1")
    assert train(folder, *words) == 0
    manifest = folder / "weights" / weights.MANIFEST
    cards = json.loads(manifest.read_text())
    cards[BASE.name]["score"] = 50.0
    manifest.write_text(json.dumps(cards))
    other = (*words, "--seed", "1", "--out", str(folder / "other"))
    assert train(folder, *other) == 0
    assert "are there and stay" in capsys.readouterr().out
    assert weights.cards()[BASE.name]["files"] == cards[BASE.name]["files"]
    assert train(folder, *other, "--resume", "--replace") == 0
    found = weights.cards()[BASE.name]["files"]
    assert found != cards[BASE.name]["files"]
    assert {path.name for path in (folder / "weights").glob("*.safetensors")} == set(found)


@pytest.mark.whole
def test_the_card_keeps_the_start_of_a_run_that_was_cut(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = "semoma_awgn_1-3_n2_own_sum_32px_compact"
    words = ("--scheme", "semnoma", "--rho", "1/24", "--steps", "1")
    assert train(folder, *words, "--warm", first) == 0
    assert f"--warm {first}" in weights.cards()[replace(BASE, method="semnoma").name]["command"]
    assert train(folder, "--scheme", "semoma", "--rho", "1/12", "--steps", "1") == 0
    assert train(folder, *words, "--warm", "auto", "--resume") == 0
    card = weights.cards()[replace(BASE, method="semnoma").name]
    assert (began_with(card), lineage_pairs(card)) == (first, lineage_pairs(weights.cards()[first]) + 2)
    assert card["lineage"][-1]["files"] == list(weights.cards()[first]["files"].values())
    capsys.readouterr()
    assert train(folder, *words, "--warm", BASE.name, "--resume") == 2
    assert f"began from {first}" in capsys.readouterr().err


def test_the_commands_of_a_card_make_weights_again_whose_start_is_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ("--scheme", "semoma", "--rho", "1/12", "--replace")
    assert train(folder, *base, "--steps", "2") == 0
    assert train(folder, *base, "--steps", "1", "--warm", BASE.name, "--out", str(folder / "on")) == 0
    assert train(folder, "--scheme", "kd", "--rho", "1/24", "--steps", "1", "--warm", BASE.name) == 0
    student = replace(BASE, method="kd").name
    made = {name: dict(weights.cards()[name]) for name in (BASE.name, student)}
    assert [run["pairs"] for run in made[student]["lineage"]] == [4, 2]
    capsys.readouterr()
    assert main(["card", BASE.name]) == 0
    assert "no longer there: those before the command" in capsys.readouterr().out
    assert main(["card", student]) == 0
    shown = capsys.readouterr().out
    assert f"from {BASE.name}\n" in shown
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(folder / "again"))
    monkeypatch.chdir(folder)
    commands = [line.partition("linksim ")[2].split() for line in shown.splitlines() if " linksim train " in line]
    assert len(commands) == 3
    for words in commands:
        assert main([*words, "--data-dir", str(folder / "data")]) == 0
    for name, card in made.items():
        assert weights.cards()[name]["files"] == card["files"]
        assert weights.cards()[name]["folder"] == str(folder / "again")


def test_a_superposing_model_is_made_again_by_the_commands_of_its_card(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source(folder)
    student = replace(BASE, method="semnoma").name
    assert train(folder, "--scheme", "semnoma", "--rho", "1/24", "--steps", "2", *EMBED) == 0
    assert train(folder, "--scheme", "semnoma", "--rho", "1/24", "--more", "--steps", "1", "--replace") == 0
    made = dict(weights.cards()[student])
    assert [run["pairs"] for run in weights.history(student, made)] == [2, 10, 2]
    capsys.readouterr()
    assert main(["card", student]) == 0
    shown = capsys.readouterr().out
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(folder / "again"))
    monkeypatch.chdir(folder)
    commands = [line.partition("linksim ")[2].split() for line in shown.splitlines() if " linksim train " in line]
    assert len(commands) == 3
    for words in commands:
        assert main([*words, *({"--replace"} - {*words}), "--data-dir", str(folder / "data")]) == 0
    assert weights.cards()[student]["files"] == made["files"]


def test_a_run_goes_on_after_its_end_from_its_best_weights(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--scheme", "semoma", "--rho", "1/12", "--replace")
    assert train(folder, *words, "--steps", "2") == 0
    first = weights.cards()[BASE.name]
    assert train(folder, *words, "--more", "--steps", "3") == 0
    card = weights.cards()[BASE.name]
    assert (began_with(card), card["pairs"], card["seed"], card["recipe"]) == (BASE.name, 6, 1, "scratch batch=2")
    assert card["lineage"][-1]["files"] == list(first["files"].values())
    assert (folder / "runs" / f"{BASE.name}.1" / "best.pt").exists()
    assert not (folder / "runs" / f"{BASE.name}.1" / "checkpoint.pt").exists()
    # What was set aside and then killed before it began is taken up.
    (folder / "runs" / BASE.name).rename(folder / "runs" / f"{BASE.name}.2")
    assert train(folder, *words, "--more", "--steps", "1", "--set", "learning_rate=1e-4") == 0
    card = weights.cards()[BASE.name]
    assert [run["pairs"] for run in weights.history(BASE.name, card)] == [4, 6, 2]
    assert (card["seed"], card["settings"]["learning_rate"]) == (2, 1e-4)
    checkpoint = folder / "runs" / BASE.name / "history.json"
    checkpoint.unlink()
    assert train(folder, *words, "--more", "1m") == 2
    assert "has not ended: --resume goes on with it" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["history.json", "best.pt"])
def test_a_run_whose_files_are_damaged_is_not_gone_on_with_and_stays_as_it_is(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    words = ("--scheme", "semoma", "--rho", "1/12")
    assert train(folder, *words, "--steps", "1") == 0
    run = folder / "runs" / BASE.name
    if name == "best.pt":
        # It can be read, and one of its tensors is gone.
        content = torch.load(run / name, weights_only=True)
        content["model"].popitem()
        torch.save(content, run / name)
    else:
        (run / name).write_text('{"a":')
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    capsys.readouterr()
    assert train(folder, *words, "--more", "--steps", "1") == 2
    assert str(run / name) in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    assert not set_aside(run)


def test_weights_whose_checkpoint_is_gone_are_not_written_over(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--scheme", "semoma", "--rho", "1/12", "--steps", "1")
    assert train(folder, *words) == 0
    run = folder / "runs" / BASE.name
    (run / "checkpoint.pt").unlink()
    before = (run / "best.pt").read_bytes()
    for more in ((), ("--resume",)):
        assert train(folder, *words, *more) == 2
        assert "holds the weights of a run whose checkpoint.pt is gone: take another --out" in capsys.readouterr().err
    assert (run / "best.pt").read_bytes() == before


def test_a_run_is_resumed_with_the_recipe_and_the_seed_that_it_began_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that went on after the end of another too, whose seed is not the command's default."""
    words = ["train", "--scheme", "semoma", "--rho", "1/12", "--data-dir", str(folder / "data"), "--replace"]
    words += ["--out", str(folder / "runs")]
    assert main([*words, "--steps", "2", "--set", "batch=2", "--recipe", "adamw"]) == 0
    asked = itertools.count()

    def at_the_second() -> None:
        if next(asked):
            raise Stopped

    with monkeypatch.context() as told:
        told.setattr(loop, "stop_if_told", at_the_second)
        assert main([*words, "--more", "--steps", "2"]) == 130
    assert "the same command with --resume in place of --more goes on from there" in capsys.readouterr().err
    assert main([*words, "--resume", "--seed", "0"]) == 2
    assert "is of another run" in capsys.readouterr().err
    assert main([*words, "--resume", "--set", "batch=4"]) == 2
    assert "is of another run" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    card = weights.cards()[BASE.name]
    assert (card["seed"], card["recipe"], card["steps"]) == (1, "adamw batch=2", 2)


def test_shipped_cards_have_the_commands_of_their_whole_lineage() -> None:
    unknown = {}
    for name, card in weights._read(weights.SHIPPED).items():
        *before, last = runs = weights.history(name, card)
        assert last["command"] == card["command"]
        start = "embedded" if card.get("embedded") else began_with(card)
        assert (f" --warm {start}" in card["command"]) == bool(before)
        assert all(run["files"] for run in runs if run["command"])
        if lost := sum(run["pairs"] for run in runs if not run["command"]):
            unknown[name.partition("_")[0]] = lost
    # Second stages, whose first trainings were never committed.
    assert unknown == {"prior": 104_000, "diffbir-mini": 4_000}


def test_the_command_of_a_card_has_its_seed(folder: Path) -> None:
    assert train(folder, "--scheme", "semoma", "--rho", "1/12", "--steps", "1", "--seed", "3") == 0
    assert weights.cards()[BASE.name]["command"].endswith(" --seed 3")


def test_a_gpu_without_room_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("linksim.train.loop.train", full)
    assert train(folder, "--scheme", "semoma", "--rho", "1/12", "--steps", "1") == 2
    assert "no room for 2 groups a step: take a smaller --set batch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--steps", "1", "--warm", "nope"), "unknown model 'nope'"),
        ((), "no budget given"),
        (("--steps", "1", "--data-dir", "nowhere"), "nowhere"),
        (("--steps", "1", "--device", "cuda:99"), "device cuda:99"),
        (("--steps", "1", "--out", "{file}"), "a file is in the way"),
        (("--steps", "1", "--out", "{file}/deeper"), "a file is in the way"),
    ],
)
def test_a_training_that_cannot_begin_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], hint: str
) -> None:
    file = folder / "file"
    file.write_text("mine")
    before = sorted(folder.rglob("*"))
    assert train(folder, "--scheme", "semoma", "--rho", "1/12", *(word.format(file=file) for word in words)) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("linksim: ")]
    assert len(said) == 1
    assert hint in said[0]
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["checkpoint.pt", "best.pt"])
@pytest.mark.parametrize(
    "content", [None, b"", b"garbage", b"PK\x03\x04 torn"], ids=["gone", "empty", "garbage", "torn"]
)
def test_a_damaged_checkpoint_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None
) -> None:
    words = ("--scheme", "semoma", "--rho", "1/12", "--steps", "1", "--resume")
    assert train(folder, *words) == 0
    path = folder / "runs" / BASE.name / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    capsys.readouterr()
    assert train(folder, *words) == 2
    gone = content is None and name == "checkpoint.pt"
    assert (f"{path.parent} holds the weights of a run" if gone else str(path)) in capsys.readouterr().err


def test_what_a_killed_training_left_half_written_goes_at_the_next_start(folder: Path) -> None:
    words = ("--scheme", "semoma", "--rho", "1/12", "--steps", "1", "--resume")
    assert train(folder, *words) == 0
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = [place / f".{name}.{dead.pid}.part" for place, name in (
        (folder / "runs" / BASE.name, "checkpoint.pt"), (folder / "weights", f"{BASE.name}.safetensors"),
    )]  # fmt: skip
    for path in left:
        path.touch()
        os.utime(path, (0, 0))
    assert train(folder, *words) == 0
    assert not any(path.exists() for path in left)


def test_two_processes_do_not_train_in_one_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that goes on after the end of a run moves nothing from under another that is still at it."""
    words = ("--scheme", "semoma", "--rho", "1/12", "--replace", "--steps", "1")
    out = folder / "runs" / BASE.name
    assert train(folder, *words) == 0
    capsys.readouterr()
    with alone_in(out):
        for more in ("--resume", "--more"):
            assert train(folder, *words, more) == 2
            assert capsys.readouterr().err.splitlines()[-1].startswith(f"linksim: {out}: another process works there")
    assert (out / "checkpoint.pt").exists()
    assert not set_aside(out)


def test_a_run_that_another_process_went_on_with_meanwhile_stays_as_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While the images of the first one are prepared, say."""
    words = ("--scheme", "semoma", "--rho", "1/12", "--replace")
    assert train(folder, *words, "--steps", "2") == 0

    def later(*given: Any, **named: Any) -> Any:
        monkeypatch.setattr("linksim.train.run.run_training", run_training)
        assert train(folder, *words, "--more", "--steps", "3") == 0
        return run_training(*given, **named)

    monkeypatch.setattr("linksim.train.run.run_training", later)
    assert train(folder, *words, "--more", "--steps", "4") == 2
    assert "another process went on with the run meanwhile: run the same command again" in capsys.readouterr().err
    out = folder / "runs" / BASE.name
    assert load_checkpoint(out / "checkpoint.pt")["state"]["steps"] == 3
    assert len(set_aside(out)) == 1


def test_a_place_that_cannot_hold_weights_is_named_before_anything_is_trained(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(folder / "file" / "x"))
    assert train(folder, "--scheme", "semoma", "--steps", "1") == 2
    assert "set LINKSIM_WEIGHTS" in capsys.readouterr().err
    assert not (folder / "runs").exists()


def test_an_ablation_is_a_model_of_its_own_with_changes_in_the_recipe(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(folder, "--scheme", "semoma", "--rho", "1/12", "--steps", "1") == 0
    source(folder)
    student = ("--scheme", "kd", "--rho", "1/24", "--steps", "1", *EMBED)
    assert train(folder, *student, "--ablation", "fa", "--set", "batch=2") == 0
    card = weights.cards()["kd_awgn_1-24_n2_own_sum_32px_compact_fa"]
    assert card["settings"]["leave_out"] == "crosskd"
    words = "--steps 1 --recipe finetune --set batch=2 --set embed_steps=3 --warm embedded"
    assert card["command"].endswith(f"--ablation fa {words}")
    assert "kd_awgn_1-24_n2_own_sum_32px_compact" not in weights.cards()
    assert train(folder, *student, "--ablation", "none", "--out", str(folder / "whole"), "--warm", "auto") == 0
    assert began_with(weights.cards()["kd_awgn_1-24_n2_own_sum_32px_compact"]) == SOURCE
    for words in ((*student, "--ablation", "j8"), ("--scheme", "semnoma", "--rho", "1/24", "--ablation", "fa")):
        assert train(folder, *words, "--steps", "1", "--out", str(folder / "none")) == 2
        assert "unknown ablation" in capsys.readouterr().err
    scratch = ("--scheme", "semnoma", "--rho", "1/24", "--steps", "1", "--ablation", "scratch")
    assert train(folder, *scratch, "--warm", BASE.name, "--out", str(folder / "none")) == 2
    assert "scratch starts from nothing" in capsys.readouterr().err
    assert train(folder, *scratch, "--warm", "auto") == 0
    found = weights.cards()["semnoma_awgn_1-24_n2_own_sum_32px_compact_scratch"]
    assert (found["lineage"], lineage_pairs(found)) == ([], found["pairs"])
    assert (
        train(folder, *scratch, "--channel", "rayleigh", "--warm", "semnoma_awgn_1-24_n2_own_sum_32px_compact_scratch")
        == 0
    )
