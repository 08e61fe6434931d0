"""Requests of many users, gathered into image groups and batches, and handed to a pool of processes."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Coroutine, Hashable, Sequence
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from linksim.engine.variants import Variant
from linksim.engine.workers import WorkerLost
from linksim.errors import LinksimError, said
from linksim.serve.caches import Symbols, digest_of
from linksim.serve.work import Job, Outcome, Served, Shape, Shown, run, stand_in


class Turned(LinksimError):
    """A request that is turned away.

    Args:
        message: one line.
        status: of HTTP.
        retry_after: seconds after which it may be asked again; None where that does not help.
    """

    def __init__(self, message: str, status: int, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


@dataclass(frozen=True)
class Asked:
    """One user's image and the link that it goes over.

    Args:
        image: uint8 [C, H, W].
        variant, channel: of what is served.
        snr_db: gamma.
        seed, group: of the draws; None takes the service's own seed and its next group.
        user: the seat in the group; None takes a free one.
        floats: whether images are wanted as float32, too.
    """

    image: NDArray[np.uint8]
    variant: Variant
    channel: str
    snr_db: float
    seed: int | None = None
    group: int | None = None
    user: int | None = None
    floats: bool = False


@dataclass(frozen=True)
class Answer:
    """What came of one request.

    Args:
        stages: what each stage shows.
        seed, group, user: that its draws are keyed by; asked for again, they bring the same answer.
        users: of the link.
        stand_ins: seats of the group that nobody had taken, and an embedded image was sent from.
        channel_uses: of the system, for the group.
        batch: images that were worked on at once.
        symbols_cached: whether what was sent was known from before.
        delivered_cached: whether no channel was used at all: an earlier answer was given again.
        waited, worked: seconds until the batch began, and that it took.
    """

    stages: tuple[Shown, ...]
    seed: int
    group: int
    user: int
    users: int
    stand_ins: int
    channel_uses: int
    batch: int
    symbols_cached: bool
    delivered_cached: bool
    waited: float
    worked: float


@dataclass(frozen=True)
class Limits:
    """How requests are gathered, and how many there may be.

    Args:
        batch: images that are worked on at once, at the most.
        wait: seconds that a request waits for others, at the most, while a process is free.
        queue: requests that wait or are worked on, at the most; more are turned away.
        timeout: seconds after which a request is given up.
        symbols_bytes: of the cache of what was sent; 0 keeps none.
        reuse_delivered: answers that are kept and given again for the same image, scheme, channel and SNR, without a
            channel; 0 keeps none.
    """

    batch: int = 16
    wait: float = 0.005
    queue: int = 512
    timeout: float = 60.0
    symbols_bytes: int = 64 << 20
    reuse_delivered: int = 0


class Counts:
    """What `/metrics` tells, in Prometheus' own terms."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter("linksim_requests", "Requests by their outcome", ["scheme", "channel", "outcome"],
                                registry=own)  # fmt: skip
        self.seconds = Histogram("linksim_request_seconds", "From request to answer", ["scheme", "channel"],
                                 registry=own)  # fmt: skip
        self.batch = Histogram("linksim_batch_images", "Images worked on at once", registry=own,
                               buckets=(1, 2, 4, 8, 16, 32, 64, 128))  # fmt: skip
        self.inside = Gauge("linksim_requests_inside", "Requests that wait or are worked on", registry=own)
        self.cached = Counter("linksim_cached", "Requests that a cache helped", ["cache"], registry=own)
        self.lost = Counter("linksim_processes_lost", "Processes that ended at work", registry=own)


@dataclass(eq=False)
class _Seat:
    asked: Asked
    future: asyncio.Future[Answer]
    came: float


@dataclass(eq=False)
class _Group:
    """Seats of one link; full, or not yet."""

    seats: list[_Seat | None]
    seed: int
    number: int
    born: float

    @property
    def users(self) -> list[int]:
        """Seats that are taken."""
        return [user for user, seat in enumerate(self.seats) if seat is not None]

    @property
    def taken(self) -> list[_Seat]:
        """Who has them."""
        return [seat for seat in self.seats if seat is not None]

    @property
    def snr_db(self) -> float:
        """gamma of its link."""
        return self.taken[0].asked.snr_db

    @property
    def waits(self) -> bool:
        """Whether anybody still does."""
        return any(not seat.future.done() for seat in self.taken)

    def images(self, shape: Shape) -> NDArray[np.uint8]:
        """What is sent, uint8 [N, C, H, W]."""
        own = [None if seat is None else seat.asked.image for seat in self.seats]
        return np.stack(
            [stand_in(self.number, user, shape) if image is None else image for user, image in enumerate(own)]
        )


@dataclass(frozen=True)
class _Batch:
    """A job, and whose it is.

    Args:
        groups: in the job's order.
        known: how many of them need no encoder.
        keys: of the symbols of the others.
        began: when.
    """

    job: Job
    groups: Sequence[_Group]
    known: int
    keys: Sequence[Sequence[Hashable] | None]
    began: float


