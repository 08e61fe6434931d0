"""Units on dask: the rows of one process, wherever they were evaluated, whatever ended meanwhile."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from filelock import FileLock
from PIL import Image

import linksim
from baselines.codecs.cache import default_path
from linksim import LinksimError
from linksim.cli import main
from linksim.data import cifar10
from linksim.engine import journal
from linksim.engine.away import _free_texts, _named_files
from linksim.engine.cluster import parse_cluster
from linksim.engine.queues import _clear
from linksim.engine.variants import parse
from linksim.models import weights
from linksim.models.checkpoint import load_checkpoint
from linksim.train.models import model_of_card
from linksim.train.slices import train_slice
from tests.conftest import ROOT

SETTINGS: dict[str, Any] = {
    "scheme": "bpg-capacity", "channel": "rayleigh", "snr": "0,10", "groups": 160, "metrics": "psnr"
}  # fmt: skip

BROKEN = """
from pathlib import Path
from linksim import Received, Scheme

class Broken(Scheme):
    name, summary = "broken", "for tests"

    def transmit(self, images, side):
        with (Path(__file__).parent / "tries").open("a") as file:
            file.write("x")
        raise ValueError("on purpose")

    def receive(self, received, side):
        raise NotImplementedError
"""


@dataclass
class Running:
    """A scheduler with two workers, started by hand."""

    file: Path
    cache: Path
    plugin: Path

    @property
    def place(self) -> str:
        return f"file:{self.file}"

    @property
    def address(self) -> str:
        return str(json.loads(self.file.read_text())["address"])


def module(name: str, *words: str, **more: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.{name}", *words], stderr=subprocess.DEVNULL, **more
    )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, few_held_out: str) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("cluster")
    info = folder / "plugin" / "broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info.parent / "broken_scheme.py").write_text(BROKEN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[linksim.schemes]\nbroken = broken_scheme:Broken\n")
    file = folder / "scheduler.json"
    # Elsewhere: no folder of this process's is known there.
    env = {name: value for name, value in os.environ.items() if not name.startswith("LINKSIM")}
    env |= {"LINKSIM_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    # But for what codecs have coded, which takes long.
    (folder / "cache").mkdir()
    default_path().parent.mkdir(exist_ok=True)
    (folder / "cache" / default_path().name).symlink_to(default_path())
    path = [few_held_out, str(info.parent), os.environ.get("PYTHONPATH")]
    env["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    scheduler = module(
        "dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file), "--no-dashboard",
        env=env, cwd=folder,
    )  # fmt: skip
    workers = module(
        "dask_worker", "--scheduler-file", str(file), "--nworkers", "2", "--nthreads", "1", "--no-dashboard",
        "--local-directory", str(folder), env=env, cwd=folder,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while not file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield Running(file, folder / "cache", info.parent)
    finally:
        workers.terminate()
        workers.wait(60)
        scheduler.kill()
        scheduler.wait(60)


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    drop = [column for column in one.columns if "seconds" in column]
    pd.testing.assert_frame_equal(one.drop(columns=drop), other.drop(columns=drop))


def here(folder: Path, **asked: Any) -> pd.DataFrame:
    """The same sweep in this process alone."""
    return linksim.sweep(folder, workers=1, progress=False, **asked)


def settings(**more: Any) -> dict[str, Any]:
    return {**SETTINGS, **more}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("moon:3", "unknown cluster 'moon'"),
        ("local:0", "write local, or local:N"),
        ("local:many", "write local, or local:N"),
        ("tcp://nowhere", "write tcp://HOST:PORT"),
        ("file:none.json", "no such file"),
        ("slurm:time=2h", "say how many jobs there may be"),
        ("slurm:jobs=0", "greater than or equal to 1"),
        ("tcp://127.0.0.1:99999", "write tcp://HOST:PORT"),
        ("tls://127.0.0.1:0", "write tls://HOST:PORT"),
        ("slurm:jobs=2,time=soon", "time: write a time like 90m, 2h or 02:00:00, 5m at the least"),
        ("slurm:jobs=2,time=4m", "5m at the least"),
        ("slurm:jobs=2,time=00:04:59", "5m at the least"),
        ("slurm:jobs=2,memory=0GB", "memory: write an amount like 4GB"),
        ("slurm:jobs=2,partition=a b;ls", "partition: write one word"),
        ("slurm:jobs=2,account=", "account: write one word"),
        ("slurm:jobs=2,colour=red", "unknown parameter of slurm 'colour'"),
        ("slurm:jobs=2,jobs=3", "given twice"),
        ("", "unknown cluster ''"),
    ],
)
def test_a_place_that_is_none_is_refused_before_any_work(text: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(LinksimError, match=hint):
        linksim.sweep(tmp_path / "x", cluster=text, progress=False, **settings())
    assert not (tmp_path / "x").exists()


def test_a_queue_is_asked_for_what_was_written() -> None:
    asked = parse_cluster("pbs:jobs=20,partition=gpu,time=90m,memory=8GB,gpu=1,account=me").queue
    assert asked is not None
    assert (asked.jobs, asked.partition, asked.seconds, asked.gpu, asked.account) == (20, "gpu", 5400, 1, "me")


@pytest.mark.parametrize(
    ("words", "seconds", "memory"),
    [
        ("time=02:30:00,memory=4G", 9000, "4GiB"),
        ("time=1-12:00:00,memory=1500M", 129_600, "1500MiB"),
        ("time=90m,memory=4GB", 5400, "4GB"),
    ],
)
def test_times_and_amounts_are_read_as_queues_write_them(words: str, seconds: int, memory: str) -> None:
    asked = parse_cluster(f"slurm:jobs=2,{words}").queue
    assert asked is not None
    assert (asked.seconds, asked.memory) == (seconds, memory)


def test_nobody_answers_and_nothing_is_written(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linksim.engine.cluster._ANSWERS_S", 2)
    (tmp_path / "none.json").write_text('{"address": "foo"}')
    places = {
        "tcp://127.0.0.1:9": r"no scheduler answers at tcp://127\.0\.0\.1:9 \(ConnectionRefusedError",
        running.address.replace("tcp:", "tls:"): "tls://: dask knows no certificates here",
        f"file:{tmp_path / 'none.json'}": "is no file of a dask scheduler",
        "lsf:jobs=1": "there is no bsub here",
    }
    for place, hint in places.items():
        with pytest.raises(LinksimError, match=hint):
            linksim.sweep(tmp_path / "x", cluster=place, progress=False, **settings())
    assert not (tmp_path / "x").exists()


def test_what_listens_and_is_no_scheduler_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linksim.engine.cluster._ANSWERS_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(LinksimError, match=r"no scheduler answers at tcp://127\.0\.0\.1:[0-9]+ \(TimeoutError"):
            linksim.sweep(tmp_path / "x", cluster=place, progress=False, **settings())
    assert not (tmp_path / "x").exists()


def commands(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Puts commands of a queue first on the path, and works in `folder`."""
    (folder / "commands").mkdir()
    for name, text in scripts.items():
        (folder / "commands" / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / "commands" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'commands'}:{os.environ['PATH']}")
    monkeypatch.chdir(folder)


