"""The plug-in that hands a dask worker what a sweep needs, when it begins and to those that come later."""

from __future__ import annotations

from distributed import Worker, WorkerPlugin

from linksim.devices import keep_freed_memory
from linksim.engine.away import Delivery, receive
from linksim.errors import LinksimError


class Deliver(WorkerPlugin):  # type: ignore[misc]
    """Puts a delivery into a worker's cache.

    Args:
        delivery: what travels.
    """

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def setup(self, worker: Worker) -> None:
        """See `distributed.WorkerPlugin`. Raises LinksimError where the worker cannot take part."""
        if worker.state.nthreads != 1:
            raise LinksimError(
                f"a worker has {worker.state.nthreads} threads, and units change settings of their whole process: "
                "start it with --nthreads 1"
            )
        keep_freed_memory()
        receive(self._delivery)