class Service:
    """Gathers requests, and answers them; of one event loop.

    Requests of the same link become an image group of N users. A group whose seats are not all taken when `wait` is
    over is sent with embedded images on the free ones. Groups of one scheme, channel and size become a batch.

    Args:
        served: what is served.
        pool: takes `run(served, job)` and gives a future.
        workers: jobs that the pool works on at once.
        seed: of the draws of requests that name none.
        limits: see there.
        first_group: number of the first group whose request names none.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from linksim.engine.config import make_config
        >>> served = Served(make_config({"scheme": "klt", "users": 1, "metrics": "psnr", "groups": 1}))
        >>> async def main():
        ...     service = Service(served, ThreadPoolExecutor(1), 1, seed=0)
        ...     image = stand_in(0, 0, (3, 32, 32))
        ...     return await service.answer(Asked(image, served.config.variants[0], "awgn", 10.0))
        >>> round(asyncio.run(main()).stages[0].values["psnr_db"])
        27
    """

    def __init__(
        self,
        served: Served,
        pool: Executor,
        workers: int,
        seed: int,
        limits: Limits | None = None,
        first_group: int = 0,
    ) -> None:
        self.served, self.seed, self.limits, self.counts = served, seed, limits or Limits(), Counts()
        self._pool, self._workers, self._free = pool, workers, workers
        self._forming: dict[Hashable, _Group] = {}
        self._lines: dict[Hashable, deque[_Group]] = {}
        self._next, self._inside = first_group, 0
        self._seconds_an_image = 0.05
        self._timer: asyncio.TimerHandle | None = None
        self._symbols = Symbols(served, self.limits.symbols_bytes)
        self._delivered: LRUCache[Hashable, Answer] = LRUCache(max(1, self.limits.reuse_delivered))
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, asked: Asked) -> Answer:
        """One request.

        Raises:
            Turned: too many requests, too long a wait, images that do not fit, or a process that ended.
        """
        names = (asked.variant.label, asked.channel)
        begin = time.perf_counter()
        outcome = "failed"
        try:
            found = await self._answer(asked)
            outcome = "answered"
            return found
        except Turned as error:
            outcome = {429: "turned away", 504: "too late"}.get(error.status, "failed")
            raise
        finally:
            self.counts.requests.labels(*names, outcome).inc()
            if outcome == "answered":
                self.counts.seconds.labels(*names).observe(time.perf_counter() - begin)

    async def _answer(self, asked: Asked) -> Answer:
        users = self.served.link(asked.variant, asked.channel).users
        if asked.user is not None and not 0 <= asked.user < users:
            raise Turned(f"user {asked.user}: there are users 0 to {users - 1}", 422)
        anyhow = asked.seed is None and asked.group is None and asked.user is None
        key = self._delivered_key(asked) if self.limits.reuse_delivered and anyhow else None
        if key is not None and (kept := self._delivered.get(key)) is not None:
            self.counts.cached.labels("delivered").inc()
            return replace(kept, delivered_cached=True, waited=0.0, worked=0.0)
        self.check_room()
        seat = _Seat(asked, asyncio.get_running_loop().create_future(), time.perf_counter())
        self._take(1)
        try:
            self._seat(seat, users)
            async with asyncio.timeout(self.limits.timeout):
                found = await seat.future
        except TimeoutError:
            raise Turned(f"not done within {self.limits.timeout:g} s: ask again later", 504) from None
        finally:
            seat.future.cancel()
            self._take(-1)
        if key is not None:
            self._delivered[key] = found
        return found

    def check_room(self, more: int = 0) -> None:
        """Raises Turned where no further request fits in, beside `more` that are on their way."""
        if self._inside + more >= self.limits.queue:
            seconds = math.ceil(self._inside * self._seconds_an_image / self._workers)
            raise Turned(f"{self._inside} requests wait already: ask again later", 429, max(1, seconds))

    def _take(self, change: int) -> None:
        self._inside += change
        self.counts.inside.set(self._inside)

    def _seat(self, seat: _Seat, users: int) -> None:
        """Gives a request its place in a group; a full group goes into its line."""
        asked = seat.asked
        key = (asked.variant, asked.channel, asked.snr_db, asked.image.shape, asked.seed, asked.group)
        group = self._forming.get(key)
        if group is not None and asked.user is not None and group.seats[asked.user] is not None:
            # Another who asks for the same draws has a link of its own.
            self._formed(key, group)
            group = None
        if group is None:
            seed = self.seed if asked.seed is None else asked.seed
            number = self._next if asked.group is None else asked.group
            self._next += asked.group is None
            group = self._forming[key] = _Group([None] * users, seed, number, seat.came)
            if users > 1:
                asyncio.get_running_loop().call_later(self.limits.wait, self._formed, key, group)
        group.seats[group.seats.index(None) if asked.user is None else asked.user] = seat
        if None not in group.seats:
            self._formed(key, group)

    def _formed(self, key: Hashable, group: _Group) -> None:
        """Puts a group into its line, with whoever has come."""
        if self._forming.get(key) is not group:
            return
        del self._forming[key]
        asked = next(seat.asked for seat in group.seats if seat is not None)
        gamma = None if self.served.mixes(asked.variant) else asked.snr_db
        line = (asked.variant, asked.channel, asked.image.shape, group.seed, gamma)
        self._lines.setdefault(line, deque()).append(group)
        self._pump()

    def _pump(self) -> None:
        """Hands the pool what is ready, as long as a process is free."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now, soonest = time.perf_counter(), math.inf
        for key, line in list(self._lines.items()):
            while line and not line[0].waits:
                line.popleft()
            if not line:
                del self._lines[key]
        # Whoever has waited longest goes first, whatever the line.
        for key, line in sorted(self._lines.items(), key=lambda item: item[1][0].born):
            while self._free and line:
                most = max(1, self.limits.batch // len(line[0].seats))
                left = self.limits.wait - (now - line[0].born)
                if len(line) < most and left > 0:
                    soonest = min(soonest, left)
                    break
                groups = [line.popleft() for _ in range(min(most, len(line)))]
                if groups := [group for group in groups if group.waits]:
                    self._free -= 1
                    self._start(self._work(groups))
            if not line:
                del self._lines[key]
        if soonest < math.inf and self._free:
            self._timer = asyncio.get_running_loop().call_later(soonest, self._pump)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, groups: Sequence[_Group]) -> None:
        """One batch; where it fails its groups go once more, each alone, so that none fails for another."""
        try:
            if not await self._try(groups, last=len(groups) == 1):
                for group in groups:
                    await self._try([group], last=True)
        finally:
            self._free += 1
            self._pump()

    async def _try(self, groups: Sequence[_Group], last: bool) -> bool:
        """Whether these groups are settled, well or not; where it is not their `last` time, failures do not count."""
        for attempt in (0, 1):
            try:
                batch = self._batch(groups)
                outcome: Outcome = await asyncio.wrap_future(self._pool.submit(run, self.served, batch.job))
            except asyncio.CancelledError:
                raise
            except (WorkerLost, BrokenExecutor) as error:
                self.counts.lost.inc()
                if last and attempt:
                    self._fail(groups, Turned(f"the process at work ended ({error}): ask again later", 503, 1))
            except Exception as error:
                if last:
                    known = isinstance(error, LinksimError)
                    self._fail(groups, Turned(str(error) if known else said(error), 422 if known else 500))
                return last
            else:
                self._settle(batch, outcome)
                return True
            if not last:
                return False
        return True

    @staticmethod
    def _fail(groups: Sequence[_Group], error: Turned) -> None:
        for group in groups:
            for seat in group.taken:
                if not seat.future.done():
                    seat.future.set_exception(error)

    def _batch(self, groups: Sequence[_Group]) -> _Batch:
        """The job of some groups; those that need no encoder come first."""
        asked = groups[0].taken[0].asked
        images = {group: group.images(asked.image.shape) for group in groups}
        keys = {
            group: self._symbols.keys(asked.variant, asked.channel, group.snr_db, images[group]) for group in groups
        }
        sent = {group: self._symbols.known(keys[group]) for group in groups}
        ordered = sorted(groups, key=lambda group: sent[group] is None)
        known = [symbols for group in ordered if (symbols := sent[group]) is not None]
        job = Job(
            asked.variant,
            asked.channel,
            np.stack([images[group] for group in ordered]),
            tuple(group.snr_db for group in ordered),
            ordered[0].seed,
            tuple(group.number for group in ordered),
            tuple((row, user) for row, group in enumerate(ordered) for user in group.users),
            np.stack(known) if known else None,
            any(seat.asked.floats for group in groups for seat in group.taken),
        )
        return _Batch(job, ordered, len(known), [keys[group] for group in ordered[len(known) :]], time.perf_counter())

    def _settle(self, batch: _Batch, outcome: Outcome) -> None:
        worked = time.perf_counter() - batch.began
        job = batch.job
        size = job.images.shape[0] * job.images.shape[1]
        self._seconds_an_image += 0.1 * (worked / size - self._seconds_an_image)
        self.counts.batch.observe(size)
        if outcome.symbols is not None:
            for keys, symbols in zip(batch.keys, outcome.symbols, strict=True):
                self._symbols.keep(keys, symbols)
        for (row, user), shown in zip(job.seats, outcome.shown, strict=True):
            group = batch.groups[row]
            seat, cached = group.seats[user], row < batch.known
            if seat is None or seat.future.done():
                continue
            if cached:
                self.counts.cached.labels("symbols").inc()
            answer = Answer(
                shown, group.seed, group.number, user, len(group.seats), group.seats.count(None), outcome.channel_uses,
                size, cached, False, batch.began - seat.came, worked,
            )  # fmt: skip
            seat.future.set_result(answer)

    @staticmethod
    def _delivered_key(asked: Asked) -> Hashable:
        return asked.variant, asked.channel, asked.snr_db, asked.image.shape, digest_of(asked.image), asked.floats

    async def drain(self) -> None:
        """Waits until all that came is answered; what nobody waits for any more is left."""
        while self._inside:
            await asyncio.sleep(0.02)
