"""Units on dask.distributed: a cluster of this machine, one that runs already, or jobs of a queue by dask-jobqueue.

    local[:N]                                    N processes of this machine
    tcp://HOST:PORT, tls://HOST:PORT             a scheduler that runs
    file:SCHEDULER.json                          the same, by the file that it wrote
    slurm:jobs=20,partition=gpu,time=2h,...      jobs of a queue; also pbs, lsf and sge

The scheduling is dask's own. What is linksim's is what travels to the workers (`linksim.engine.away`), and that the
journal is written here, whatever ends.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from linksim.devices import ONE_THREAD, available_cpus
from linksim.engine.away import Delivery, evaluate_away
from linksim.engine.workers import Pool
from linksim.errors import LinksimError, said, shown, unknown
from linksim.grammar import settled, written_params

Queue = Literal["slurm", "pbs", "lsf", "sge"]

#: Seconds that a scheduler has to answer.
_ANSWERS_S = 20

_LACKS_DASK = '--cluster needs dask and dask-jobqueue: pip install "linksim[cluster]"'

#: Units on their way for each worker: one at work, one that waits, so that none is idle while answers travel.
_AHEAD = 2

#: Units on their way where nobody knows how many workers may come.
_AT_LEAST = 64

#: How a queue is asked for GPUs.
_GPU = {"slurm": "--gres=gpu:{}", "pbs": "-l ngpus={}", "lsf": '-gpu "num={}"', "sge": "-l gpu={}"}

#: What hands a job in, and what looks at the queue.
_COMMANDS = {
    "slurm": ("sbatch", "squeue"),
    "pbs": ("qsub", "qstat"),
    "lsf": ("bsub", "bjobs"),
    "sge": ("qsub", "qstat"),
}

#: Seconds before the end of a job in which its worker takes no more units.
_MARGIN_S = 120

#: Shortest walltime.
_LEAST_S = 300


def _word(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"[\w@.:+-]+", text):
        raise ValueError("write one word")
    return text


def _walltime(text: str) -> str:
    found = re.fullmatch(r"([0-9]{1,5})([mh])", text)
    if found is None or int(found[1]) * _SECONDS[found[2]] < _LEAST_S:
        raise ValueError(f"write a time like 90m or 2h, {_LEAST_S // 60}m at the least")
    return text


def _memory(text: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,6}(MB|GB)", text):
        raise ValueError("write an amount like 4GB or 1500MB")
    return text


_SECONDS = {"m": 60, "h": 3600}


class QueueParams(BaseModel):
    """What a queue is asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    jobs: int = Field(ge=1, le=10_000, description="jobs at the most, of one worker each")
    partition: Annotated[str | None, AfterValidator(_word)] = Field(None, description="partition or queue")
    account: Annotated[str | None, AfterValidator(_word)] = Field(None, description="whom it is charged to")
    time: Annotated[str, AfterValidator(_walltime)] = Field("1h", description="walltime of a job, like 90m or 2h")
    memory: Annotated[str, AfterValidator(_memory)] = Field("4GB", description="memory of a job")
    gpu: int = Field(0, ge=0, le=16, description="GPUs of a job")

    @property
    def seconds(self) -> int:
        """Walltime."""
        return int(self.time[:-1]) * _SECONDS[self.time[-1]]


@dataclass(frozen=True)
class Place:
    """Where units run, as it was asked for.

    Args:
        kind: "local", "address", "file" or a queue.
        text: the number of workers, the address or the file.
        queue: what a queue is asked for.
    """

    kind: str
    text: str = ""
    queue: QueueParams | None = None


def parse_cluster(text: str) -> Place:
    """What `--cluster TEXT` asks for.

    Raises LinksimError for a place that there is no such kind of, or a value out of range.

    Example:
        >>> parse_cluster("local:4")
        Place(kind='local', text='4', queue=None)
        >>> parse_cluster("slurm:jobs=20,time=2h").queue.seconds
        7200
    """
    kind, _, rest = text.partition(":")
    if kind == "local":
        if rest and not re.fullmatch(r"[1-9][0-9]{0,3}", rest):
            raise LinksimError(f"--cluster {shown(text)}: write local, or local:N with a number of workers")
        return Place(kind, rest)
    if kind in ("tcp", "tls"):
        if _host_and_port(text) is None:
            raise LinksimError(f"--cluster {shown(text)}: write {kind}://HOST:PORT")
        return Place("address", text)
    if kind == "file":
        if not Path(rest).expanduser().is_file():
            raise LinksimError(f"--cluster {shown(text)}: no such file: `dask scheduler --scheduler-file` writes it")
        return Place(kind, str(Path(rest).expanduser().resolve()))
    if kind in get_args(Queue):
        asked = written_params("cluster", text, QueueParams.model_fields)
        if "jobs" not in asked:
            raise LinksimError(f"--cluster {shown(text)}: say how many jobs there may be: {kind}:jobs=20,time=2h")
        return Place(kind, queue=settled("cluster", text, QueueParams, asked))
    raise unknown("cluster", kind, ["local", "tcp", "tls", "file", *get_args(Queue)])


