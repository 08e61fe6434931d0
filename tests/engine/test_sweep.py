"""Sweeps end to end: the same rows however the work was cut up, folders that are never mixed, stopping, envelopes."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch

import linksim
from linksim import LinksimError, Received, Scheme, SideInfo
from linksim.cli import main
from linksim.data import load_dataset
from linksim.engine import journal
from linksim.engine.plan import Point, Unit
from linksim.engine.stats import binomial_interval, clustered_binomial_interval
from linksim.engine.sweep import merge
from linksim.engine.variants import Variant
from linksim.engine.workers import Answer, Pool, run_pool
from linksim.schemes import registry
from tests.conftest import Cli, see

#: A whole unit of sweeps and a short one.
GROUPS = 66
COMMAND = [
    "sweep", "--scheme", "analog-pixels,bpg-ldpc-qam-sic", "--channel", "rayleigh", "--snr", "5:15:5",
    "--groups", str(GROUPS), "--users", "2", "--quiet",
]  # fmt: skip


def rows(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables of a folder without what a clock wrote."""
    return linksim.load(folder).drop(columns="seconds"), linksim.load_images(folder)


def assert_same(folder: Path, other: Path) -> None:
    for mine, theirs in zip(rows(folder), rows(other), strict=True):
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, plugin_path: str) -> Path:
    """The sweep of COMMAND by one worker in one go."""
    folder = tmp_path_factory.mktemp("whole")
    words = [*COMMAND, "--workers", "1", "--out", str(folder / "x")]
    with pytest.MonkeyPatch.context() as patch:
        see(patch, plugin_path)
        # What a process of its own is told.
        patch.setattr(sys, "argv", ["/x/linksim/__main__.py", *words])
        assert main(words) == 0
    return folder / "x"


def test_four_workers_give_the_rows_of_one(whole: Path, here: Cli, tmp_path: Path) -> None:
    done = here(*COMMAND, "--workers", "4", "--out", "four")
    assert done.returncode == 0, done.stderr
    assert_same(whole, tmp_path / "four")


def test_seven_shards_merged_give_the_rows_of_one_run(whole: Path, here: Cli, tmp_path: Path) -> None:
    for index in range(7):
        done = here(*COMMAND, "--workers", "1", "--shard", f"{index}/7", "--out", f"shard{index % 2}")
        assert done.returncode == 0, done.stderr
    here("sweep", "--scheme", "klt", "--snr", "0", "--groups", "1", "--metrics", "psnr", "--out", "other")
    busy = here("merge", "shard0", "shard1", "--out", "other")
    assert "another sweep" in busy.stderr
    assert busy.stderr.rstrip().endswith("take another --out (docs/howto/sweep.md)")
    early = here("merge", "shard0", "--out", "half")
    assert early.returncode == 2
    assert "run the shards that are missing" in early.stderr
    done = here("merge", "shard0", "shard1", "--out", "merged")
    assert done.returncode == 0, done.stderr
    assert_same(whole, tmp_path / "merged")


def test_a_run_that_was_killed_and_started_again_gives_the_rows_of_one(
    whole: Path, cli_env: dict[str, str], here: Cli, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "linksim", *COMMAND, "--workers", "2", "--out", "killed"]
    process = subprocess.Popen(words, cwd=tmp_path, env=cli_env, start_new_session=True)
    journals = tmp_path / "killed" / "journal"
    deadline = time.monotonic() + 1200
    while sum(path.read_bytes().count(b"\n") for path in journals.glob("*-w*.jsonl")) < 3:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "table.csv").exists()
    time.sleep(1)
    kept = sum(path.read_bytes().count(b"\n") for path in journals.glob("*-w*.jsonl"))
    torn = next(path for path in sorted(journals.glob("*-w*.jsonl")) if path.stat().st_size)
    with torn.open("ab") as file:
        file.write(b'0badc0de {"point": "torn')
    done = here(*COMMAND, "--workers", "1", "--out", "killed")
    assert done.returncode == 0, done.stderr
    assert kept >= 3
    assert_same(whole, tmp_path / "killed")


def test_ctrl_c_keeps_the_journal_and_exits_with_130(
    cli_env: dict[str, str], here: Cli, whole: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "linksim", *COMMAND, "--workers", "2", "--out", "stopped"]
    for _ in range(5):
        process = subprocess.Popen(
            words, cwd=tmp_path, env=cli_env, start_new_session=True, stderr=subprocess.PIPE, text=True,
            # A shell starts its background jobs with Ctrl-C ignored, and so would this suite be, and its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        journals = tmp_path / "stopped" / "journal"
        while not any(path.stat().st_size for path in journals.glob("*-w*.jsonl")) and process.poll() is None:
            time.sleep(0.005)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=1200)
        if process.returncode != 0:
            break
        # On a busy machine the sweep can end before the signal comes: once more.
        shutil.rmtree(tmp_path / "stopped")
    assert process.returncode == 130, err
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert here(*COMMAND, "--workers", "1", "--out", "stopped").returncode == 0
    assert_same(whole, tmp_path / "stopped")


