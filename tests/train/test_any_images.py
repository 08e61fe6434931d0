"""Training on a folder of 256x256 images, from end to end: figure 8's models on one process and on two."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import linksim
from linksim.cli import main
from linksim.data.datasets import embedded_images
from linksim.models import weights
from tests.small import shrink

NAME = "{}_awgn_{}_n2_own_sum_256px_compact"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dozen images of 256x256, and one for weights, runs and the cache."""
    found = tmp_path_factory.mktemp("faces")
    (found / "faces").mkdir()
    tiles = embedded_images(64 * 12, (3, 256, 256))
    for number, image in enumerate(tiles):
        Image.fromarray(image.transpose(1, 2, 0)).save(found / "faces" / f"{number:02d}.png")
    (found / "faces" / "CITATION.txt").write_text("A. Body: Faces, for research")
    return found


@pytest.fixture(autouse=True)
def own(place: Path, monkeypatch: pytest.MonkeyPatch, small_networks: None) -> None:
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(place / "weights"))
    monkeypatch.setenv("LINKSIM_CACHE", str(place / "cache"))
    monkeypatch.chdir(place)


def words(place: Path, scheme: str, rho: str, *more: str, steps: int = 1, out: str = "runs") -> list[str]:
    crop = [] if any(word.startswith("crop=") for word in more) else ["--set", "crop=64"]
    return [
        "train", "--scheme", scheme, "--rho", rho, "--dataset", f"folder:{place / 'faces'}", "--image-size", "256",
        "--steps", str(steps), "--set", "batch=2", *crop, "--out", str(place / out), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """Weights of figure 8's SemOMA, SemNOMA and KD-SemNOMA over AWGN, after a step or two."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch.setattr)
        patch.setenv("LINKSIM_WEIGHTS", str(place / "weights"))
        patch.setenv("LINKSIM_CACHE", str(place / "cache"))
        embed = ("--set", "embed_steps=2")
        assert main(words(place, "semoma", "1/48")) == 0
        assert main(words(place, "semoma", "1/24", "--warm", "auto")) == 0
        assert main(words(place, "semnoma", "1/48", *embed)) == 0
        assert main(words(place, "kd", "1/48", *embed, steps=2)) == 0
    return place


def test_models_of_256x256_train_go_on_verify_and_stand_in_figure_8(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = NAME.format("kd", "1-48")
    assert main(["verify", name]) == 0
    assert main(["card", name]) == 0
    said = capsys.readouterr().out
    assert "A. Body: Faces, for research" in said
    assert "folder:faces, 8 images of 256x256; validation on 4 of the other 4" in said
    assert "--dataset folder:faces --image-size 256 --steps 2 --recipe finetune --set batch=2 --set crop=64" in said
    assert str(trained) not in said.partition("where")[2].partition("\n")[2]
    # The run goes on after its end, on the same images alone.
    more = words(trained, "semnoma", "1/48", "--more", "--replace", steps=1)
    assert main(more) == 0
    assert weights.cards()[NAME.format("semnoma", "1-48")]["pairs"] == 2
    settings = {"dataset": f"folder:{trained / 'faces'}", "groups": 2, "snr": "10", "channel": "awgn"}
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    file = Path(__file__).parents[2] / "sweeps" / "fig08.yaml"
    asked = ["reproduce", str(file), *sets, "--out", str(trained / "fig08"), "--quiet", "--workers", "1"]
    assert main([*asked, "--only", "kd,semnoma,semoma,bpg-ldpc-qam-sic"]) == 0
    table = linksim.load(trained / "fig08")
    assert set(table["scheme"]) == {"kd", "semnoma", "semoma", "bpg-ldpc-qam-sic"}
    assert table.query("scheme == 'kd'")["trained_note"].fillna("").item() == ""
    # Photographs of another size, by the same weights.
    wide = linksim.sweep(
        trained / "wide", scheme="kd", rho="1/48", snr=10, groups=1, dataset=f"folder:{trained / 'faces'}",
        image_size="192x128", workers=1, progress=False,
    )  # fmt: skip
    assert wide["trained_note"].item() == "trained on images of 256"
    assert wide["channel_uses"].item() == 192 * 128 * 3 // 48


def test_a_run_on_other_images_is_not_gone_on_with(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = trained / "others"
    other.mkdir()
    for path in sorted((trained / "faces").iterdir())[:9]:
        (other / path.name).write_bytes(path.read_bytes())
    asked = words(trained, "kd", "1/48", "--resume", "--set", "embed_steps=2", steps=3)
    asked[asked.index(f"folder:{trained / 'faces'}")] = f"folder:{other}"
    assert main(asked) == 2
    assert "or of other images: take another --out" in capsys.readouterr().err


def test_weights_of_other_images_stay_and_a_row_says_what_its_weights_know(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "weights"))
    asked = ["train", "--scheme", "semoma", "--image-size", "32", "--set", "batch=2", "--out", str(tmp_path / "runs")]
    faces = ["--dataset", f"folder:{trained / 'faces'}"]
    # CIFAR-10's weights come along under this name: they give way, and `weights=shipped` still finds them.
    assert main([*asked, *faces, "--steps", "1"]) == 0
    assert (tmp_path / "weights" / "manifest.json").exists()
    table = linksim.sweep(tmp_path / "x", scheme="semoma", groups=2, snr=10, workers=1, progress=False)
    assert table["trained_note"].item() == "trained on folder:faces"
    (tmp_path / "s.yaml").write_text(f"scheme: semoma\ndataset: folder:{trained / 'faces'}\nimage_size: 32\n")
    assert main(["train", "--for", str(tmp_path / "s.yaml"), *faces, "--steps", "1"]) == 0
    other = tmp_path / "others"
    other.mkdir()
    for path in sorted((trained / "faces").iterdir())[:9]:
        (other / path.name).write_bytes(path.read_bytes())
    assert main(["train", "--for", str(tmp_path / "s.yaml"), "--dataset", f"folder:{other}", "--steps", "1"]) == 2
    assert "has weights that were trained on other images: --replace trains it" in capsys.readouterr().err
    again = [f"folder:{other}" if word == faces[1] else word for word in [*asked, *faces]]
    again[again.index(str(tmp_path / "runs"))] = str(tmp_path / "more")
    assert main([*again, "--steps", "1"]) == 0
    assert "or of other images, are there and stay" in capsys.readouterr().out
    # Of shipped weights, what a sweep needs is trained on the images that are asked for.
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "empty"))
    assert main(["train", "--for", str(tmp_path / "s.yaml"), *faces, "--steps", "1", "--dry-run"]) == 0
    assert "needed  semoma" in capsys.readouterr().out


def test_a_refused_more_leaves_the_run_as_it_is(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained / "runs" / NAME.format("kd", "1-48")
    before = sorted(path.name for path in run.iterdir())
    assert main(words(trained, "kd", "1/48", "--more", "--set", "batch=zz")) == 2
    other = words(trained, "kd", "1/48", "--more")
    other[other.index(f"folder:{trained / 'faces'}")] = f"folder:{trained / 'others'}"
    assert main(other) == 2
    assert "is of other images: start from its weights in another --out" in capsys.readouterr().err
    assert sorted(path.name for path in run.iterdir()) == before
    assert not run.with_name(run.name + ".1").exists()


def test_two_processes_have_the_losses_of_one_with_the_batch_of_both(trained: Path, few_held_out: str) -> None:
    losses = []
    for devices in ("1", "2"):
        asked = words(trained, "kd", "1/48", "--set", "embed_steps=2", "--devices", devices, steps=2, out=devices)
        if devices == "1":
            assert main(asked) == 0
        else:
            run = [sys.executable, "-m", "linksim", *asked]
            path = os.pathsep.join(filter(None, [few_held_out, os.environ.get("PYTHONPATH")]))
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
            ran = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, ran.stderr
            assert ran.stderr.count("getting ready") == 1
        rows = list(csv.DictReader((trained / devices / NAME.format("kd", "1-48") / "train.csv").open()))
        losses.append([[float(value) for value in row.values()] for row in rows])
    # Sums have another order, in bfloat16 where the CPU computes in it; FA, of few features, shows most of that.
    np.testing.assert_allclose(losses[1], losses[0], rtol=5e-3)
    totals = [[row[-1] for row in rows] for rows in losses]
    np.testing.assert_allclose(totals[1], totals[0], rtol=5e-4)


def test_accumulation_has_the_losses_and_gradients_of_the_whole_batch(trained: Path) -> None:
    from dataclasses import replace
    from fractions import Fraction

    from linksim.data.training import training_set_of
    from linksim.models.spec import ModelSpec
    from linksim.models.task import Share
    from linksim.schemes.learned import transceiver
    from linksim.schemes.semnoma.recipe import RECIPES

    pixels = np.random.default_rng(0).integers(0, 256, (24, 3, 64, 64), np.uint8)
    spec = ModelSpec("semnoma", "compact", "rayleigh", Fraction(1, 12), image_shape=(3, 64, 64))
    recipe = replace(RECIPES["finetune"], batch=6, crop=32)
    task = transceiver(spec).task(recipe, training_set_of(pixels), 0, "cpu", None)
    torch.manual_seed(0)
    model = task.network()
    gradients, losses = [], []
    for parts in (1, 3):
        model.zero_grad()
        found = []
        for index in range(parts):
            torch.manual_seed(5)
            task.share = Share(index, parts)
            found.append(task.losses(model)["total"] / parts)
            found[-1].backward()
        losses.append(sum(float(loss.detach()) for loss in found))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        (("--set", "crop=72"), "multiples of 16, not 72x72"),
        (("--set", "crop=512"), "the images are 256x256: take a smaller one"),
        (("--set", "accumulate=3"), "a batch of 2 has no such equal parts"),
        (("--devices", "3"), "does not divide among 3 processes"),
        (("--devices", "0"), "give a whole number"),
        (("--image-size", "248"), "multiples of 16, not 248x248"),
        (("--warm", "semoma_awgn_1-6_n2_own_sum_32px_compact"), "4 stages cannot start from one of 2"),
        (("--validation", "cifar10"), "results are measured on these"),
    ],
)
@pytest.mark.whole
def test_what_cannot_be_is_refused_before_any_work(
    trained: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], hint: str
) -> None:
    asked = words(trained, "semoma", "1/24", *more, out="refused")
    if "--image-size" in more:
        del asked[asked.index("--image-size") : asked.index("--image-size") + 2]
    assert main(asked) == 2
    assert hint in capsys.readouterr().err
    assert not list((trained / "refused").glob("*/*.pt"))


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        (("--prior", "small", "--image-size", "36"), "multiples of 8, not 36x36"),
        (("--prior", "small", "--image-size", "64", "--set", "crop=30"), "multiples of 8, not 30x30"),
        (("--refiner", "cgan", "--scheme", "semoma", "--image-size", "44"), "multiples of 8, not 44x44"),
        (("--refiner", "cgan", "--scheme", "semoma", "--image-size", "16"), "24x24 and more"),
        (("--refiner", "diffbir-mini", "--scheme", "semoma", "--image-size", "64"), "is for images of 32x32"),
    ],
)
def test_images_that_a_second_stage_does_not_take_are_refused_before_any_work(
    trained: Path, capsys: pytest.CaptureFixture[str], asked: tuple[str, ...], hint: str
) -> None:
    folder = ["--dataset", f"folder:{trained / 'faces'}", "--steps", "1", "--out", str(trained / "refused")]
    assert main(["train", *asked, *folder]) == 2
    assert hint in capsys.readouterr().err