def _host_and_port(address: str) -> tuple[str, int] | None:
    """Of tcp://HOST:PORT or tls://HOST:PORT; None for another text."""
    found = re.fullmatch(r"(?:tcp|tls)://(\[[^\s\]]+\]|[^\s:/]+):([0-9]{1,5})", address)
    if found is None or not 1 <= int(found[2]) <= 65535:
        return None
    return found[1].strip("[]"), int(found[2])


def check_place(place: Place) -> None:
    """Looks whether there is a scheduler, or a queue that takes jobs, before anything is written.

    Raises:
        LinksimError: there is none, or it cannot be reached from here.
    """
    if place.kind in ("address", "file"):
        address = _address(place)
        where = _host_and_port(address)
        assert where is not None
        if address.startswith("tls:"):
            _check_keys()
        try:
            with socket.create_connection(where, _ANSWERS_S) as connection:
                # dask greets whoever connects; a client that waits for that in vain does not end.
                greeted = address.startswith("tls:") or connection.recv(1)
        except OSError as error:
            raise LinksimError(f"no scheduler answers at {address} ({said(error, 120)}): start it first") from None
        if not greeted:
            raise LinksimError(f"what answers at {address} is no scheduler of dask: give another address")
    elif place.queue is not None:
        _check_queue(place.kind)


