"""The sweep files of the papers' figures, and the notebook that reads their results."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import linksim
from linksim.engine.config import make_config, read_sweep_file
from tests.conftest import ROOT, Cli

FILES = sorted((ROOT / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_sweep_file_is_a_sweep(file: Path) -> None:
    assert make_config(read_sweep_file(file)).variants


@pytest.mark.parametrize("name", ["fig06", "fig07", "fig08"])
def test_figures_hold_the_bounds_and_steps_of_one_decibel(name: str) -> None:
    config = make_config(read_sweep_file(ROOT / "sweeps" / f"{name}.yaml"))
    digital, learned = {"bpg-ldpc-qam-sic", "bpg-capacity", "bpg-capacity-oma"}, {"kd", "semnoma", "deepjscc-noma"}
    assert digital | learned | {"semoma", "semoma:overhead=twice"} <= {variant.label for variant in config.variants}
    assert config.snr == tuple(range(21))
    assert config.power == "sum"


def test_figure_8_runs_on_a_folder_of_256x256_images(cli: Cli, tmp_path: Path) -> None:
    """Waves in place of faces: smooth enough for 512 bytes."""
    (tmp_path / "faces").mkdir()
    y, x = np.mgrid[0:280, 0:300] / 40
    for number in range(2):
        wave = np.stack([np.sin(x + number + c) * np.cos(y - c) for c in range(3)], axis=-1)
        Image.fromarray((127 + 90 * wave).astype(np.uint8)).save(tmp_path / "faces" / f"{number}.png")
    done = cli(
        "sweep", str(ROOT / "sweeps" / "fig08.yaml"), "--dataset", "folder:faces", "--scheme", "bpg-ldpc-qam-sic",
        "--snr", "3,6,9", "--channel", "awgn", "--workers", "1", "--out", "fig08", "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = linksim.load(tmp_path / "fig08")
    assert (table["channel_uses"] == 4096).all()
    assert list(table["n_block_errors"]) == [2, 1, 0]
    assert table["psnr_db"].iloc[-1] > 25


@pytest.mark.parametrize("name", ["fig06", "fig07", "digital"])
def test_committed_results_are_those_of_their_sweep_file(name: str) -> None:
    table = linksim.load(ROOT / "results" / name)
    config = make_config(read_sweep_file(ROOT / "sweeps" / f"{name}.yaml"))
    run = table.attrs["run"]
    there = make_config(run["config"])
    assert set(there.scheme) <= set(config.scheme)
    assert there == config.model_copy(update={"data_dir": there.data_dir, "scheme": there.scheme})
    assert run["finished"]
    assert set(table["snr_db"]) == set(config.snr)
    if config.dataset == "cifar10":
        assert (table["n_images"] == 10_000).all()


def test_the_notebook_runs_from_top_to_bottom() -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(ROOT / "results" / "compare.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT / "results")}})
    client.execute()