def test_the_table_has_the_promised_columns_and_counts(whole: Path) -> None:
    table = linksim.load(whole)
    promised = (
        "scheme stage dataset channel rho users snr_db power csi psnr_db psnr_db_ci95 ssim ssim_ci95 n_images tx_power "
        "channel_uses stop_reason seconds mcs split bler bler_low bler_high psnr_pooled_db n_left_out"
    )
    assert set(promised.split()) <= set(table.columns)
    assert len(table) == 6
    assert (table["n_images"] == 2 * GROUPS).all()
    assert (table["stop_reason"] == "groups").all()
    assert set(table["channel_uses"]) == {486, 512}
    assert table["tx_power"].to_numpy() == pytest.approx(1.0, abs=1e-4)
    assert (table["power_note"] == "").all()
    digital = table[table["scheme"] == "bpg-ldpc-qam-sic"]
    assert (digital["split"] == "0.8/0.2").all()
    assert (digital["n_blocks"] == 2 * GROUPS).all()
    lost = linksim.load_images(whole).query("scheme == 'bpg-ldpc-qam-sic'").groupby(["snr_db", "group"])["lost"].sum()
    for _, row in digital.iterrows():
        interval = clustered_binomial_interval(lost[row["snr_db"]].to_numpy(int), np.full(GROUPS, 2))
        assert (row["bler_low"], row["bler_high"]) == pytest.approx(interval)
    assert (np.diff(digital["psnr_db"]) > 0).all()
    pd.testing.assert_frame_equal(
        pd.read_csv(whole / "table.csv", keep_default_na=True)[["psnr_db"]], table[["psnr_db"]]
    )


def test_the_run_file_tells_conventions_versions_hashes_and_command(whole: Path) -> None:
    run = json.loads((whole / "run.json").read_text())
    assert {"power", "snr", "csi_transmitter", "csi_receiver", "psnr", "pixels"} <= set(run["conventions"])
    assert {"torch", "sionna-no-rt", "av"} <= set(run["packages"])
    decoder = run["identity"]["bpg-ldpc-qam-sic rayleigh 1/6 decoder"]
    assert decoder == "numba layered normalised min-sum, alpha 0.68, 20 iterations"
    assert len(run["data"]["sha256"]) == 64
    assert run["command"].startswith("linksim sweep --scheme")
    assert run["linksim"].startswith(linksim.__version__)
    assert run["finished"]


def test_per_image_rows_average_to_the_table(whole: Path) -> None:
    table, images = linksim.load(whole), linksim.load_images(whole)
    assert len(images) == table["n_images"].sum()
    means = images.groupby(["variant", "snr_db"], sort=False)["psnr_db"].mean().to_numpy()
    np.testing.assert_allclose(means, table["psnr_db"], rtol=1e-12)
    first = images[(images["variant"] == images["variant"].iloc[0]) & (images["snr_db"] == 5)]
    assert sorted(first["image"]) == [*range(GROUPS), *range(256, 256 + GROUPS)]


def test_a_folder_of_another_sweep_is_refused_with_the_difference_named(whole: Path, here: Cli) -> None:
    before = (whole / "table.csv").read_bytes()
    for change, words in (
        (["--seed", "1"], "seed: 0 there, 1 here"),
        (["--snr", "5:15:10"], "snr:"),
        (["--power", "per-ue"], "power: sum there, per-ue here"),
        (["--groups", "128"], f"groups: {GROUPS} there, 128 here"),
    ):
        done = here(*COMMAND, *change, "--out", str(whole))
        assert done.returncode == 2
        assert words in done.stderr
        assert "--force-new" in done.stderr
        assert done.stderr.count("\n") == 1
    assert (whole / "table.csv").read_bytes() == before


