"""The sweep files of the papers' figures, and the notebooks that read their results."""

import json
import re
import sys
import types
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import linksim
from linksim.cli import _parser, main
from linksim.columns import COLUMNS, SUFFIXES
from linksim.engine.config import gallery_of, make_config, read_sweep_file
from linksim.engine.reproduce import COMMANDS, commands_of
from linksim.engine.variants import find
from linksim.errors import LinksimError
from linksim.metrics import own_columns
from linksim.models import weights
from linksim.models.spec import ModelSpec, lineage_pairs
from linksim.schemes.learned import transceiver
from linksim.train.models import behind
from tests.conftest import ROOT, Cli
from tests.refine.ddim.openai_unet import UNet

COMMITTED = sorted(
    path.parent.name
    for path in (ROOT / "results").glob("*/run.json")
    if (ROOT / "sweeps" / f"{path.parent.name}.yaml").is_file() and (path.parent / "table.csv").is_file()
)
FILES = sorted((ROOT / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_sweep_file_is_a_sweep_or_a_row_of_commands(file: Path) -> None:
    values = read_sweep_file(file)
    if COMMANDS not in values:
        assert make_config(values).variants
        return
    for words in commands_of(values, Path("x")):
        parsed = _parser().parse_all(words)
        assert callable(parsed.run)


def test_a_figure_that_is_no_sweep_runs_its_commands(here: Cli, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "name: klt\ncommands: ['sweep --scheme {name} --users 1 --snr 5 --groups 2 --out {out}']\n"
    )
    told = here("reproduce", "own.yaml", "--dry-run")
    assert told.stdout == "linksim sweep --scheme klt --users 1 --snr 5 --groups 2 --out results/own\n"
    assert not (tmp_path / "results").exists()
    done = here("reproduce", "own.yaml", "--set", "name=bpg-capacity", "--out", "there")
    assert done.returncode == 0, done.stderr
    assert list(pd.read_csv(tmp_path / "there" / "table.csv").scheme) == ["bpg-capacity"]
    refused = here("reproduce", "own.yaml", "--only", "klt")
    assert refused.returncode == 2
    (tmp_path / "own.yaml").write_text("commands: ['sweep --scheme {what}']\n")
    assert "--set what=VALUE" in here("reproduce", "own.yaml").stderr


@pytest.mark.parametrize("name", ["fig06", "fig07", "fig08"])
def test_figures_hold_the_bounds_and_steps_of_one_decibel(name: str) -> None:
    config = make_config(read_sweep_file(ROOT / "sweeps" / f"{name}.yaml"))
    digital, learned = {"bpg-ldpc-qam-sic", "bpg-capacity", "bpg-capacity-oma"}, {"kd", "semnoma", "deepjscc-noma"}
    assert digital | learned | {"semoma", "semoma:overhead=twice"} <= {variant.label for variant in config.variants}
    assert config.snr == tuple(range(21))
    assert config.power == "sum"


@pytest.mark.parametrize("name", ["table4", "table5"])
def test_the_tables_have_a_part_for_256x256_images(name: str) -> None:
    small, large = (make_config(read_sweep_file(ROOT / "sweeps" / f"{file}.yaml")) for file in (name, f"{name}-256"))
    assert (large.scheme, large.rho, large.image_size) == (small.scheme, ("1/48",), 256)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Waves in place of faces: smooth enough for 512 bytes."""
    (tmp_path / "faces").mkdir()
    y, x = np.mgrid[0:280, 0:300] / 40
    for number in range(2):
        wave = np.stack([np.sin(x + number + c) * np.cos(y - c) for c in range(3)], axis=-1)
        Image.fromarray((127 + 90 * wave).astype(np.uint8)).save(tmp_path / "faces" / f"{number}.png")
    return tmp_path / "faces"


def test_figure_8_runs_on_a_folder_of_256x256_images(here: Cli, faces: Path, tmp_path: Path) -> None:
    done = here(
        "sweep", str(ROOT / "sweeps" / "fig08.yaml"), "--dataset", "folder:faces", "--scheme", "bpg-ldpc-qam-sic",
        "--snr", "3,6,9", "--channel", "awgn", "--workers", "1", "--out", "fig08", "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = linksim.load(tmp_path / "fig08")
    assert (table["channel_uses"] == 4096).all()
    assert list(table["n_block_errors"]) == [2, 1, 0]
    assert table["psnr_db"].iloc[-1] > 25


def test_figures_10_and_11_run_on_a_folder_of_faces_with_networks_of_their_size(
    here: Cli, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random numbers for weights: the transceiver and the generator for 256x256, a prior of the published structure."""
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "weights"))
    torch.manual_seed(0)
    kd = transceiver(ModelSpec("kd", "compact", "awgn", Fraction(1, 48), image_shape=(3, 256, 256)))
    facts = {"pairs": 0, "lineage": [], "validation": {}, "score": 0.0, "golden_psnr_db": 0.0}
    weights.install(kd, kd.build(), facts)
    cgan = behind("cgan", kd)
    weights.install(cgan, cgan.build(), {**facts, "parts": weights.part_hashes(cgan)})
    prior = UNet(32, (1, 1, 2), 1, (4,), "32c", "legacy", True, False, 6)
    (tmp_path / "priors").mkdir()
    torch.save(prior.state_dict(), tmp_path / "priors" / "ffhq256.pt")
    schemes = "kdd:prior=priors/ffhq256.pt,prior_heads=32c,start=12,kd+cgan,kd,deepjscc-noma,kd+diffbir"
    words = ["--set", f"dataset=folder:{faces}", "--set", "metrics=psnr,lpips-alex", "--set", f"scheme={schemes}"]
    done = here("reproduce", "fig10", *words, "--set", "snr=-5", "--set", "channel=awgn", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "left out  deepjscc-noma_awgn_1-48" in done.stdout
    assert "stable-diffusion-2-1-base" in done.stdout
    table = linksim.load(tmp_path / "results" / "fig10")
    assert list(zip(table["scheme"], table["stage"], strict=True)) == [
        ("kdd", "first"), ("kdd", "ddim"), ("kd+cgan", "first"), ("kd+cgan", "cgan"), ("kd", "first")
    ]  # fmt: skip
    assert table["refine_steps"].tolist()[1] == 3
    grid = here("gallery", str(ROOT / "sweeps" / "fig11.yaml"), *words, "--groups", "0")
    assert grid.returncode == 0, grid.stderr
    assert (tmp_path / "runs" / "gallery" / "gallery_awgn.png").stat().st_size > 10_000


def test_a_dry_run_knows_envelopes_and_weights_that_serve_other_sizes(
    capsys: pytest.CaptureFixture[str], faces: Path
) -> None:
    assert main(["reproduce", str(ROOT / "sweeps" / "digital.yaml"), "--dry-run"]) == 0
    assert "nothing of this figure is to be trained" in capsys.readouterr().out
    # Photographs of 128x192 run on the weights for 256x256, as they do without --dry-run.
    words = ["reproduce", str(ROOT / "sweeps" / "kodak.yaml"), "--set", f"dataset=folder:{faces}"]
    assert main([*words, "--set", "image_size=192x128", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "ready  kd_awgn_1-48" in said
    assert "nothing of this figure is to be trained" in said


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_results_are_those_of_their_sweep_file(name: str) -> None:
    table = linksim.load(ROOT / "results" / name)
    config = make_config(read_sweep_file(ROOT / "sweeps" / f"{name}.yaml"))
    run = table.attrs["run"]
    there = make_config(run["config"])
    assert set(there.scheme) <= set(config.scheme)
    given = {"data_dir": there.data_dir, "scheme": there.scheme}
    if config.dataset.startswith("folder:"):
        # The user names the images.
        given |= {"dataset": there.dataset, "image_size": there.image_size}
    assert there == config.model_copy(update=given)
    assert run["finished"]
    assert set(table["snr_db"]) == set(config.snr)
    if config.dataset == "cifar10":
        assert (table["n_groups"] == (config.groups or 5000)).all()


@pytest.mark.parametrize("name", sorted({*COMMITTED, "starts"} - {"digital"}))
def test_committed_results_are_of_the_shipped_weights(name: str) -> None:
    shipped = json.loads((weights.SHIPPED / weights.MANIFEST).read_text())
    hashes = {digest for card in shipped.values() for digest in card["files"].values()}
    identity = linksim.load(ROOT / "results" / name).attrs["run"]["identity"]
    # Trainings of one's own are another matter: table V's are for the chance in them.
    identity = {key: text for key, text in identity.items() if ":weights=" not in key and ",weights=" not in key}
    used = {digest for key, text in identity.items() if key.endswith(" weights") for digest in text.split()}
    assert used <= hashes
    pairs = {tuple(card["files"].values()): str(lineage_pairs(card)) for card in shipped.values()}
    for key in identity:
        if key.endswith(" trained_pairs"):
            assert pairs[tuple(identity[key.replace("trained_pairs", "weights")].split())] == identity[key]


def test_committed_results_name_no_path_of_a_machine() -> None:
    files = [path for path in (ROOT / "results").rglob("*") if path.suffix in (".json", ".csv", ".md", ".yaml")]
    found = [path for path in files if re.search(r"[\s\":]/[a-z]+/", path.read_text(encoding="utf-8"))]
    # Pictures in notebooks hold any letters: what is printed is what tells.
    for path in (ROOT / "results").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        outputs = (out for cell in cells for out in cell.get("outputs", []))
        found += [path for out in outputs if out.get("name") == "stderr" or "site-packages" in str(out.get("text"))]
    assert files
    assert not found
    for name in COMMITTED:
        assert not linksim.load(ROOT / "results" / name)["dataset"].str.contains(":/").any()


@pytest.mark.parametrize("name", COMMITTED)
def test_no_column_of_a_table_is_free_for_a_parameter(name: str) -> None:
    table = linksim.load(ROOT / "results" / name)
    parameters = {key for text in table["scheme"].unique() for key in find(text).Params.model_fields}
    columns = {column for column in table if not column.endswith(SUFFIXES)}
    assert columns - parameters <= COLUMNS | own_columns() | {"csi", "split"}


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "results").glob("*.ipynb")))
def test_a_notebook_runs_from_top_to_bottom(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells, in this process: a kernel of its own would import everything anew."""
    nbformat, matplotlib = pytest.importorskip("nbformat"), pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.chdir(ROOT / "results")
    cells = nbformat.read(f"{name}.ipynb", as_version=4).cells
    space: dict[str, object] = {"__name__": "__notebook__"}
    monkeypatch.setitem(sys.modules, "__notebook__", types.ModuleType("__notebook__"))
    for cell in cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, name, "exec"), space)


def test_a_figure_of_example_images_is_drawn_by_its_name(here: Cli, tmp_path: Path) -> None:
    words = ["reproduce", "fig12-cifar10", "--set", "scheme=klt,bpg-capacity", "--out", "there"]
    assert here(*words, "--only", "klt").returncode == 2
    assert here(*words, "--set", "groups=4").returncode == 2
    assert not (tmp_path / "there").exists()
    done = here(*words, "--quiet")
    assert done.returncode == 0, done.stderr
    drawn = pd.read_csv(tmp_path / "there" / "gallery.csv")
    assert list(drawn.shown.unique()) == ["original", "klt", "bpg-capacity"]
    assert list(drawn.image.unique()) == [f"group {group}, user {user}" for group in range(3) for user in range(2)]
    assert here(*words, "--set", "gallery=5").returncode == 0
    assert set(pd.read_csv(tmp_path / "there" / "gallery.csv").image) == {"group 5, user 0", "group 5, user 1"}


@pytest.mark.parametrize("groups", ["", "x", "[0, x]", "{a: 1}", "[]", "-1"])
def test_a_gallery_of_no_groups_is_refused(tmp_path: Path, groups: str) -> None:
    (tmp_path / "own.yaml").write_text(f"scheme: klt\nsnr: 0\ngallery: {groups}\n")
    with pytest.raises(LinksimError, match="give image groups, like 0,1,2"):
        gallery_of(tmp_path / "own.yaml")
