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
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from linksim.devices import ONE_THREAD, available_cpus
from linksim.engine.away import Delivery, evaluate_away
from linksim.engine.queues import LACKS_DASK, News, Queue, QueueParams, check_queue, queue_cluster
from linksim.engine.workers import Pool, without_main
from linksim.errors import LinksimError, said, shown, unknown
from linksim.grammar import settled, written_params
from linksim.stopping import deaf, held, stop_if_told

#: Seconds that a scheduler has to answer.
_ANSWERS_S = 20

#: Units on their way for each worker: one at work, one that waits, so that none is idle while answers travel.
_AHEAD = 2

#: Units on their way where nobody knows how many workers may come.
_AT_LEAST = 64


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
        check_queue(place.kind)


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
        raise LinksimError(LACKS_DASK) from None
    if Security().tls_ca_file is None:
        raise LinksimError(
            "tls://: dask knows no certificates here: name them in DASK_DISTRIBUTED__COMM__TLS__CA_FILE, and in "
            "..__TLS__CLIENT__CERT and ..__TLS__CLIENT__KEY"
        )


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
        raise LinksimError(LACKS_DASK) from None
    from linksim.engine.delivery import Deliver

    check_place(place)
    news = News()

    # What is lost is told in one line here; a checkpoint travels with its slice, whatever its size.
    settings = {"distributed.admin.large-graph-warning-threshold": "16GiB"}
    with (
        dask.config.set(settings),
        silence_logging_cmgr(logging.CRITICAL),
        _scheduler(place, news) as (address, most),
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
                lambda: _waiting(client, news),
            )


def _waiting(client: Any, news: News) -> str | None:
    """What there is to tell while nobody works. Raises LinksimError where a queue gives no workers."""
    if _workers(client):
        return None
    news.check()
    return "waiting for a worker"


def _workers(client: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return found


@contextlib.contextmanager
def _scheduler(place: Place, news: News) -> Iterator[tuple[Any, int | None]]:
    """What a client connects to, and the workers that there will be at the most, where that is known.

    Args:
        news: gets what becomes of a queue's jobs.
    """
    if place.kind in ("address", "file"):
        yield _address(place), None
    elif place.queue is None:
        from distributed import LocalCluster

        workers = int(place.text or available_cpus())
        # For as long as it is there: a process that is lost is begun anew.
        with without_main():
            # What is half begun cannot be ended cleanly.
            with held(), deaf():
                cluster = LocalCluster(
                    n_workers=workers, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0",
                    host="127.0.0.1", scheduler_kwargs={"dashboard": False}, env=ONE_THREAD,
                    silence_logs=logging.CRITICAL,
                )  # fmt: skip
            with cluster:
                stop_if_told()
                yield cluster, workers
    else:
        with queue_cluster(place.kind, place.queue, news) as cluster:
            yield cluster, place.queue.jobs