def test_a_queue_that_takes_no_jobs_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands(tmp_path, monkeypatch, sbatch="echo invalid partition >&2; exit 1", squeue="exit 0")
    with pytest.raises(LinksimError, match=r"the queue takes no jobs \(invalid partition\)"):
        linksim.sweep(tmp_path / "x", cluster="slurm:jobs=1", **settings(groups=4))
    # A command that says nothing of a job hands none in.
    (tmp_path / "commands" / "sbatch").write_text("#!/bin/sh\nprintf 'Bonjour, \\351!\\n'\n")
    with pytest.raises(LinksimError, match=r"the queue takes no jobs \(Bonjour"):
        linksim.sweep(tmp_path / "z", cluster="slurm:jobs=1", progress=False, **settings(groups=4))
    (tmp_path / "commands" / "squeue").write_text("#!/bin/sh\nprintf 'no controller \\351' >&2; exit 1\n")
    with pytest.raises(LinksimError, match=r"squeue: no controller .: mend the queue first"):
        linksim.sweep(tmp_path / "y", cluster="slurm:jobs=1", progress=False, **settings(groups=4))
    assert not (tmp_path / "y").exists()


def test_a_queue_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands(tmp_path, monkeypatch, sbatch="echo $$ > pid; exec sleep 600", squeue="exit 0")
    monkeypatch.setattr("linksim.engine.queues._ANSWERS_S", 1.0)
    with pytest.raises(LinksimError, match=r"the queue takes no jobs \(sbatch does not answer\)"):
        linksim.sweep(tmp_path / "x", cluster="slurm:jobs=1", progress=False, **settings(groups=4))
    # What would hand a job in that nobody waits for is ended.
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_a_folder_that_cannot_be_written_is_no_place_for_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands(tmp_path, monkeypatch, sbatch="exit 1", squeue="exit 0")
    # Not even root writes there.
    monkeypatch.chdir("/proc/self")
    with pytest.raises(LinksimError, match=r"cannot be written .*: run this in a folder that can be and"):
        linksim.sweep(tmp_path / "x", cluster="slurm:jobs=1", progress=False, **settings(groups=4))
    assert not (tmp_path / "x").exists()


