"""Jobs of a queue as workers of dask, by dask-jobqueue: what is asked for, and what becomes of jobs that end early."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from filelock import FileLock
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from linksim.devices import ONE_THREAD
from linksim.errors import LinksimError
from linksim.stopping import held, stop_if_told

Queue = Literal["slurm", "pbs", "lsf", "sge"]

LACKS_DASK = '--cluster needs dask and dask-jobqueue: pip install -e ".[cluster]" in the clone'

#: How a queue is asked for GPUs.
_GPU = {"slurm": "--gres=gpu:{}", "pbs": "-l ngpus={}", "lsf": '-gpu "num={}"', "sge": "-l gpu={}"}

#: What hands a job in, and what looks at the queue.
_COMMANDS = {
    "slurm": ("sbatch", "squeue"),
    "pbs": ("qsub", "qstat"),
    "lsf": ("bsub", "bjobs"),
    "sge": ("qsub", "qstat"),
}

#: What lists the jobs that wait or run, a line each that begins with the number.
_LISTS = {
    "slurm": ("squeue", "--noheader", "--format=%A", "--user", "{user}"),
    "pbs": ("qstat",),
    "lsf": ("bjobs", "-noheader", "-o", "jobid"),
    "sge": ("qstat",),
}

#: Seconds that a queue's command has.
_ANSWERS_S = 60.0

#: Seconds between two looks at which jobs the queue still has.
_LOOKS_S = 5.0

#: Jobs in a row that end before their worker begins, at the least, before nobody waits any longer.
_IN_VAIN = 5

#: Seconds before the end of a job in which its worker takes no more units.
_MARGIN_S = 120

#: Shortest walltime.
_LEAST_S = 300

#: Folder of a cluster's keys and logs, in the working folder, which jobs see.
_FOLDER = ".linksim-cluster-"

#: Seconds that a process has to lock the folder it made.
_LOCKS_S = 60

_SECONDS = {"m": 60, "h": 3600}


def _word(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"[\w@.:+-]+", text):
        raise ValueError("write one word")
    return text


def _seconds(text: str) -> int | None:
    """Of 90m, 2h, 02:00:00 or 1-12:00:00; None for another text."""
    if found := re.fullmatch(r"([0-9]{1,5})([mh])", text):
        return int(found[1]) * _SECONDS[found[2]]
    if found := re.fullmatch(r"(?:([0-9]{1,3})-)?([0-9]{1,4}):([0-5][0-9]):([0-5][0-9])", text):
        return ((int(found[1] or 0) * 24 + int(found[2])) * 60 + int(found[3])) * 60 + int(found[4])
    return None


def _walltime(text: str) -> str:
    seconds = _seconds(text)
    if seconds is None or seconds < _LEAST_S:
        raise ValueError(f"write a time like 90m, 2h or 02:00:00, {_LEAST_S // 60}m at the least")
    return text


def _memory(text: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,6}[MG](i?B)?", text):
        raise ValueError("write an amount like 4GB or 1500MB")
    # Queues count in powers of two.
    return text if text.endswith("B") else f"{text}iB"


class QueueParams(BaseModel):
    """What a queue is asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    jobs: int = Field(ge=1, le=10_000, description="jobs at the most, of one worker each")
    partition: Annotated[str | None, AfterValidator(_word)] = Field(None, description="partition or queue")
    account: Annotated[str | None, AfterValidator(_word)] = Field(None, description="whom it is charged to")
    time: Annotated[str, AfterValidator(_walltime)] = Field(
        "1h", description="walltime of a job, like 90m, 2h or 02:00:00"
    )
    memory: Annotated[str, AfterValidator(_memory)] = Field("4GB", description="memory of a job")
    gpu: int = Field(0, ge=0, le=16, description="GPUs of a job")

    @property
    def seconds(self) -> int:
        """Walltime."""
        seconds = _seconds(self.time)
        assert seconds is not None
        return seconds


@dataclass
class News:
    """What a queue says of this command's jobs.

    Args:
        at_once: jobs at the most.
        refused: why jobs were not taken.
        running: numbers of the processes of its commands.
        in_vain: last words of the jobs, since a worker was there, that ended before their worker began.
    """

    at_once: int = 0
    refused: list[str] = field(default_factory=list)
    in_vain: list[str] = field(default_factory=list)
    running: set[int] = field(default_factory=set)

    def check(self) -> None:
        """Raises LinksimError where there is nothing to wait for."""
        if self.refused:
            raise LinksimError(f"the queue takes no jobs ({self.refused[-1]}): what is done is kept; mend what it says")
        if len(self.in_vain) >= max(_IN_VAIN, self.at_once):
            raise LinksimError(
                f"{len(self.in_vain)} jobs ended before their worker began ({self.in_vain[-1]}): what is done is kept; "
                f"{sys.executable} and {Path.cwd()} have to be there on the nodes, and the nodes have to reach this one"
            )