def test_a_folder_that_holds_something_else_is_never_written_to(here: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    done = here(*COMMAND, "--out", "mine")
    assert done.returncode == 2
    assert "no run.json" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


class Still(Scheme):
    """Silent; shows grey. Registered for this process alone."""

    name: ClassVar[str] = "still"
    summary: ClassVar[str] = "for tests"

    def transmit(self, images: torch.Tensor, side: SideInfo) -> torch.Tensor:
        return torch.zeros(*images.shape[:2], self.symbols_per_user, dtype=torch.complex64)

    def receive(self, received: torch.Tensor, side: SideInfo) -> Received:
        return Received(torch.full((*side.h_flat.shape, *self.setting.image_shape), 0.5))


class Cheat(Still):
    """Sends twice its power."""

    name: ClassVar[str] = "cheat"

    def transmit(self, images: torch.Tensor, side: SideInfo) -> torch.Tensor:
        return super().transmit(images, side) + 1


class Broken(Still):
    """Raises."""

    name: ClassVar[str] = "broken"

    def receive(self, received: torch.Tensor, side: SideInfo) -> Received:
        raise ZeroDivisionError("a bug of its own")


class Shapeless(Still):
    """Returns too few images."""

    name: ClassVar[str] = "shapeless"

    def receive(self, received: torch.Tensor, side: SideInfo) -> Received:
        return Received(torch.zeros(1, 1, 3, 32, 32))


class Miscounting(Still):
    """Counts more errors than blocks."""

    name: ClassVar[str] = "miscounting"

    def receive(self, received: torch.Tensor, side: SideInfo) -> Received:
        return Received(super().receive(received, side).images, blocks=1, block_errors=5)


class Misclustered(Still):
    """Counts other errors in its clusters than in all."""

    name: ClassVar[str] = "misclustered"

    def receive(self, received: torch.Tensor, side: SideInfo) -> Received:
        images = super().receive(received, side).images
        return Received(images, blocks=2, block_errors=1, block_clusters=((1, 0), (1, 0)))


class Totals(Still):
    """Counts blocks, and says nothing of clusters: both users of every fourth group fail."""

    name: ClassVar[str] = "totals"
    clusters: ClassVar[bool] = False

    def receive(self, received: torch.Tensor, side: SideInfo) -> Received:
        pairs = tuple((2, 2 * (group % 4 == 0)) for group in range(len(side.h)))
        errors = sum(failed for _, failed in pairs)
        images = super().receive(received, side).images
        return Received(images, None, 2 * len(pairs), errors, pairs if self.clusters else None)


class Clustered(Totals):
    """The same with clusters."""

    name: ClassVar[str] = "clustered"
    clusters: ClassVar[bool] = True


class Bytes(Still):
    """Returns 8-bit images."""

    name: ClassVar[str] = "bytes"

    def receive(self, received: torch.Tensor, side: SideInfo) -> Received:
        return Received((super().receive(received, side).images * 255).byte())


class Quitter(Still):
    """Ends the process."""

    name: ClassVar[str] = "quitter"

    def transmit(self, images: torch.Tensor, side: SideInfo) -> torch.Tensor:
        raise SystemExit(3)


class Unready(Still):
    """Cannot say what it depends on."""

    name: ClassVar[str] = "unready"

    def provenance(self) -> dict[str, str]:
        raise ValueError("no weights\nanywhere")


class Echo(Still):
    """Sends ones and shows how strong the received signal was; what it knows of the noise decides nothing."""

    name: ClassVar[str] = "echo"

    def transmit(self, images: torch.Tensor, side: SideInfo) -> torch.Tensor:
        return super().transmit(images, side) + 0.5**0.5

    def receive(self, received: torch.Tensor, side: SideInfo) -> Received:
        level = (received.abs().mean(dim=(1, 2)) / 4)[:, None, None, None, None]
        return Received((super().receive(received, side).images * level).clamp(0, 1))


class Meddler(Echo):
    """The same, and it changes all that it is handed or has handed over."""

    name: ClassVar[str] = "meddler"

    def transmit(self, images: torch.Tensor, side: SideInfo) -> torch.Tensor:
        self.sent = super().transmit(images, side)
        for tensor in (images, side.noise_var, side.snr_db, side.h):
            tensor.zero_()
        return self.sent

    @property
    def split(self) -> tuple[float, ...]:
        if hasattr(self, "sent"):
            self.sent.zero_()
        return super().split

    def receive(self, received: torch.Tensor, side: SideInfo) -> Received:
        assert (side.noise_var > 0).all()
        assert (side.h != 0).all()
        shown = super().receive(received, side)
        for tensor in (received, side.noise_var, side.snr_db, side.h):
            tensor.zero_()
        return shown


class Quiet(Echo):
    """Sends a fourth of its power."""

    name: ClassVar[str] = "quiet"

    def transmit(self, images: torch.Tensor, side: SideInfo) -> torch.Tensor:
        return super().transmit(images, side) / 2


@pytest.fixture
def local() -> Iterator[None]:
    kinds: list[type[Scheme]] = [
        Still,
        Cheat,
        Broken,
        Shapeless,
        Miscounting,
        Misclustered,
        Totals,
        Clustered,
        Bytes,
        Quitter,
        Unready,
    ]
    kinds += [Echo, Meddler, Quiet]
    for kind in kinds:
        linksim.register(kind)
    yield
    for kind in kinds:
        registry.unregister(kind.name)


def quick(tmp_path: Path, **settings: Any) -> pd.DataFrame:
    defaults: dict[str, Any] = {"snr": "0:10:10", "progress": False, "out": tmp_path / "x", "metrics": "psnr"}
    return linksim.sweep(**{**defaults, **settings})


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        ("cheat", "audit"),
        ("broken", "ZeroDivisionError: a bug of its own"),
        ("shapeless", "shape"),
        ("miscounting", "errors at most blocks"),
        ("misclustered", "`block_clusters` that do not add up to 1 errors in 2 blocks"),
        ("bytes", "floats in"),
        ("quitter", "SystemExit"),
        ("unready", "cannot be set up: ValueError: no weights anywhere"),
    ],
)
def test_a_scheme_that_cheats_or_breaks_ends_the_sweep_with_one_line(tmp_path: Path, scheme: str, words: str) -> None:
    with pytest.raises(LinksimError) as caught:
        quick(tmp_path, scheme=scheme)
    assert words in str(caught.value)
    assert scheme in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x" / "table.csv").exists()