#: A queue in a folder: a job is a process of this machine, and the first VAIN jobs end at once.
SBATCH = """
echo x >> jobs
count=$(wc -l < jobs)
if [ $count -le "$VAIN" ]; then
    echo no such place > "$(echo .linksim-cluster-*)/worker-$$.err"
    echo Submitted batch job $$
else
    cp "$1" script
    setsid bash script > log 2>&1 &
    echo $! > running
    echo Submitted batch job $!
fi
"""
SQUEUE = "[ ! -f running ] || ! kill -0 $(cat running) 2> /dev/null || cat running"
SCANCEL = "kill -- -$1"


def test_a_job_that_ends_before_its_worker_begins_is_asked_for_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands(tmp_path, monkeypatch, sbatch=SBATCH, squeue=SQUEUE, scancel=SCANCEL)
    monkeypatch.setattr("linksim.engine.queues._LOOKS_S", 0.2)
    monkeypatch.setenv("VAIN", "2")
    few = settings(groups=8)
    same(here(tmp_path / "alone", **few), linksim.sweep(tmp_path / "x", cluster="slurm:jobs=1", progress=False, **few))
    assert len((tmp_path / "jobs").read_text().split()) == 3
    monkeypatch.setenv("VAIN", "1000")
    with pytest.raises(LinksimError, match=r"[0-9]+ jobs ended before their worker began \(no such place\)"):
        linksim.sweep(tmp_path / "y", cluster="slurm:jobs=1", progress=False, **few)
    assert not list(tmp_path.glob(".linksim-cluster-*"))


