"""The same service as replicas on Ray Serve, for where one machine is too small."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI

from linksim.devices import available_cpus
from linksim.errors import LinksimError, said, shown
from linksim.serve.app import Accepts, make_app
from linksim.serve.service import Limits, Service
from linksim.serve.work import Served, Shape, warm
from linksim.stopping import held, is_told, listen, stop_if_told

#: What the application is called on its cluster.
NAME = "linksim"

#: Seconds between being told to stop and letting nobody in any more.
_GRACE_SECONDS = 1.0

#: What Ray's processes read of a cluster of this machine's own. On a busy machine what does not answer in 5 or 10 s is
#: not broken, and replicas that give way to all else (nice 15 otherwise) take minutes to load.
_OWN = {
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    "RAY_worker_niceness": "0",
}

#: Seconds that the proxy of this machine has to answer, once replicas are there.
_ANSWERS_S = 300

#: Groups of one replica have numbers of their own, so that no two replicas have the same draws.
_GROUP_BITS = 48


def application(served: Served, shape: Shape | None, seed: int, limits: Limits, accepts: Accepts, replicas: int) -> Any:
    """The application for `serve.run`, or for a deployment of your own.

    A replica has one process of one thread, or a GPU, and gathers its own batches; a link's users meet in one replica.

    Args:
        served: what is served.
        shape: of the images that are expected, (C, H, W); None for any.
        seed, limits: see `Service`.
        accepts: what is let in.
        replicas: copies.

    Raises:
        LinksimError: Ray Serve is not installed.

    Example:
        >>> from linksim.engine.config import make_config
        >>> served = Served(make_config({"scheme": "klt", "users": 1, "groups": 1, "metrics": "psnr"}))
        >>> made = application(served, (3, 32, 32), 0, Limits(), Accepts(), replicas=2)  # doctest: +SKIP
    """
    _, serve = _ray()

    async def start() -> AsyncIterator[Service]:
        warm(served, shape)
        with ThreadPoolExecutor(1) as pool:
            yield Service(served, pool, 1, seed, limits, first_group=secrets.randbits(_GROUP_BITS))

    def build() -> FastAPI:
        return make_app(start, accepts)

    gpu = {} if served.device == "cpu" else {"num_gpus": 1}
    deployment = serve.deployment(serve.ingress(build)())
    return deployment.options(
        name="Link",
        num_replicas=replicas,
        # What a replica turns away itself says when to ask again.
        max_ongoing_requests=limits.queue + 64,
        graceful_shutdown_timeout_s=limits.timeout,
        ray_actor_options={"num_cpus": 1, **gpu},
    ).bind()


def check_address(address: str) -> None:
    """Raises LinksimError where nobody listens at ray://HOST:PORT: Ray itself waits for minutes."""
    _ray()
    found = re.fullmatch(r"ray://([^:/]+|\[[^\]]+\]):([0-9]{1,5})", address)
    if found is None:
        if address not in ("local", "auto") and not re.fullmatch(r"[^:/\s]+:[0-9]{1,5}", address):
            raise LinksimError(f"--ray {shown(address)}: give local, auto, HOST:PORT or ray://HOST:PORT")
        return
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise LinksimError(f"--ray {address}: nobody listens there ({error}): start a cluster with `ray start --head`, "
                           "or take --ray local") from None  # fmt: skip


def run(
    served: Served,
    shape: Shape | None,
    seed: int,
    limits: Limits,
    accepts: Accepts,
    address: str,
    replicas: int,
    host: str,
    port: int,
    ready: Callable[[], None],
) -> None:
    """Runs the service on a cluster of Ray until this process is told to stop.

    Args:
        served, shape, seed, limits, accepts, replicas: see `application`.
        address: `local` for a cluster of this machine's own, or what `ray.init` takes: `auto`, `ray://HOST:PORT`.
        host, port: of the cluster's proxies.
        ready: called when requests are taken.

    Raises:
        LinksimError: Ray Serve is not installed, there is no such cluster, or it does not get its proxies or replicas.
    """
    own = address == "local"
    if own:
        for name, value in _OWN.items():
            os.environ.setdefault(name, value)
    ray, serve = _ray()
    try:
        if own:
            ray.init(num_cpus=max(replicas, available_cpus()), include_dashboard=False, log_to_driver=False,
                     logging_level="error")  # fmt: skip
        else:
            ray.init(address=address, log_to_driver=False, logging_level="error")
    # ConnectionError and what else Ray raises where nobody answers.
    except Exception as error:
        raise LinksimError(f"--ray {shown(address)}: {said(error, 200)}: start a cluster with `ray start --head`, or "
                           "take --ray local") from None  # fmt: skip
    try:
        with held():
            made = application(served, shape, seed, limits, accepts, replicas)
            try:
                # It gives its proxies a minute, and goes on beginning them.
                with contextlib.suppress(TimeoutError):
                    serve.start(http_options={"host": host, "port": port}, logging_config={"log_level": "ERROR"})
                serve.run(made, name=NAME, route_prefix="/")
                if own:
                    _until_it_answers(host, port)
            # RuntimeError is of replicas, the others are of proxies.
            except (RuntimeError, TimeoutError, ray.exceptions.RayError) as error:
                raise LinksimError(
                    f"Ray Serve could not begin its proxy or {replicas} replicas: {said(error, 300)}"
                ) from None
            # Ray has its own handlers by now, which end the process at once.
            listen()
            ready()
            while not is_told():
                time.sleep(0.2)
            # What is on its way to a proxy is let in. It takes connections in their order: two more come behind all.
            time.sleep(_GRACE_SECONDS)
            if _asked(host, port, limits.timeout) is not None:
                _asked(host, port, limits.timeout)
            serve.delete(NAME)
    finally:
        with contextlib.suppress(Exception):
            if own:
                serve.shutdown()
            ray.shutdown()


def _until_it_answers(host: str, port: int) -> None:
    """Raises TimeoutError where requests do not come through the proxy of this machine after some minutes.

    A proxy that listens may not have heard yet of the application: it says 404.
    """
    end = time.monotonic() + _ANSWERS_S
    while _asked(host, port, 5) in (None, 404, 503):
        if time.monotonic() > end:
            raise TimeoutError(f"nothing answers at {host}:{port}")
        stop_if_told()
        time.sleep(0.2)


def _asked(host: str, port: int, timeout: float) -> int | None:
    """What a proxy says to one request for the application's health; None where it says nothing."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _ray() -> tuple[Any, Any]:
    try:
        import ray
        from ray import serve
    except ImportError:
        raise LinksimError('Ray Serve is not installed: pip install -e ".[serve]" in the clone') from None
    return ray, serve
