"""How fast the service is, mechanism by mechanism, against one request after the other (GSC paper, table I)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linksim.data import ImageSet
from linksim.engine import provenance
from linksim.files import write_atomic
from linksim.serve.service import Answer, Asked, Limits, Service
from linksim.serve.start import processes
from linksim.serve.work import Served, Shape

#: Of what a bench draws: which images come again.
_SEED = 0


@dataclass(frozen=True)
class Row:
    """One mechanism more than the row before; the last stands by itself.

    Args:
        mechanism: what was added.
        images: that were sent.
        images_s: a second.
        p50_ms, p95_ms: from a request to its answer.
        ratio: of `images_s` to that of the first row.
        batch: images worked on at once, the mean.
        cached: share of answers that a cache helped.
        psnr_db: of the last stage, the mean over images.
        difference_db: the largest of an image's PSNR from that of the first row; of reused answers it is none.
    """

    mechanism: str
    images: int
    images_s: float
    p50_ms: float
    p95_ms: float
    ratio: float
    batch: float
    cached: float
    psnr_db: float
    difference_db: float | None


@dataclass(frozen=True)
class Load:
    """What a bench asks for.

    Args:
        clients: users who ask at once; each asks again when it has its answer.
        requests: of each.
        recurrence: share of requests whose image was sent before.
        snr_db: gamma.
        seed: of the draws.
    """

    clients: int
    requests: int
    recurrence: float
    snr_db: float
    seed: int


async def bench(
    served: Served,
    data: ImageSet,
    shape: Shape,
    workers: int,
    limits: Limits,
    load: Load,
    report: Callable[[str], None],
) -> list[Row]:
    """Sends the same images with the same draws through every row's service; weights are loaded before.

    Args:
        served: what is served; its first scheme and channel are measured.
        data: whose images are sent.
        shape: (C, H, W) of the images.
        workers: processes of the rows with a pool.
        limits: of the last rows; those before have a part of them.
        load: see there.
        report: told what is at work.

    Returns:
        Rows: sequential, + async, + batching, + pool, + cache of symbols, and reused answers apart.

    Raises:
        LinksimError: a process cannot load what is served.
    """
    users = served.link(served.config.variants[0], served.config.channel[0]).users
    images = chosen(data, shape, load.clients * load.requests, users, load.recurrence)
    cached = replace(limits, queue=max(limits.queue, 2 * load.clients * users), timeout=86_400.0, reuse_delivered=0)
    many = replace(cached, symbols_bytes=0)
    one = replace(many, batch=users, wait=0.0 if users == 1 else many.wait)
    rows: list[Row] = []
    first: NDArray[np.float64] | None = None
    async with processes(served, 1, shape) as alone, processes(served, workers, shape) as pool:
        for mechanism, at_once, by, count, values in [
            ("sequential", 1, alone, 1, one),
            ("+ async", load.clients, alone, 1, one),
            ("+ batching", load.clients, alone, 1, many),
            ("+ pool", load.clients, pool, workers, many),
            ("+ cache of symbols", load.clients, pool, workers, cached),
            ("reused answers (no channel)", load.clients, pool, workers, replace(cached, reuse_delivered=len(images))),
        ]:
            report(f"{mechanism}: {len(images)} images, {at_once} at once, {count} processes")
            service = Service(served, by, count, load.seed, values)
            answers, seconds, took = await _row(service, images, users, at_once, load)
            psnr = np.array([answer.stages[-1].values["psnr_db"] for answer in answers])
            first = psnr if first is None else first
            speed = len(answers) / seconds
            rows.append(
                Row(
                    mechanism=mechanism,
                    images=len(answers),
                    images_s=speed,
                    p50_ms=1e3 * float(np.percentile(took, 50)),
                    p95_ms=1e3 * float(np.percentile(took, 95)),
                    ratio=speed / (rows[0].images_s if rows else speed),
                    batch=float(np.mean([answer.batch for answer in answers])),
                    cached=float(np.mean([answer.symbols_cached or answer.delivered_cached for answer in answers])),
                    psnr_db=float(psnr.mean()),
                    difference_db=None if values.reuse_delivered else float(np.abs(psnr - first).max()),
                )
            )
    return rows


async def _row(
    service: Service, images: NDArray[np.uint8], users: int, at_once: int, load: Load
) -> tuple[list[Answer], float, list[float]]:
    """Answers in the order of the images, seconds in all, and from request to answer."""
    config = service.served.config
    took = [0.0] * len(images)
    answers: list[Answer | None] = [None] * len(images)

    async def ask(number: int) -> None:
        begin = time.perf_counter()
        group, user = divmod(number, users)
        asked = Asked(images[number], config.variants[0], config.channel[0], load.snr_db, load.seed, group, user)
        if service.limits.reuse_delivered:
            # Who asks for draws of its own has them.
            asked = replace(asked, seed=None, group=None, user=None)
        answers[number] = await service.answer(asked)
        took[number] = time.perf_counter() - begin

    # Users of one link send at once by the nature of things: one after the other are groups.
    waiting = iter(range(0, len(images), users))

    async def client() -> None:
        for number in waiting:
            await asyncio.gather(*(ask(number + user) for user in range(users)))

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(-(-at_once // users))))
    seconds = time.perf_counter() - begin
    return [answer for answer in answers if answer is not None], seconds, took


def chosen(data: ImageSet, shape: Shape, count: int, users: int, recurrence: float) -> NDArray[np.uint8]:
    """Images in the order in which they are sent, uint8 [count rounded up to whole groups, C, H, W].

    A share `recurrence` of the groups is one that was sent before.

    Example:
        >>> from linksim.data import load_dataset
        >>> found = chosen(load_dataset("cifar10-mini"), (3, 32, 32), 100, 1, 0.5)
        >>> len(found), len(np.unique(found, axis=0)) in range(40, 61)
        (100, True)
    """
    from PIL import Image

    draws = np.random.default_rng(_SEED)
    groups = -(-count // users)
    order: list[int] = []
    fresh = 0
    for number in range(groups):
        if number and draws.random() < recurrence:
            order.append(order[draws.integers(number)])
        else:
            order.append(fresh)
            fresh += 1
    indices = (np.array(order)[:, None] * users + np.arange(users)).ravel() % len(data)
    images = np.asarray(data.images[indices])
    if images.shape[1:] == shape:
        return images
    return np.stack([
        np.asarray(Image.fromarray(image.transpose(1, 2, 0)).resize((shape[2], shape[1]))).transpose(2, 0, 1)
        for image in images
    ])  # fmt: skip


def text(rows: Sequence[Row]) -> str:
    """The rows as a table."""
    head = ["mechanism", "images/s", "p50 ms", "p95 ms", "ratio", "batch", "cached", "PSNR dB", "largest difference dB"]
    lines = [head]
    for row in rows:
        difference = "-" if row.difference_db is None else f"{row.difference_db:.1e}"
        lines.append([
            row.mechanism, f"{row.images_s:.1f}", f"{row.p50_ms:.0f}", f"{row.p95_ms:.0f}", f"{row.ratio:.2f}",
            f"{row.batch:.1f}", f"{row.cached:.0%}", f"{row.psnr_db:.2f}", difference,
        ])  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )  # fmt: skip


def write(
    folder: Path,
    rows: Sequence[Row],
    served: Served,
    data: ImageSet,
    settings: Mapping[str, Any],
) -> None:
    """Writes `serve.csv`, `serve.txt` and `run.json`.

    Args:
        settings: of the bench, for the provenance.
    """
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    facts = {"dataset": data.name, "sha256": data.fingerprint, "citation": data.citation}
    run = provenance.make_run(served.config, dict(settings), provenance.command_line(), data=facts)
    run["bench"] = dict(settings)
    run["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    provenance.write_run(folder, run)
    write_atomic(folder / "serve.csv", pd.DataFrame([asdict(row) for row in rows]).to_csv(index=False).encode())
    write_atomic(folder / "serve.txt", (text(rows) + "\n").encode())