def told_by_a_terminal(
    number: signal.Signals, words: str, env: dict[str, str], folder: Path, ready: Callable[[int, bytes], bool]
) -> str:
    """What the command line says from when it is `ready`, and all of its processes are told to stop."""
    process = subprocess.Popen(
        [sys.executable, "-m", "linksim", *words.split()], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        env=env, cwd=folder, start_new_session=True,
        # A shell has what it runs in the background ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    try:
        said = b""
        while not ready(process.pid, said):
            more = os.read(process.stderr.fileno(), 1 << 16)
            assert more, said
            said += more
        os.killpg(process.pid, number)
        last = process.communicate(timeout=300)[1].decode()
    finally:
        process.kill()
    assert process.returncode == 130, last
    return last


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_being_told_to_stop_takes_the_jobs_back(
    number: signal.Signals, cli_env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by Ctrl-C, which dask-jobqueue's import has end a process without a word."""
    waits = "echo Submitted batch job 77; echo 77 > queued"
    commands(tmp_path, monkeypatch, sbatch=waits, squeue="cat queued || true", scancel='echo "$@" > taken')
    words = "sweep --scheme klt --groups 4 --metrics psnr --out x --cluster slurm:jobs=1"
    env = {**cli_env, "PATH": os.environ["PATH"]}
    last = told_by_a_terminal(number, words, env, tmp_path, lambda _, said: b"waiting for a worker" in said)
    assert "stopped: what is done is kept in x" in last
    assert "Traceback" not in last
    assert (tmp_path / "taken").read_text() == "77\n"
    assert not list(tmp_path.glob(".linksim-cluster-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_terminal_stops_a_local_cluster_in_one_line(
    number: signal.Signals, cli_env: dict[str, str], tmp_path: Path
) -> None:
    """A terminal tells dask's processes as well, whose last words help nobody."""

    def ready(process: int, said: bytes) -> bool:
        if b"0/" not in said:
            return False
        while not psutil.Process(process).children(recursive=True):
            time.sleep(0.05)
        # In the middle of their beginning.
        time.sleep(2)
        return True

    words = "sweep --scheme bpg-capacity --channel rayleigh --metrics psnr --out x --cluster local:1"
    last = told_by_a_terminal(number, words, cli_env, tmp_path, ready)
    assert last.rstrip().endswith("stopped: what is done is kept in x; the same command goes on with it")
    for word in ("Traceback", "KeyboardInterrupt", "distributed"):
        assert word not in last


def test_keys_of_a_command_that_was_killed_go_with_the_next_one(tmp_path: Path) -> None:
    for name in ("killed", "lives", "begins"):
        (tmp_path / f".linksim-cluster-{name}").mkdir()
        (tmp_path / f".linksim-cluster-{name}" / "lock").touch()
        if name != "begins":
            os.utime(tmp_path / f".linksim-cluster-{name}" / "lock", (0, 0))
    with FileLock(tmp_path / ".linksim-cluster-lives" / "lock"):
        os.utime(tmp_path / ".linksim-cluster-lives" / "lock", (0, 0))
        _clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".linksim-cluster-lives", ".linksim-cluster-begins"}


def test_a_script_needs_no_guard(cli_env: dict[str, str], tmp_path: Path) -> None:
    """Processes that a script begins, outside of `if __name__ == "__main__":`, do not run it once more."""
    call = 'linksim.sweep("{out}", scheme="bpg-capacity", groups=4, metrics="psnr", snr="0,10", progress=False, {how})'
    lines = ["import linksim", 'print("begun")']
    lines += [call.format(out="pool", how="workers=2"), call.format(out="dask", how='cluster="local:1"')]
    (tmp_path / "script.py").write_text("\n".join([*lines, 'print("ended")']))
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=cli_env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "begun\nended\n"), done.stderr


def test_workers_that_share_nothing_give_the_rows_of_one_process(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of the user's own and a folder of images travel; the workers know neither place."""
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "weights"))
    card = weights.cards()["semoma_awgn_1-12_n2_own_sum_32px_compact"]
    model = model_of_card(card)
    torch.manual_seed(3)
    facts = {key: value for key, value in card.items() if key not in ("files", "folder", "model")}
    weights.install(model, model.build(), facts)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(pictures / f"{index:02d}.png")
    asked = settings(scheme="semoma,bpg-capacity", channel="awgn", dataset=f"folder:{pictures}", groups=6)
    alone = here(tmp_path / "alone", **asked)
    away_rows = linksim.sweep(tmp_path / "away", cluster=running.place, progress=False, **asked)
    same(alone, away_rows)
    named = asked | {"scheme": f"semoma:weights={model.name}"}
    by_name = linksim.sweep(tmp_path / "named", cluster=running.place, progress=False, **named)
    assert by_name["psnr_db"].tolist() == alone["psnr_db"][alone["scheme"] == "semoma"].tolist()
    delivered = {path.name for path in running.cache.rglob("*") if path.is_file()}
    assert {"images.npy", weights.MANIFEST} <= delivered
    records = [r for r in journal.read_folder(tmp_path / "away" / journal.FOLDER) if "point" in r]
    assert all(record["cpu"] and record["versions"]["torch"] for record in records)
    # The next sweep has no weights of its own: those that the workers were given before are not its.
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "none"))
    shipped = here(tmp_path / "shipped", **asked)
    same(shipped, linksim.sweep(tmp_path / "again", cluster=running.place, progress=False, **asked))