def check_queue(kind: str) -> None:
    """Looks whether there is a queue that answers. Raises LinksimError."""
    hands_in, looks = _COMMANDS[kind]
    for command in (hands_in, looks):
        if shutil.which(command) is None:
            raise LinksimError(f"--cluster {kind}: there is no {command} here: run this where jobs are handed in")
    try:
        subprocess.run([looks], check=True, capture_output=True, timeout=_ANSWERS_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise LinksimError(f"--cluster {kind}: {looks} does not answer: try again when the queue does") from None
    except subprocess.CalledProcessError as error:
        said = _last_line(error.stderr.decode(errors="replace"))
        raise LinksimError(f"--cluster {kind}: {looks}: {said}: mend the queue first") from None
    try:
        with tempfile.TemporaryDirectory(prefix=_FOLDER, dir=Path.cwd()):
            pass
    except OSError as error:
        raise LinksimError(
            f"--cluster {kind}: {Path.cwd()} cannot be written ({error.strerror}): run this in a folder that can "
            "be and that nodes see"
        ) from None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it failed without a word"


@contextlib.contextmanager
def queue_cluster(kind: str, asked: QueueParams, news: News) -> Iterator[Any]:
    """A cluster of dask-jobqueue: a job is one worker of one thread, and ends before its walltime does.

    Its scheduler listens beyond this machine, so it takes TLS. The keys are made for it, in a folder that the jobs have
    to see. A job that ends before its worker begins is asked for anew.

    Args:
        kind: of queue.
        asked: what it is asked for.
        news: gets what becomes of the jobs.

    Raises:
        LinksimError: dask-jobqueue is not installed, or cannot make such a cluster.
    """
    made_by = _dask_jobqueue()
    _clear(Path.cwd())
    news.at_once = asked.jobs
    with tempfile.TemporaryDirectory(prefix=_FOLDER, dir=Path.cwd()) as folder, FileLock(Path(folder) / "lock"):
        # What is half begun cannot be ended cleanly.
        with held():
            cluster = _make(made_by, kind, asked, Path(folder), news)
        try:
            stop_if_told()
            cluster.adapt(minimum_jobs=0, maximum_jobs=asked.jobs)
            cluster.loop.add_callback(_look_after, cluster, kind, Path(folder), news)
            yield cluster
        finally:
            # Where jobs were refused, dask stumbles over them once more.
            with contextlib.suppress(Exception):
                cluster.close()
            # One that hangs would hand a job in that nobody takes back.
            for number in list(news.running):
                with contextlib.suppress(OSError):
                    os.kill(number, signal.SIGKILL)


def _dask_jobqueue() -> ModuleType:
    """The module, whose import has Ctrl-C end this process without a word: that is put back."""
    before = signal.getsignal(signal.SIGINT)
    try:
        import dask_jobqueue
    except ImportError:
        raise LinksimError(LACKS_DASK) from None
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGINT, before)
    found: ModuleType = dask_jobqueue
    return found


def _clear(folder: Path) -> None:
    """Removes keys and logs of commands that were killed."""
    for path in folder.glob(f"{_FOLDER}*"):
        lock = path / "lock"
        # Some disks know no locks.
        with contextlib.suppress(OSError, NotImplementedError):
            if lock.exists() and time.time() - lock.stat().st_mtime > _LOCKS_S:
                with FileLock(lock, timeout=0):
                    shutil.rmtree(path)


def _keys(folder: Path) -> Any:
    """Credentials for one cluster, made now; those of the workers are files in `folder`, for its owner alone."""
    from distributed import Security

    made = Security.temporary()
    for name in ("tls_ca_file", "tls_worker_key", "tls_worker_cert"):
        path = folder / name
        path.touch(mode=0o600)
        path.write_text(getattr(made, name))
        setattr(made, name, str(path))
    return made


