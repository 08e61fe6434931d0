"""The command line: every kind of bad input gets one line with the way out, exit code 2, and nothing is written."""

import dataclasses
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import linksim
from linksim import assets
from linksim.cli import _join_negative, _parser, main
from linksim.cli.options import EXAMPLES
from linksim.cli.training import RECIPE_KEYS
from linksim.schemes.semnoma.recipe import Recipe
from tests.conftest import Cli

SWEEP = ["sweep", "--scheme", "bpg-ldpc-qam-sic", "--snr", "10", "--groups", "4", "--quiet"]
#: What takes no time: the example plug-in.
QUICK = ["sweep", "--scheme", "analog-pixels", "--snr", "10", "--groups", "4"]


def sweep_of(scheme: str) -> list[str]:
    return ["sweep", "--scheme", scheme, *SWEEP[3:]]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused command prints."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("linksim: ")
    assert err.count("\n") == 1
    return err


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        (["sweep"], "linksim list schemes"),
        (["sweep", "--scheme", "kdd-semnomaa"], "known:"),
        (["sweep", "--scheme", "bpg-ldpc-qam"], "did you mean 'bpg-ldpc-qam-sic'"),
        ([*SWEEP, "--channel", "rayleih"], "did you mean 'rayleigh'"),
        ([*SWEEP, "--rho", "1/7"], "not a whole number: take 73/512 or 439/3072"),
        ([*SWEEP, "--rho", "one"], "1/6 or 0.25"),
        ([*SWEEP, "--rho", "1/192"], "larger rho"),
        ([*SWEEP, "--users", "9"], "users"),
        ([*SWEEP, "--users", "two"], "users"),
        ([*SWEEP, "--snr", "20:0:2"], "start:stop:step"),
        ([*SWEEP, "--snr", ""], "start:stop:step"),
        ([*SWEEP, "--groups", "257"], "256 groups"),
        ([*SWEEP, "--metrics", "psnr,lpips"], "linksim assets get vgg16"),
        ([*SWEEP, "--metrics", "fid"], "linksim assets get inception-fid"),
        ([*SWEEP, "--dataset", "cifar11"], "did you mean 'cifar10'"),
        ([*SWEEP, "--dataset", "cifar10"], "linksim assets get cifar10"),
        ([*SWEEP, "--dataset", "cifar10", "--data-dir", "nowhere"], "nowhere"),
        ([*SWEEP, "--dataset", "folder:nowhere"], "nowhere"),
        ([*SWEEP, "--power", "both"], "power"),
        ([*SWEEP, "--split", "0.5"], "2 positive shares"),
        ([*SWEEP, "--mcs", "qpsk-2"], "rates from"),
        ([*SWEEP, "--csi", "own"], "none of the schemes"),
        ([*SWEEP, "--workers", "0"], "1 to 999999999"),
        ([*SWEEP, "--workers", "²"], "1 to 999999999"),
        ([*SWEEP, "--shard", "²/³"], "0/7"),
        ([*SWEEP, "--rho", "-1/6"], "positive"),
        ([*SWEEP, "--rho", "1e999999999"], "no ratio"),
        ([*SWEEP, "--snr", "-400"], "beyond 200 dB"),
        ([*SWEEP, "--mcs", "qpsk-1/5", "--rho", "1/3072"], "no 5G LDPC code"),
        ([*SWEEP, "--split", "1e308/1e308"], "positive shares"),
        ([*SWEEP, "--out", ""], "current folder"),
        ([*SWEEP, "--dataset", "folder:~nosuchuser/x"], "no such user"),
        ([*SWEEP, "--shard", "7/7"], "0/7"),
        ([*SWEEP, "--device", "tpu"], "cpu and cuda"),
        ([*SWEEP, "--device", "cuda:99"], "device cuda:99: there"),
        ([*SWEEP, "--set", "seed"], "key=value"),
        ([*SWEEP, "--set", "sede=1"], "did you mean 'seed'"),
        ([*SWEEP, "--set", "seed=1", "--set", "seed=2"], "'seed' is given twice"),
        ([*SWEEP, "--seed", "1", "--set", "seed=2"], "--set seed and --seed ask for the same"),
        ([*SWEEP, "--grops", "3"], "did you mean '--groups'"),
        (["sweep", "nowhere.yaml"], "No such file"),
        (["swep"], "sweep"),
        (["list", "scheme"], "did you mean 'schemes'"),
        (["show", "nowhere"], "no such results folder"),
        (["plot", "nowhere"], "no such results folder"),
        (["compare", "nowhere", "--baseline", "x"], "no such results folder"),
        (["merge", "nowhere"], "no sweep"),
        (["assets", "get", "vgg19"], "did you mean 'vgg16'"),
        (["assets", "get", "vgg16", "--form", "x"], "did you mean '--from'"),
        (["bench", "serve", "--client", "2"], "did you mean '--clients'"),
        (["assets", "get", "cifar10", "--from", __file__], "test_cli.py (file could not be opened"),
        (["assets", "get", "vgg16", "--from", "nowhere.pth"], "nowhere.pth"),
    ],
)
def test_bad_input_gets_one_line_with_the_way_out(
    words: list[str], way_out: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert way_out in refused(words, capsys)
    assert list(tmp_path.iterdir()) == []


TRAIN = ["train", "--scheme", "semoma", "--steps", "1"]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["sweep", "--bars"],
        *([*SWEEP, f"--{option}"] for option in (
            "scheme", "channel", "rho", "users", "snr", "groups", "metrics", "dataset", "power", "split", "mcs", "csi",
            "until", "shard", "workers", "device", "seed", "set", "max-groups", "dataset=folder:", "data-dir", "out",
        )),
        *([*TRAIN, f"--{option}"] for option in (
            "channel", "rho", "size", "users", "csi", "power", "ablation", "budget", "steps", "recipe", "set", "warm",
            "seed", "more", "refiner", "prior", "for", "jobs", "device", "data-dir", "set=batch=", "set=loss=",
        )),
        ["tune", "--scheme", "kd+ddim", "--starts"],
        ["reproduce"],
        ["card"],
        ["verify"],
        ["list"],
        ["show"],
        ["plot"],
        ["assets", "get"],
    ],
    ids=lambda words: " ".join(words[-2:])[:40],
)  # fmt: skip
def test_a_value_of_a_megabyte_gets_a_short_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 2**20
    joined = [*words[:-1], words[-1] + long] if words and words[-1].endswith((":", "=")) else [*words, long]
    assert main(joined) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("linksim: ")]
    assert len(said) == 1
    assert len(said[0]) < 2000