@pytest.mark.usefixtures("local")
def test_a_scheme_that_changes_what_it_is_handed_changes_no_number(tmp_path: Path) -> None:
    table = quick(tmp_path, scheme="echo,meddler", channel="rayleigh", groups=8, metrics="psnr,ssim")
    honest, meddling = (table[table["scheme"] == name].reset_index() for name in ("echo", "meddler"))
    for column in ("psnr_db", "ssim", "tx_power"):
        np.testing.assert_array_equal(honest[column], meddling[column])
    assert honest["tx_power"].to_numpy() == pytest.approx(1.0)


@pytest.mark.usefixtures("local")
def test_a_refiner_that_changes_its_images_leaves_those_of_the_first_stage_alone(tmp_path: Path) -> None:
    from linksim.refine import registry as refiners

    class Black(linksim.Refiner):
        """Blackens what it is handed and what it handed back before."""

        name: ClassVar[str] = "black"
        summary: ClassVar[str] = "for tests"

        def refine(self, images: torch.Tensor, *more: Any) -> torch.Tensor:
            return images.zero_()

    linksim.register_refiner(Black)
    try:
        table = quick(tmp_path, scheme="echo,echo+black", groups=8, snr="0")
    finally:
        refiners.unregister("black")
    echo = table[table["stage"] == "first"]["psnr_db"].to_numpy()
    assert len(echo) == 2
    assert echo[0] == echo[1]
    pixels = load_dataset("cifar10-mini").images[[*range(8), *range(256, 264)]] / 255
    black = table[table["stage"] == "black"]["psnr_db"].item()
    assert black == pytest.approx((-10 * np.log10((pixels**2).mean(axis=(1, 2, 3)))).mean(), abs=1e-4)


@pytest.mark.usefixtures("local")
def test_a_bound_that_changes_its_images_is_measured_against_those_that_were_sent(tmp_path: Path) -> None:
    class Blackener(linksim.Reference):
        """Blackens the images in place."""

        name: ClassVar[str] = "blackener"
        summary: ClassVar[str] = "for tests"

        def evaluate(self, images: torch.Tensor, side: SideInfo) -> Received:
            side.noise_var.zero_()
            return Received(images.zero_())

    linksim.register(Blackener)
    try:
        table = quick(tmp_path, scheme="blackener", groups=8, snr="0")
    finally:
        registry.unregister("blackener")
    assert table["psnr_db"].item() < 20


@pytest.mark.usefixtures("local")
def test_a_scheme_that_sends_too_little_power_is_named_in_the_note_the_table_and_the_legend(tmp_path: Path) -> None:
    from linksim.report.figures import curves

    with pytest.warns(UserWarning, match=r"^quiet sends 0\.25 of the power allowed \(-6\.0 dB\)") as caught:
        table = quick(tmp_path, scheme="echo,quiet", groups=8)
    assert len([said for said in caught if "power allowed" in str(said.message)]) == 1
    assert dict(zip(table["variant"], table["power_note"], strict=True)) == {
        "echo": "",
        "quiet": "sends 0.25 of the power allowed (-6.0 dB)",
    }
    (legend,) = curves(table, ["psnr_db"]).legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "echo",
        "quiet [sends 0.25 of the power allowed (-6.0 dB)]",
    ]


@pytest.mark.usefixtures("local")
def test_block_errors_have_the_interval_of_their_clusters_and_of_blocks_where_a_plug_in_tells_none(
    tmp_path: Path,
) -> None:
    table = quick(tmp_path, scheme="totals,clustered", snr="0", groups=160).set_index("scheme")
    assert (table["n_blocks"] == 320).all()
    assert (table["bler"] == 0.25).all()
    found = {name: tuple(table.loc[name, ["bler_low", "bler_high"]]) for name in table.index}
    assert found["totals"] == binomial_interval(80, 320)
    assert found["clustered"] == clustered_binomial_interval([2, 0, 0, 0] * 40, [2] * 160)
    assert np.diff(found["clustered"]) > 1.3 * np.diff(found["totals"])