def _make(made_by: ModuleType, kind: str, asked: QueueParams, folder: Path, news: News) -> Any:
    hours, minutes = divmod(asked.seconds // 60, 60)
    options: dict[str, Any] = {"walltime": f"{hours:02d}:{minutes:02d}" + ("" if kind == "lsf" else ":00")}
    if asked.partition is not None:
        options["queue"] = asked.partition
    if asked.account is not None:
        options["project" if kind in ("lsf", "sge") else "account"] = asked.account
    if asked.gpu:
        options["job_extra_directives"] = [_GPU[kind].format(asked.gpu)]
    found: Any = getattr(made_by, f"{kind.upper()}Cluster")
    kind_of_job: Any = found.job_cls

    class Job(kind_of_job):  # type: ignore[misc]
        async def start(self) -> None:
            if news.refused:
                raise RuntimeError(news.refused[-1])
            try:
                await super().start()
            except Exception as error:
                news.refused.append(_last_line(str(error)))
                raise

        @staticmethod
        async def _call(words: list[str], *, shell: bool = False, **more: Any) -> str:
            code, out, error = await _run(words, news, shell)
            if code:
                raise RuntimeError(error or out or f"{words[0]} ended with exit code {code}")
            return out

    try:
        return found(
            job_cls=Job, cores=1, processes=1, memory=asked.memory, python=sys.executable, security=_keys(folder),
            protocol="tls://", local_directory=None, log_directory=str(folder),
            scheduler_options={"dashboard": False, "dashboard_address": ":0"}, silence_logs=logging.CRITICAL,
            death_timeout=120,
            job_script_prologue=[f"export {name}={value}" for name, value in ONE_THREAD.items()],
            worker_extra_args=["--no-dashboard", "--lifetime", f"{max(30, asked.seconds - _MARGIN_S)}s",
                               "--lifetime-stagger", "20s"],
            **options,
        )  # fmt: skip
    except (ImportError, ValueError, OSError, RuntimeError) as error:
        raise LinksimError(f"--cluster {kind}: {' '.join(str(error).split())[:200]}") from None


async def _look_after(cluster: Any, kind: str, folder: Path, news: News) -> None:
    """Asks anew for jobs that ended before their worker began: dask waits for those for ever."""
    begun: set[str] = set()
    missing: set[str] = set()
    while cluster.status.name == "running":
        await asyncio.sleep(_LOOKS_S)
        jobs = {name: job for name, job in cluster.workers.items() if job.job_id is not None}
        there = {info["name"] for info in cluster.scheduler_info["workers"].values()}
        begun |= {jobs[name].job_id for name in there & jobs.keys()}
        if there:
            news.in_vain.clear()
        unseen = {name: job.job_id for name, job in jobs.items() if job.job_id not in begun}
        queued = await _queued(kind, news) if unseen else None
        if queued is None:
            continue
        gone = {job for job in unseen.values() if job not in queued}
        # At the second look: what was handed in a moment ago may not be listed yet.
        ended = gone & missing
        missing = gone - ended
        for name in [name for name, job in unseen.items() if job in ended and name in cluster.workers]:
            news.in_vain.append(_last_words(folder, unseen[name]))
            del cluster.workers[name]
        if ended:
            await cluster._correct_state()


async def _queued(kind: str, news: News) -> set[str] | None:
    """Numbers of the jobs that wait or run; None where the queue does not answer now."""
    try:
        code, listed, error = await _run([word.format(user=getpass.getuser()) for word in _LISTS[kind]], news)
    except (OSError, RuntimeError):
        return None
    # LSF fails where there are none.
    if code and "No unfinished job" not in error:
        return None
    return set(re.findall(r"^\s*(\d+)", listed, re.MULTILINE))


async def _run(words: list[str], news: News, shell: bool = False) -> tuple[int, str, str]:
    """Exit code, output and errors of a queue's command. Raises RuntimeError where it does not end in time."""
    pipe = subprocess.PIPE
    words = ["sh", "-c", " ".join(words)] if shell else words
    process = await asyncio.create_subprocess_exec(*words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    news.running.add(process.pid)
    try:
        out, error = await asyncio.wait_for(process.communicate(), _ANSWERS_S)
    except TimeoutError:
        raise RuntimeError(f"{words[0]} does not answer") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        news.running.discard(process.pid)
    return process.returncode or 0, out.decode(errors="replace"), error.decode(errors="replace")


def _last_words(folder: Path, job: str) -> str:
    """The last line that a job wrote."""
    for path in sorted(folder.glob(f"*{job}*")):
        if words := path.read_text(errors="replace").strip():
            return _last_line(words)
    return f"job {job} wrote nothing"