def test_folders_that_cannot_be_used_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in refused([*SWEEP, "--dataset", "folder:empty"], capsys)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"\x89PNG no more")
    assert "a.png" in refused([*SWEEP, "--dataset", "folder:broken"], capsys)
    (tmp_path / "small").mkdir()
    for name in "ab":
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "small" / f"{name}.png")
    assert "64" in refused([*SWEEP, "--dataset", "folder:small", "--image-size", "64"], capsys)
    assert "1 groups" in refused([*SWEEP, "--dataset", "folder:small"], capsys)


def test_truncated_cifar_files_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "cifar").mkdir()
    (tmp_path / "cifar" / "test_batch.bin").write_bytes(bytes(3073 * 100))
    assert "test_batch.bin" in refused([*SWEEP, "--dataset", "cifar10", "--data-dir", "cifar"], capsys)


def test_a_place_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in refused([*SWEEP, "--out", "file/x"], capsys)
    assert "--out" in refused([*SWEEP, "--out", "/proc/x"], capsys)


def test_a_disk_that_fills_up_loses_nothing_and_the_same_command_goes_on(
    cli_env: dict[str, str], tmp_path: Path
) -> None:
    """A limit on the size of files stands for the full disk: the journal outgrows it."""
    words = [*sweep_of("semoma"), "--groups", "16", "--snr", "0:20:5", "--workers", "1", "--out", "x"]
    command = [sys.executable, "-m", "linksim", *words]

    def little_room() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    environment = {**cli_env, "PYTHONDONTWRITEBYTECODE": "1", "LINKSIM_CACHE": str(tmp_path / "cache")}
    full = subprocess.run(
        command, cwd=tmp_path, env=environment, preexec_fn=little_room, capture_output=True, text=True, timeout=1200
    )
    assert full.returncode == 2, full.stderr
    lines = [line for line in full.stderr.splitlines() if line.startswith("linksim: ")]
    assert len(lines) == 1
    assert "the same command" in lines[0] or "room" in lines[0]
    assert "Traceback" not in full.stderr
    assert not (tmp_path / "x" / "table.csv").exists()
    assert main(words) == 0
    assert len(linksim.load(tmp_path / "x")) == 5