@pytest.mark.usefixtures("local")
def test_linksims_own_names_are_taken_and_local_schemes_need_one_worker(tmp_path: Path) -> None:
    with pytest.raises(LinksimError, match="a scheme named 'kd' exists"):
        linksim.register(type("Kd", (Still,), {"name": "kd"}))
    with pytest.raises(LinksimError, match="one worker"):
        quick(tmp_path, scheme="still", workers=2)


def test_names_and_parameters_that_would_hide_something_are_refused() -> None:
    class Hiding(linksim.Params):
        variant: str = "v"

    for attributes, words in (({"name": "a:b"}, "named"), ({"name": 5}, "named"), ({"Params": Hiding}, "column")):
        with pytest.raises(LinksimError, match=words):
            linksim.register(type("Odd", (Still,), {"name": "odd", **attributes}))
    with pytest.raises(LinksimError, match="no linksim Scheme"):
        linksim.register(5)  # type: ignore[arg-type]


@pytest.mark.usefixtures("local")
def test_images_that_change_while_a_sweep_runs_end_it(tmp_path: Path) -> None:
    from PIL import Image

    from linksim.engine.config import make_config
    from linksim.engine.context import Context
    from linksim.engine.evaluate import evaluate_unit
    from linksim.engine.sweep import prepare

    for name in range(4):
        Image.fromarray(np.full((32, 32, 3), 60 * name, np.uint8)).save(tmp_path / f"{name}.png")
    prepared = prepare(make_config({"scheme": "still", "dataset": f"folder:{tmp_path}", "snr": "0"}))
    context = Context(prepared.config, prepared.data.fingerprint, "x", "cpu", tmp_path)
    unit = next(prepared.plan.units())
    assert evaluate_unit(context, unit)["stop"] == 2
    Image.fromarray(np.full((32, 32, 3), 7, np.uint8)).save(tmp_path / "1.png")
    with pytest.raises(LinksimError, match="has changed"):
        evaluate_unit(context, unit)
    with pytest.raises(LinksimError, match="has changed"):
        evaluate_unit(Context(prepared.config, prepared.data.fingerprint, "y", "cpu", tmp_path), unit)


@pytest.mark.usefixtures("local")
def test_what_the_users_do_not_divide_is_counted(tmp_path: Path) -> None:
    table = quick(tmp_path, scheme="still", users=3)
    assert (table["n_images"] == 510).all()
    assert (table["n_left_out"] == 2).all()
    assert (table["stop_reason"] == "all groups").all()


@pytest.mark.usefixtures("local")
def test_every_scheme_meets_the_same_images(tmp_path: Path) -> None:
    quick(tmp_path, scheme="still", users=2, groups=10)
    images = linksim.load_images(tmp_path / "x")
    grey = images[images["snr_db"] == 0]["psnr_db"].to_numpy()
    np.testing.assert_array_equal(grey, images[images["snr_db"] == 10]["psnr_db"])


def test_stopping_at_a_width_is_the_same_with_one_worker_and_with_three(here: Cli, tmp_path: Path) -> None:
    until = "--until psnr=0.4 --min-groups 64 --quiet"
    words = ["sweep", "--scheme", "analog-pixels", *COMMAND[3:-5], *until.split()]
    for workers in ("1", "3"):
        done = here(*words, "--workers", workers, "--out", workers)
        assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "1", tmp_path / "3")
    table = linksim.load(tmp_path / "1")
    stopped = table[table["stop_reason"] == "until psnr=0.4"]
    assert len(stopped)
    assert (stopped["psnr_db_ci95"] <= 0.4).all()
    assert (stopped["n_groups"] < 256).any()


def test_an_envelope_is_the_best_mcs_at_each_snr_and_each_mcs_keeps_its_curve(tmp_path: Path) -> None:
    table = quick(tmp_path, scheme="bpg-ldpc-qam-sic:mcs=envelope", snr="2:18:16", groups=64, users=1)
    members = table[table["mcs"] != "envelope"]
    envelope = table[table["mcs"] == "envelope"].set_index("snr_db")
    assert list(envelope.index) == [2.0, 18.0]
    assert members["mcs"].nunique() == 7
    for snr, rows_at in members.groupby("snr_db"):
        assert envelope.loc[snr, "psnr_db"] == rows_at["psnr_db"].max()
        assert envelope.loc[snr, "envelope_of"] == rows_at.loc[rows_at["psnr_db"].idxmax(), "variant"]
    assert envelope.loc[2.0, "envelope_of"] != envelope.loc[18.0, "envelope_of"]
    paired = linksim.compare(tmp_path / "x", "bpg-ldpc-qam-sic:mcs=envelope")
    assert (paired["difference"] <= 0).all()


