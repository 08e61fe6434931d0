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
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from linksim.devices import ONE_THREAD, available_cpus
from linksim.engine.away import Delivery, evaluate_away
from linksim.engine.workers import Pool
from linksim.errors import LinksimError, said, shown, unknown
from linksim.grammar import settled, written_params

Queue = Literal["slurm", "pbs", "lsf", "sge"]

#: Seconds that a scheduler has to answer.
_ANSWERS_S = 20

#: Units on their way for each worker: one at work, one that waits, so that none is idle while answers travel.
_AHEAD = 2

#: Units on their way where nobody knows how many workers may come.
_AT_LEAST = 64

#: How a queue is asked for GPUs.
_GPU = {"slurm": "--gres=gpu:{}", "pbs": "-l ngpus={}", "lsf": '-gpu "num={}"', "sge": "-l gpu={}"}

#: Seconds before the end of a job in which its worker takes no more units.
_MARGIN_S = 120


class QueueParams(BaseModel):
    """What a queue is asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    jobs: int = Field(ge=1, le=10_000, description="jobs at the most, of one worker each")
    partition: str | None = Field(None, description="partition or queue")
    account: str | None = Field(None, description="whom it is charged to")
    time: str = Field("1h", pattern=r"^[0-9]+[mh]$", description="walltime of a job, like 90m or 2h")
    memory: str = Field("4GB", pattern=r"^[0-9]+(MB|GB)$", description="memory of a job")
    gpu: int = Field(0, ge=0, le=16, description="GPUs of a job")

    @property
    def seconds(self) -> int:
        """Walltime."""
        return int(self.time[:-1]) * (3600 if self.time.endswith("h") else 60)


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
        if not re.fullmatch(r"(tcp|tls)://\S+:[0-9]{1,5}", text):
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
        raise LinksimError('--cluster needs dask: pip install "linksim[cluster]"') from None
    from linksim.engine.delivery import Deliver

    # What is lost is told in one line here; a checkpoint travels with its slice, whatever its size.
    settings = {"distributed.admin.large-graph-warning-threshold": "16GiB"}
    with (
        dask.config.set(settings),
        silence_logging_cmgr(logging.CRITICAL),
        _scheduler(place) as (address, most),
    ):
        try:
            client = Client(address, set_as_default=False, timeout=_ANSWERS_S)
        except (OSError, TimeoutError, ValueError) as error:
            words = " ".join(str(error).split())[:120]
            raise LinksimError(
                f"no scheduler answers at {place.text or place.kind} ({words}): start it first"
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
                lambda: None if _workers(client) else "waiting for a worker",
            )


def _workers(client: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return found


@contextlib.contextmanager
def _scheduler(place: Place) -> Iterator[tuple[Any, int | None]]:
    """What a client connects to, and the workers that there will be at the most, where that is known."""
    if place.kind == "address":
        yield place.text, None
    elif place.kind == "file":
        # Of what a scheduler writes, its address is all that a client needs.
        try:
            yield json.loads(Path(place.text).read_text())["address"], None
        except (OSError, ValueError, KeyError, TypeError):
            raise LinksimError(
                f"{place.text} is no file of a dask scheduler: give what --scheduler-file wrote"
            ) from None
    elif place.queue is None:
        from distributed import LocalCluster

        workers = int(place.text or available_cpus())
        with LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1",
            env=ONE_THREAD, silence_logs=logging.CRITICAL,
        ) as cluster:  # fmt: skip
            yield cluster, workers
    else:
        with (
            tempfile.TemporaryDirectory(prefix=".linksim-cluster-", dir=Path.cwd()) as folder,
            _queue(place.kind, place.queue, Path(folder)) as cluster,
        ):
            cluster.adapt(minimum_jobs=0, maximum_jobs=place.queue.jobs)
            yield cluster, place.queue.jobs


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


def _queue(kind: str, asked: QueueParams, folder: Path) -> Any:
    """A cluster of dask-jobqueue: a job is one worker of one thread, and ends before its walltime does.

    Its scheduler listens beyond this machine, so it takes TLS, with keys that are made for it in `folder`, which the
    jobs have to see.
    """
    try:
        import dask_jobqueue
    except ImportError:
        raise LinksimError('--cluster needs dask-jobqueue: pip install "linksim[cluster]"') from None
    hours, minutes = divmod(asked.seconds // 60, 60)
    options: dict[str, Any] = {"walltime": f"{hours:02d}:{minutes:02d}" + ("" if kind == "lsf" else ":00")}
    if asked.partition is not None:
        options["queue"] = asked.partition
    if asked.account is not None:
        options["project" if kind in ("lsf", "sge") else "account"] = asked.account
    if asked.gpu:
        options["job_extra_directives"] = [_GPU[kind].format(asked.gpu)]
    found = getattr(dask_jobqueue, f"{kind.upper()}Cluster")
    try:
        return found(
            cores=1, processes=1, memory=asked.memory, python=sys.executable, security=_keys(folder), protocol="tls://",
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