def test_force_new_sets_the_old_folder_aside_and_loses_nothing(tmp_path: Path) -> None:
    base = [*sweep_of("bpg-capacity-oma"), "--workers", "1", "--out", "x"]
    assert main(base) == 0
    before = (tmp_path / "x" / "table.csv").read_bytes()
    assert main([*base, "--seed", "1"]) == 2
    assert main([*base, "--seed", "1", "--force-new"]) == 0
    assert (tmp_path / "x.old-1" / "table.csv").read_bytes() == before
    assert (linksim.load("x")["seed"] == 1).all()


def test_a_sweep_goes_on_when_nobody_can_see_its_bar(cli_env: dict[str, str], tmp_path: Path) -> None:
    words = [sys.executable, "-m", "linksim", *QUICK, "--metrics", "psnr", "--workers", "1"]
    env = {name: value for name, value in cli_env.items() if name != "PYTHONUNBUFFERED"}
    for number, redirect in enumerate(("2>&-", "2>/dev/full")):
        line = f"{' '.join(words)} --out x{number} {redirect}"
        done = subprocess.run(line, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, redirect
        assert (tmp_path / f"x{number}" / "table.csv").exists()


def test_a_note_that_nobody_can_see_does_not_decide_the_exit_code(cli_env: dict[str, str], tmp_path: Path) -> None:
    # Whatever says something of its own, a font cache that is built: it is in the buffer when the command ends.
    code = "import sys; sys.stderr.write('a note'); from linksim.cli import main; sys.exit(main(['list', 'metrics']))"
    line = f'{sys.executable} -c "{code}" 2>/dev/full'
    env = {name: value for name, value in cli_env.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(line, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0
    assert "psnr" in done.stdout


def test_tables_that_are_not_linksims_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import pandas as pd

    (tmp_path / "x").mkdir()
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "x" / "table.parquet")
    assert "no table of linksim" in refused(["show", "x"], capsys)
    (tmp_path / "y" / "table.parquet").mkdir(parents=True)
    assert "not a table" in refused(["plot", "y"], capsys)


@pytest.mark.parametrize("text", ['{"identity": 1, "config": {}}', '{"identity": {}}', "[" * 100_000, "null"])
def test_a_run_file_that_was_edited_is_refused(text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "run.json").write_text(text)
    assert "damaged" in refused([*SWEEP, "--out", "x"], capsys)
    assert "damaged" in refused(["merge", "x"], capsys)


def test_a_damaged_run_file_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "run.json").write_text('{"identity": ')
    assert "damaged" in refused([*SWEEP, "--out", "x"], capsys)


def test_two_runs_in_one_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from filelock import FileLock

    (tmp_path / "x" / "journal").mkdir(parents=True)
    words = [*SWEEP, "--workers", "1", "--out", "x"]
    (tmp_path / "x" / "journal").rmdir()
    assert main(words) == 0
    capsys.readouterr()
    with FileLock(tmp_path / "x" / "journal" / "shard000of001.lock"):
        assert "another process" in refused(words, capsys)
        assert "another process" in refused([*words, "--seed", "1", "--force-new"], capsys)
    assert not (tmp_path / "x.old-1").exists()


@pytest.mark.figures
def test_the_first_command_shows_progress_a_table_and_its_folder(cli: Cli, here: Cli, tmp_path: Path) -> None:
    done = cli("sweep", "--scheme", "bpg-ldpc-qam-sic", "--channel", "rayleigh", "--snr", "0:10:10", "--groups", "4")
    assert done.returncode == 0, done.stderr
    assert "sweep: 100%" in done.stderr
    folder = tmp_path / done.stdout.splitlines()[-1].removeprefix("results: ")
    assert folder.parent.name == "runs"
    for name in ("table.csv", "table.parquet", "per_image.parquet", "run.json"):
        assert (folder / name).stat().st_size > 0
    for kind in ("png", "pdf"):
        assert {path.stem for path in (folder / "figures").glob(f"*.{kind}")} >= {"psnr_db_rayleigh", "ssim_rayleigh"}
    assert "BLER" in done.stdout
    shown = here("show", str(folder))
    assert "linksim sweep" in shown.stdout or "sweep --scheme" in shown.stdout
    before = (folder / "figures" / "psnr_db_rayleigh.pdf").read_bytes()
    drawn = here("plot", str(folder))
    assert drawn.returncode == 0, drawn.stderr
    assert (folder / "figures" / "psnr_db_rayleigh.pdf").read_bytes() == before


def test_linksim_alone_shows_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    commands = re.findall(r"  linksim (.*)", capsys.readouterr().out)
    assert [command.split()[0] for command in commands] == ["sweep", "reproduce", "train", "list"]
    for command in commands:
        assert _parser().parse_all(command.split()).command


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_help_ends_with_an_example_of_its_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*name.split(), "--help"])
    assert f"example: linksim {name}" in " ".join(capsys.readouterr().out.split())
    assert _parser().parse_all(_join_negative(EXAMPLES[name].split())).command == name.split()[0]