def test_differences_are_paired_and_far_sharper_than_the_curves(whole: Path) -> None:
    table = linksim.load(whole)
    paired = linksim.compare(whole, "analog-pixels")
    mine = table[table["scheme"] == "bpg-ldpc-qam-sic"]["psnr_db"].to_numpy()
    base = table[table["scheme"] == "analog-pixels"]["psnr_db"].to_numpy()
    np.testing.assert_allclose(paired["difference"], mine - base)
    assert (paired["groups"] == GROUPS).all()
    with pytest.raises(LinksimError, match="did you mean"):
        linksim.compare(whole, "analog-pixel")
    with pytest.raises(LinksimError, match="metric column"):
        linksim.compare(whole, "analog-pixels", "psnr")


def test_lpips_of_both_networks_is_a_column_each(tmp_path: Path, install: Callable[[str], None], local: None) -> None:
    install("vgg16")
    table = quick(tmp_path, scheme="still", snr="0", groups=4, metrics="psnr,lpips,lpips-alex")
    for column in ("lpips_vgg", "lpips_alex"):
        assert 0.1 < table[column].iloc[0] < 1.5
        assert table[f"{column}_ci95"].iloc[0] > 0


def test_fid_is_of_all_images_of_a_point_however_the_work_was_cut_up(
    tmp_path: Path, install: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, local: None, small_units: int
) -> None:
    from linksim.metrics import Fid

    install("inception-fid")
    with pytest.raises(LinksimError, match="take 1000 or more"):
        quick(tmp_path, scheme="still", metrics="fid")
    assert not (tmp_path / "x").exists()
    monkeypatch.setattr(Fid, "MIN_IMAGES", 8)
    # Eigenvalues of 2048 features take seconds each.
    distance = Fid.distance
    monkeypatch.setattr(Fid, "distance", lambda self, *sets: distance(self, *(part[:, :64] for part in sets)))
    with pytest.raises(LinksimError, match="fixed number of images"):
        quick(tmp_path, scheme="still", metrics="fid,psnr", until="psnr=1")
    settings: dict[str, Any] = {"scheme": "bpg-capacity-oma", "users": 1, "groups": small_units + 2, "metrics": "fid"}
    table = quick(tmp_path, **settings)
    assert table["fid"].iloc[0] > table["fid"].iloc[1] > 0
    assert table["fid_note"].str.contains("fewer than 2048").all()
    assert not (tmp_path / "x" / "features").exists()
    pd.testing.assert_series_equal(quick(tmp_path, **settings)["fid"], table["fid"])


class Mover(Still):
    """Does something to the world while it sends; `deed` is told the results folder."""

    name: ClassVar[str] = "mover"
    deed: ClassVar[Callable[[], object]] = staticmethod(lambda: None)

    def transmit(self, images: torch.Tensor, side: SideInfo) -> torch.Tensor:
        if side.draws[1][0] == 0:
            type(self).deed()
        return super().transmit(images, side)


@pytest.fixture
def mover() -> Iterator[type[Mover]]:
    linksim.register(Mover)
    yield Mover
    registry.unregister("mover")


def test_folders_of_the_same_draws_are_compared_in_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--channel", "rayleigh", "--snr", "0,10", "--groups", "4", "--metrics", "psnr", "--quiet")
    schemes = {"both": "bpg-capacity,bpg-ldpc-qam-sic", "one": "bpg-capacity", "other": "bpg-ldpc-qam-sic"}
    for name, scheme in schemes.items():
        assert main(["sweep", "--scheme", scheme, *words, "--out", str(tmp_path / name)]) == 0
    assert main(["sweep", "--scheme", "bpg-capacity", *words, "--seed", "1", "--out", str(tmp_path / "seed")]) == 0
    whole = linksim.compare(tmp_path / "both", "bpg-capacity")
    pd.testing.assert_frame_equal(whole, linksim.compare(tmp_path / "one", "bpg-capacity", others=[tmp_path / "other"]))
    again = linksim.compare(tmp_path / "one", "bpg-capacity", others=[tmp_path / "both"])
    assert set(again["variant"]) == {"bpg-capacity (both)", "bpg-ldpc-qam-sic"}
    assert (again.loc[again["variant"] == "bpg-capacity (both)", "difference"] == 0).all()
    capsys.readouterr()
    # Two folders of one name have curves of two names, and one folder is not two.
    for place in ("a", "b"):
        shutil.copytree(tmp_path / "one", tmp_path / place / "res")
    folders = [tmp_path / "a" / "res", tmp_path / "b" / "res"]
    alike = linksim.compare(tmp_path / "one", "bpg-capacity", others=folders)
    assert set(alike["variant"]) == {"bpg-capacity (res)", f"bpg-capacity ({folders[1]})"}
    with pytest.raises(LinksimError, match="given twice"):
        linksim.compare(tmp_path / "one", "bpg-capacity", others=[tmp_path / "one"])
    (folders[0] / "run.json").unlink()
    with pytest.raises(LinksimError, match=r"has no run\.json"):
        linksim.compare(tmp_path / "one", "bpg-capacity", others=folders)
    assert main(["compare", str(tmp_path / "one"), "--with", str(tmp_path / "seed"), "--baseline", "bpg-capacity"]) == 2
    assert "have no pairs: seed is 0 and 1: sweep again with the same" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:mover sends")
