"""A service on the processes of this machine, its weights loaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from linksim.engine.workers import ProcessPool, WorkerLost
from linksim.errors import LinksimError
from linksim.serve.service import Limits, Service
from linksim.serve.work import Served, Shape, warm


async def local(served: Served, workers: int, seed: int, limits: Limits, shape: Shape | None) -> AsyncIterator[Service]:
    """Yields a service once, and ends its processes behind it.

    Args:
        served: what is served.
        workers, shape: see `processes`.
        seed, limits: see `Service`.

    Raises:
        LinksimError: a process cannot load what is served.
    """
    async with processes(served, workers, shape) as pool:
        yield Service(served, pool, workers, seed, limits)


@asynccontextmanager
async def processes(served: Served, workers: int, shape: Shape | None) -> AsyncIterator[ProcessPool]:
    """Processes that have loaded what is served; another takes the place of one that ends.

    Args:
        served: what is served.
        workers: processes, of one thread each.
        shape: of the images that are expected, (C, H, W); None for any.

    Raises:
        LinksimError: a process cannot load what is served.
    """
    pool = ProcessPool(workers, first=(warm, (served, shape)), renew=True)
    try:
        await asyncio.gather(*map(asyncio.wrap_future, pool.ready))
        yield pool
    except WorkerLost as error:
        raise LinksimError(f"a process ended while it loaded its weights ({error}; out of memory?): fewer --workers "
                           "need less") from None  # fmt: skip
    finally:
        await asyncio.to_thread(pool.shutdown, True, cancel_futures=True)