def test_the_help_of_train_has_all_keys_of_a_recipe() -> None:
    assert [field.name for field in dataclasses.fields(Recipe)] == ["name", *RECIPE_KEYS]


@pytest.mark.parametrize(
    ("what", "word"),
    [("schemes", "bpg-capacity-oma"), ("channels", "rician"), ("metrics", "lpips-alex"), ("datasets", "folder")],
)
def test_lists_name_what_there_is(what: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", what]) == 0
    assert word in capsys.readouterr().out


def test_the_doctor_names_what_is_there_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "BAD" not in out
    for word in ("torch", "sionna", "image codec", "asset vgg16"):
        assert word in out


def test_assets_are_listed_taken_from_a_file_and_checked(
    capsys: pytest.CaptureFixture[str], install: Callable[[str], None]
) -> None:
    assert main(["assets", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(assets.ASSETS)
    install("vgg16")
    assert main(["assets", "list"]) == 0
    assert "installed" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("vgg16"))
    assert main(["assets", "check"]) == 0
    assert "good" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("vgg16"))
    assert main(["assets", "get", "vgg16"]) == 0
    assert "vgg16.safetensors" in capsys.readouterr().out


def test_a_damaged_asset_is_found_by_the_check(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINKSIM_ASSETS", str(tmp_path))
    (tmp_path / "vgg16.safetensors").write_bytes(b"no weights")
    assert main(["assets", "check"]) == 2
    assert "BAD" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("vgg16"))


def test_a_negative_range_is_read_with_and_without_an_equals_sign() -> None:
    for words in (["--snr=-5:0:5"], ["--snr", "-5:0:5"]):
        out = ["--workers", "1", "--out", f"x{len(words)}"]
        assert main([*sweep_of("bpg-capacity-oma"), *words, *out]) == 0
        assert list(linksim.load(f"x{len(words)}")["snr_db"]) == [-5, 0]


def test_importing_linksim_and_asking_for_help_is_quick() -> None:
    heavy = "import sys, linksim.cli; print(sorted({'torch', 'sionna', 'numba', 'pandas'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", heavy], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"