@pytest.mark.parametrize("deed", ["moved", "removed", "journal removed", "journal file removed", "replaced"])
def test_a_results_folder_that_goes_while_the_sweep_runs_ends_it_and_nothing_is_made_anew(
    tmp_path: Path, mover: type[Mover], monkeypatch: pytest.MonkeyPatch, deed: str
) -> None:
    folder = tmp_path / "x"

    def replaced() -> None:
        folder.rename(tmp_path / "elsewhere")
        (folder / "journal").mkdir(parents=True)

    deeds: dict[str, Callable[[], object]] = {
        "moved": lambda: folder.rename(tmp_path / "elsewhere"),
        "removed": lambda: shutil.rmtree(folder),
        "journal removed": lambda: shutil.rmtree(folder / "journal"),
        "journal file removed": lambda: next((folder / "journal").glob("*w000.jsonl")).unlink(),
        "replaced": replaced,
    }
    monkeypatch.setattr(mover, "deed", staticmethod(deeds[deed]))
    with pytest.raises(LinksimError, match="was moved or removed meanwhile") as caught:
        quick(tmp_path, scheme="mover", snr="0", groups=64)
    assert "\n" not in str(caught.value)
    assert not (folder / "table.csv").exists()
    if deed in ("moved", "removed"):
        assert not folder.exists()


@pytest.mark.filterwarnings("ignore:mover sends")
def test_a_plug_in_that_changes_the_folder_does_not_move_the_results(
    tmp_path: Path, mover: type[Mover], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for name in range(4):
        Image.fromarray(np.full((32, 32, 3), 60 * name, np.uint8)).save(tmp_path / "pictures" / f"{name}.png")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mover, "deed", staticmethod(lambda: os.chdir(tmp_path / "other")))
    settings: dict[str, Any] = {"scheme": "mover", "dataset": "folder:pictures", "snr": "0,1", "out": "x"}
    table = quick(tmp_path, **settings)
    assert len(table) == 2
    assert (tmp_path / "x" / "table.csv").is_file()
    assert not any((tmp_path / "other").iterdir())