def _check_queue(kind: str) -> None:
    hands_in, looks = _COMMANDS[kind]
    for command in (hands_in, looks):
        if shutil.which(command) is None:
            raise LinksimError(f"--cluster {kind}: there is no {command} here: run this where jobs are handed in")
    try:
        subprocess.run([looks], check=True, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise LinksimError(f"--cluster {kind}: {looks} does not answer: try again when the queue does") from None
    except subprocess.CalledProcessError as error:
        raise LinksimError(f"--cluster {kind}: {looks}: {_last_line(error.stderr)}: mend the queue first") from None


def _address(place: Place) -> str:
    """Of the scheduler that a place names. Raises LinksimError for a file that no scheduler wrote."""
    if place.kind == "address":
        return place.text
    # Of what a scheduler writes, its address is all that a client needs.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        address = json.loads(Path(place.text).read_text())["address"]
        if _host_and_port(address) is not None:
            return str(address)
    raise LinksimError(f"{place.text} is no file of a dask scheduler: give what --scheduler-file wrote")


def _check_keys() -> None:
    """Raises LinksimError where dask knows no keys for TLS."""
    try:
        from distributed import Security
    except ImportError:
        raise LinksimError(_LACKS_DASK) from None
    if Security().tls_ca_file is None:
        raise LinksimError(
            "tls://: dask knows no certificates here: name them in DASK_DISTRIBUTED__COMM__TLS__CA_FILE, and in "
            "..__TLS__CLIENT__CERT and ..__TLS__CLIENT__KEY"
        )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it failed without a word"


@contextlib.contextmanager
def open_cluster(place: Place, delivery: Delivery) -> Iterator[Pool]:
    """A cluster whose workers, those that come later too, have what the work needs.

    Raises:
        LinksimError: dask is not installed, no scheduler answers, a worker has several threads or another version.
    """
    try:
        import dask
        from distributed import Client
        from distributed.utils import silence_logging_cmgr
    except ImportError:
        raise LinksimError(_LACKS_DASK) from None
    from linksim.engine.delivery import Deliver

    check_place(place)
    refused: list[str] = []

    # What is lost is told in one line here; a checkpoint travels with its slice, whatever its size.
    settings = {"distributed.admin.large-graph-warning-threshold": "16GiB"}
    with (
        dask.config.set(settings),
        silence_logging_cmgr(logging.CRITICAL),
        _scheduler(place, refused) as (address, most),
    ):
        try:
            client = Client(address, set_as_default=False, timeout=_ANSWERS_S)
        # Whatever listens there.
        except Exception as error:
            raise LinksimError(
                f"no scheduler of dask answers at {place.text or place.kind} ({said(error, 120)})"
            ) from None
        with client:
            try:
                client.register_plugin(Deliver(delivery), name=f"linksim-{delivery.name}")
            except LinksimError:
                raise
            except Exception as error:
                raise LinksimError(
                    f"a worker cannot take part ({said(error)}): install linksim there as it is here"
                ) from None
            known = len(_workers(client))
            yield Pool(
                client.get_executor(pure=False),
                _AHEAD * most if most else max(_AT_LEAST, _AHEAD * known),
                functools.partial(evaluate_away, delivery.name),
                lambda: _waiting(client, refused),
            )


def _waiting(client: Any, refused: list[str]) -> str | None:
    """What there is to tell while nobody works. Raises LinksimError where the queue takes no jobs."""
    if _workers(client):
        return None
    if refused:
        raise LinksimError(f"the queue takes no jobs ({refused[-1]}): what is done is kept")
    return "waiting for a worker"


def _workers(client: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return found


@contextlib.contextmanager
def _scheduler(place: Place, refused: list[str]) -> Iterator[tuple[Any, int | None]]:
    """What a client connects to, and the workers that there will be at the most, where that is known.

    Args:
        refused: gets what a queue says of jobs that it does not take.
    """
    if place.kind in ("address", "file"):
        yield _address(place), None
    elif place.queue is None:
        from distributed import LocalCluster

        workers = int(place.text or available_cpus())
        with LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", host="127.0.0.1",
            scheduler_kwargs={"dashboard": False}, env=ONE_THREAD, silence_logs=logging.CRITICAL,
        ) as cluster:  # fmt: skip
            yield cluster, workers
    else:
        with tempfile.TemporaryDirectory(prefix=".linksim-cluster-", dir=Path.cwd()) as folder:
            cluster = _queue(place.kind, place.queue, Path(folder), refused)
            try:
                cluster.adapt(minimum_jobs=0, maximum_jobs=place.queue.jobs)
                yield cluster, place.queue.jobs
            finally:
                # Where jobs were refused, dask stumbles over them once more.
                with contextlib.suppress(Exception):
                    cluster.close()


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


def _queue(kind: str, asked: QueueParams, folder: Path, refused: list[str]) -> Any:
    """A cluster of dask-jobqueue: a job is one worker of one thread, and ends before its walltime does.

    Its scheduler listens beyond this machine, so it takes TLS, with keys that are made for it in `folder`, which the
    jobs have to see.
    """
    try:
        import dask_jobqueue
    except ImportError:
        raise LinksimError(_LACKS_DASK) from None
    hours, minutes = divmod(asked.seconds // 60, 60)
    options: dict[str, Any] = {"walltime": f"{hours:02d}:{minutes:02d}" + ("" if kind == "lsf" else ":00")}
    if asked.partition is not None:
        options["queue"] = asked.partition
    if asked.account is not None:
        options["project" if kind in ("lsf", "sge") else "account"] = asked.account
    if asked.gpu:
        options["job_extra_directives"] = [_GPU[kind].format(asked.gpu)]
    found: Any = getattr(dask_jobqueue, f"{kind.upper()}Cluster")
    kind_of_job: Any = found.job_cls

    class Job(kind_of_job):  # type: ignore[misc]
        async def _submit_job(self, script_filename: str) -> Any:
            try:
                return await super()._submit_job(script_filename)
            except Exception as error:
                refused.append(_last_line(str(error)))
                raise

    try:
        return found(
            job_cls=Job, cores=1, processes=1, memory=asked.memory, python=sys.executable, security=_keys(folder), protocol="tls://",
            local_directory=None, log_directory=str(folder),
            scheduler_options={"dashboard": False, "dashboard_address": ":0"}, silence_logs=logging.CRITICAL,
            death_timeout=120,
            job_script_prologue=[f"export {name}={value}" for name, value in ONE_THREAD.items()],
            worker_extra_args=["--no-dashboard", "--lifetime", f"{max(30, asked.seconds - _MARGIN_S)}s",
                               "--lifetime-stagger", "20s"],
            **options,
        )  # fmt: skip
    except (ImportError, ValueError, OSError, RuntimeError) as error:
        raise LinksimError(f"--cluster {kind}: {' '.join(str(error).split())[:200]}") from None