def test_of_runs_that_a_parameter_names_the_weights_travel_and_the_checkpoints_do_not(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "semoma_awgn"
    run.mkdir(parents=True)
    for name in ("best.pt", "checkpoint.pt", "train.csv"):
        (run / name).write_bytes(name.encode())
    assert _named_files(tmp_path, "runs") == {
        "semoma_awgn/best.pt": b"best.pt", "semoma_awgn/train.csv": b"train.csv"
    }  # fmt: skip
    assert _named_files(tmp_path, "runs/semoma_awgn/checkpoint.pt") == {".": b"checkpoint.pt"}
    # Whatever a folder is called; a word among a few, and what nobody asked for, is none.
    asked = "semoma:weights=runs,csi=own", "kd+diffbir:caption=words", "bpg-ldpc-qam-sic"
    assert _free_texts(map(parse, asked)) == {"runs", "words"}


@pytest.mark.usefixtures("small_units")
def test_a_worker_that_is_killed_changes_nothing(running: Running, tmp_path: Path) -> None:
    from distributed import Client

    asked = settings(scheme="bpg-ldpc-qam-sic", groups=64, snr="0:15:5")
    alone = here(tmp_path / "alone", **asked)
    before: list[int] = []

    def kill() -> None:
        with Client(running.address, set_as_default=False) as client:
            victim = next(iter(client.run(os.getpid).values()))
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                records = list(journal.read_folder(tmp_path / "away" / journal.FOLDER))
                if done := sum("point" in record for record in records):
                    before.append(done)
                    break
                time.sleep(0.05)
            os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    away_rows = linksim.sweep(tmp_path / "away", cluster=running.place, progress=False, **asked)
    killer.join()
    assert 0 < before[0] < 32
    same(alone, away_rows)


@pytest.mark.usefixtures("small_units")
def test_stopping_at_a_width_is_the_same_on_a_cluster(running: Running, tmp_path: Path) -> None:
    asked = settings(scheme="semoma", until="psnr=0.6", min_groups=16, snr="0,20")
    del asked["groups"]
    alone = here(tmp_path / "alone", **asked)
    same(alone, linksim.sweep(tmp_path / "away", cluster=running.place, progress=False, **asked))
    assert alone["n_groups"].nunique() == 2
    assert (alone["n_groups"] < 256).all()


def test_a_submitter_that_is_killed_goes_on_where_it_was(running: Running, tmp_path: Path) -> None:
    words = [
        sys.executable, "-m", "linksim", "sweep", "--scheme", "bpg-ldpc-qam-sic", "--channel", "rayleigh", "--snr",
        "0:15:5", "--groups", "128", "--metrics", "psnr", "--quiet", "--cluster", running.address, "--out", "x",
    ]  # fmt: skip
    process = subprocess.Popen(words, cwd=tmp_path)
    deadline = time.monotonic() + 300
    while not any("point" in record for record in journal.read_folder(tmp_path / "x" / journal.FOLDER)):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait(60)
    before = sum("point" in record for record in journal.read_folder(tmp_path / "x" / journal.FOLDER))
    subprocess.run(words, cwd=tmp_path, check=True, timeout=600)
    records = [record for record in journal.read_folder(tmp_path / "x" / journal.FOLDER) if "point" in record]
    assert 0 < before < len(records) == 8
    asked = settings(scheme="bpg-ldpc-qam-sic", groups=128, snr="0:15:5")
    same(here(tmp_path / "alone", **asked), linksim.load(tmp_path / "x"))


def test_what_a_scheme_raises_comes_back_in_one_line_and_is_not_tried_again(running: Running, tmp_path: Path) -> None:
    words = [
        sys.executable, "-m", "linksim", "sweep", "--scheme", "broken", "--groups", "4", "--snr", "5", "--out", "x",
        "--quiet", "--cluster", running.place,
    ]  # fmt: skip
    path = os.pathsep.join([str(running.plugin), str(ROOT)])
    done = subprocess.run(
        words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("linksim: scheme 'broken' raised ValueError: on purpose")
    assert (running.plugin / "tries").read_text() == "x"


def test_workers_of_several_threads_or_of_other_versions_are_refused(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linksim.engine.sweep.numeric_versions", lambda: {"torch": "0.1"})
    with pytest.raises(LinksimError, match=r"has torch .*, here it is 0\.1: install the same, or --allow-versions"):
        linksim.sweep(tmp_path / "x", cluster=running.place, progress=False, **settings(groups=4))
    monkeypatch.undo()
    monkeypatch.setattr("linksim.engine.away.code_version", lambda: "0.0.0+other")
    with pytest.raises(LinksimError, match=r"this sweep is from 0\.0\.0"):
        linksim.sweep(tmp_path / "y", cluster=running.place, progress=False, **settings(groups=4))
    monkeypatch.undo()
    crowded = module(
        "dask_worker", running.address, "--nworkers", "1", "--nthreads", "2", "--no-dashboard", "--name", "crowded"
    )
    try:
        from distributed import Client

        with Client(running.address, set_as_default=False) as client:
            client.wait_for_workers(3, timeout=120)
        with pytest.raises(LinksimError, match="a worker has 2 threads"):
            linksim.sweep(tmp_path / "z", cluster=running.place, progress=False, **settings(groups=4))
    finally:
        crowded.terminate()
        crowded.wait(60)


def test_the_distance_of_a_set_needs_no_shared_disk(
    running: Running, tmp_path: Path, install: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its network's weights travel there, features of images back."""
    install("inception-fid")
    monkeypatch.setattr("linksim.metrics.Kid.MIN_IMAGES", 8)
    asked = settings(scheme="bpg-capacity-oma", users=1, snr="0", groups=12, metrics="kid,psnr")
    alone = here(tmp_path / "alone", **asked)
    same(alone, linksim.sweep(tmp_path / "away", cluster=running.place, progress=False, **asked))
    assert alone["kid"].iloc[0] > 0
    assert list(running.cache.rglob("inception-fid.safetensors"))


@pytest.mark.usefixtures("small_units")
def test_a_scheduler_that_is_lost_is_one_line_and_the_same_command_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    scheduler = module(
        "dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file), "--no-dashboard"
    )  # fmt: skip
    worker = module(
        "dask_worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", "--local-directory",
        str(tmp_path), "--death-timeout", "5",
    )  # fmt: skip
    words = [
        sys.executable, "-m", "linksim", "sweep", "--scheme", "bpg-ldpc-qam-sic", "--channel", "rayleigh", "--snr",
        "0:15:5", "--groups", "128", "--metrics", "psnr", "--quiet", "--out", "x",
    ]  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while not file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process = subprocess.Popen(
            [*words, "--cluster", f"file:{file}"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        while not any("point" in record for record in journal.read_folder(tmp_path / "x" / journal.FOLDER)):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        scheduler.kill()
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 2
        assert said.splitlines()[-1].startswith("linksim: the pool lost a unit (what schedules it is gone")
        assert "the same command goes on with it" in said
        assert "Traceback" not in said
    finally:
        for child in (scheduler, worker):
            child.kill()
            child.wait(60)
    before = sum("point" in record for record in journal.read_folder(tmp_path / "x" / journal.FOLDER))
    subprocess.run([*words, "--workers", "1"], cwd=tmp_path, check=True, timeout=600)
    assert 0 < before < sum("point" in record for record in journal.read_folder(tmp_path / "x" / journal.FOLDER))


@pytest.mark.slurm
@pytest.mark.skipif("SLURM_CONF" not in os.environ, reason="no SLURM: SLURM_CONF is not set")
def test_jobs_of_a_queue_give_the_rows_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = settings(groups=16)
    alone = here(tmp_path / "alone", **few)
    place = "slurm:jobs=2,time=10m,memory=1500MB"
    same(alone, linksim.sweep(tmp_path / "jobs", cluster=place, progress=False, **few))
    # Shards in a job array, by a script of the user's own.
    script = tmp_path / "array.sh"
    words = "sweep --scheme bpg-capacity --channel rayleigh --snr 0,10 --groups 16 --metrics psnr --workers 1 --quiet"
    script.write_text(
        "#!/bin/bash\n#SBATCH --array=0-1\n#SBATCH --output=log-%a.txt\n"
        f"cd {tmp_path}\n{sys.executable} -m linksim {words} --shard $SLURM_ARRAY_TASK_ID/2 --out array\n"
    )
    asked = subprocess.run(
        ["sbatch", "--parsable", str(script)], check=True, timeout=600, capture_output=True, text=True
    )
    # `sbatch --wait` looks less and less often.
    queue = ["squeue", "--noheader", "--jobs", asked.stdout.strip()]
    while subprocess.run(queue, check=True, timeout=600, capture_output=True).stdout:
        time.sleep(0.3)
    subprocess.run([sys.executable, "-m", "linksim", "merge", "array"], check=True, timeout=600)
    same(alone, linksim.load(tmp_path / "array"))
    assert not list(tmp_path.glob(".linksim-cluster-*"))


@pytest.fixture
def children_hold_out_few(few_held_out: str, monkeypatch: pytest.MonkeyPatch, small_networks: None) -> None:
    """Trainings of processes that a test starts, and of this one, are small, and theirs validate on few images."""
    path = [few_held_out, os.environ.get("PYTHONPATH")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))


@pytest.mark.usefixtures("children_hold_out_few")
@pytest.mark.skipif("LINKSIM_TEST_CIFAR10" not in os.environ, reason="LINKSIM_TEST_CIFAR10 is not set")
def test_models_are_trained_in_slices_and_come_out_as_on_one_machine(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Users that superpose, whose start the worker gets from the user's own weights."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("scheme: semnoma\nchannel: awgn\nrho: 1/24\n")
    train = ["train", "--steps", "2", "--set", "batch=2", "--set", "embed_steps=2"]
    train += ["--data-dir", os.environ["LINKSIM_TEST_CIFAR10"]]
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(cifar10, "VALIDATION", 8)
    for scheme in ("semoma", "semnoma"):
        assert main([*train, "--scheme", scheme, "--rho", "1/24", "--out", "here"]) == 0
    cards = weights.cards()
    (student,) = (name for name in cards if name.startswith("semnoma_awgn_1-24"))
    files = cards[student]["files"]
    for name in files:
        (tmp_path / "weights" / name).unlink()
    assert main([*train, "--for", "mine.yaml", "--out", "there", "--cluster", running.place]) == 0
    assert weights.cards()[student]["files"] == files
    assert (tmp_path / "there" / student / "checkpoint.pt").is_file()


@pytest.mark.usefixtures("children_hold_out_few")
@pytest.mark.skipif("LINKSIM_TEST_CIFAR10" not in os.environ, reason="LINKSIM_TEST_CIFAR10 is not set")
def test_a_list_of_models_is_trained_on_a_cluster_and_goes_on_after_ends(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "list.yaml").write_text(
        "models: [{scheme: semoma, rho: 1/24, bar: 40, pairs: 6, recipe: adamw, set: {batch: 2}}]\n"
    )
    words = ["train", "--for", "list.yaml", "--steps", "2", "--data-dir", os.environ["LINKSIM_TEST_CIFAR10"]]
    assert main([*words, "--out", "runs", "--cluster", running.place]) == 0
    name = "semoma_awgn_1-48_n2_own_sum_32px_compact"
    run = tmp_path / "runs" / name
    assert [part["pairs"] for part in json.loads((run / "history.json").read_text())] == [4, 4]
    identity = load_checkpoint(run / "checkpoint.pt")["identity"]
    assert (identity["recipe"]["name"], identity["seed"]) == ("adamw", 1)
    assert weights.present(weights.cards()[name])
    # What the second began from lies beside it, as after a run on this machine.
    assert (tmp_path / "runs" / f"{name}.1" / "best.pt").is_file()
    assert not (tmp_path / "runs" / f"{name}.1" / "checkpoint.pt").exists()
    assert f"{name}: " in capfd.readouterr().out


@pytest.mark.usefixtures("children_hold_out_few")
@pytest.mark.skipif("LINKSIM_TEST_CIFAR10" not in os.environ, reason="LINKSIM_TEST_CIFAR10 is not set")
def test_a_slice_gives_back_what_it_has_when_its_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Path(os.environ["LINKSIM_TEST_CIFAR10"])
    monkeypatch.setattr("linksim.train.slices.received", lambda name: (None, tmp_path))
    (tmp_path / "data").symlink_to(data)
    words = ["train", "--scheme", "semoma", "--rho", "1/12", "--steps", "3000", "--set", "batch=2", "--resume"]
    name = "semoma_awgn_1-24_n2_own_sum_32px_compact"
    steps: list[int] = []
    files: dict[str, bytes] = {}
    for _ in range(2):
        found = train_slice("any", words, ["--data-dir", "{data}"], name, files, {}, 0.0)
        assert found.code is None, found.said
        files = dict(found.files)
        (tmp_path / "checkpoint.pt").write_bytes(files["checkpoint.pt"])
        steps.append(load_checkpoint(tmp_path / "checkpoint.pt")["state"]["step"])
    assert 0 <= steps[0] < steps[1]