@pytest.mark.usefixtures("local")
@pytest.mark.filterwarnings("ignore:still sends")
def test_a_folder_whose_run_was_killed_while_it_was_made_is_gone_on_with_and_cleaned(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    (folder / "journal").mkdir(parents=True)
    (folder / "journal" / "finish.lock").touch()
    (folder / ".run.json.123.part").write_text('{"linksim"')
    table = quick(tmp_path, scheme="still", snr="0", groups=4)
    assert len(table) == 1
    assert not list(folder.rglob("*.part"))
    (folder / ".table.csv.9.part").touch()
    quick(tmp_path, scheme="still", snr="0", groups=4)
    assert not list(folder.rglob("*.part"))


@pytest.mark.usefixtures("local")
@pytest.mark.filterwarnings("ignore:still sends")
def test_other_versions_are_named_and_go_on_only_where_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from linksim import version
    from linksim.engine.config import make_config
    from linksim.engine.sweep import merge, prepare, run_sweep

    prepared = prepare(make_config({"scheme": "still", "snr": "0,1,2", "metrics": "psnr", "groups": 4}))
    for index in range(2):
        assert run_sweep(prepared, tmp_path / "a", shard=(index, 3), workers=1) is None
    real = version.package_versions()
    monkeypatch.setattr(version, "package_versions", lambda: {**real, "torch": "99.0", "pandas": "99.0"})
    with pytest.raises(LinksimError, match=r"a was begun with other versions \(torch: .* there, 99\.0 here\): .*--all"):
        run_sweep(prepared, tmp_path / "a", workers=1)
    assert run_sweep(prepared, tmp_path / "b", shard=(2, 3), workers=1) is None
    with pytest.raises(LinksimError, match=r"were made with other versions \(torch"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    # What the folder to merge into holds already counts too.
    with pytest.raises(LinksimError, match=r"were made with other versions \(torch"):
        merge([tmp_path / "b"], tmp_path / "a")
    assert len(merge([tmp_path / "a", tmp_path / "b"], tmp_path / "m", allow_versions=True)) == 3
    table = run_sweep(prepared, tmp_path / "a", workers=1, allow_versions=True)
    assert table is not None
    for folder in ("a", "m"):
        versions = json.loads((tmp_path / folder / "run.json").read_text())["versions"]
        assert {found["torch"] for found in versions} == {real["torch"], "99.0"}
    # Nothing is left to compute, so that nothing is mixed: the tables are written again without a question.
    monkeypatch.setattr(version, "package_versions", lambda: {**real, "torch": "98.0"})
    assert run_sweep(prepared, tmp_path / "a", workers=1) is not None


@pytest.mark.usefixtures("local")
@pytest.mark.filterwarnings("ignore:still sends")
def test_a_table_that_lacks_columns_is_refused_in_one_line(tmp_path: Path) -> None:
    from linksim.cli import main

    quick(tmp_path, scheme="still", snr="0", groups=4)
    path = tmp_path / "x" / "table.parquet"
    table = pd.read_parquet(path)
    for damaged, words in (
        (table.drop(columns=["bler", "power"]), "lacks the columns power, bler"),
        (table.assign(tx_power="much"), "no numbers in tx_power"),
    ):
        damaged.to_parquet(path)
        with pytest.raises(LinksimError, match=words):
            linksim.load(tmp_path / "x")
        assert main(["show", str(tmp_path / "x")]) == main(["plot", str(tmp_path / "x")]) == 2


def test_an_installed_channel_runs_in_sweeps_and_is_listed(here: Cli, tmp_path: Path) -> None:
    listed = here("list", "channels")
    assert re.search(r"suzuki +example plug-in", listed.stdout)
    words = ("--scheme", "analog-pixels", "--channel", "rayleigh,suzuki:spread_db=8", "--snr", "10", "--groups", "48")
    done = here("sweep", *words, "--workers", "2", "--out", "s")
    assert done.returncode == 0, done.stderr
    table = linksim.load(tmp_path / "s").set_index("channel")
    # Deep shadows cost more than what is gained outside them.
    assert table.loc["suzuki:spread_db=8.0", "psnr_db"] < table.loc["rayleigh", "psnr_db"]


@pytest.mark.usefixtures("small_units")
def test_any_executor_evaluates_the_units_with_the_rows_of_one_process(tmp_path: Path) -> None:
    settings = {"scheme": "bpg-capacity", "channel": "rayleigh", "snr": "0:15:5", "groups": 12, "metrics": "psnr"}
    alone = linksim.sweep(tmp_path / "alone", progress=False, **settings)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver")) as pool:
        pooled = linksim.sweep(tmp_path / "pooled", pool=pool, progress=False, **settings)
    pd.testing.assert_frame_equal(alone.drop(columns="seconds"), pooled.drop(columns="seconds"))


def test_units_that_end_well_beside_one_that_fails_are_in_the_journal(tmp_path: Path) -> None:
    class Now(Executor):
        def submit(self, call: Any, /, *args: Any, **more: Any) -> Any:
            done: Future[Answer] = Future()
            done.set_result(call(*args))
            return done

    def call(context: None, unit: Unit) -> Answer:
        record = {
            "point": "p", "start": unit.start, "stop": unit.stop, "stages": {"first": {"mse": [[0.0]]}},
            "allowed_power": None, "tx_power": None, "seconds": {},
        }  # fmt: skip
        return Answer(None, "one failed") if unit.start == 0 else Answer(record)

    point = Point(Variant("klt"), "awgn", Fraction(1, 6), 10.0)
    units = iter([Unit(point, start, start + 1) for start in range(8)])
    with pytest.raises(LinksimError, match="one failed"):
        list(run_pool(Pool(Now(), 8, call), None, units, tmp_path / "units.jsonl", {}))
    assert sorted(record["start"] for record in journal.read_file(tmp_path / "units.jsonl")) == list(range(1, 8))


@pytest.mark.usefixtures("local")
@pytest.mark.filterwarnings("ignore:still sends")
def test_what_ran_on_a_device_is_merged_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Still, "provenance", lambda self: {"decoder": f"that of {self.setting.device}"})
    with monkeypatch.context() as there:
        there.setattr("linksim.engine.sweep.check_device", lambda name: None)
        alone = quick(tmp_path, scheme="still", groups=4, device="cpu:0")
    with pytest.raises(LinksimError, match="cpu and cuda are known"):
        quick(tmp_path, scheme="still", groups=4, device="cpu:0")
    merged = merge([tmp_path / "x"], tmp_path / "merged")
    pd.testing.assert_frame_equal(merged, alone)
    assert linksim.load(tmp_path / "merged").attrs["run"]["device"] == "cpu:0"


def test_a_pool_that_runs_two_units_in_one_process_is_refused(tmp_path: Path) -> None:
    settings = {"scheme": "bpg-ldpc-qam-sic", "channel": "rayleigh", "snr": "5:15:5", "groups": 128, "metrics": "psnr"}
    with ThreadPoolExecutor(4) as pool, pytest.raises(LinksimError, match="two units at once"):
        linksim.sweep(tmp_path / "x", pool=pool, progress=False, **settings)
    with pytest.raises(LinksimError, match="give what has submit"):
        linksim.sweep(tmp_path / "y", pool=3, progress=False, **settings)
