"""One way from images through a system to what each stage shows: sweeps, galleries and the server all take it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from threadpoolctl import threadpool_limits

from linksim.engine.audit import allowed_power, audit_symbols, power_note
from linksim.engine.context import FIRST
from linksim.errors import LinksimError
from linksim.link.config import SideInfo
from linksim.link.draws import KeyedDraws
from linksim.link.realisation import realise
from linksim.link.units import noise_variance
from linksim.refine.base import Steps, silent
from linksim.refine.behind import Refined
from linksim.schemes.base import Received, Reference, Scheme, System, check_images


@contextmanager
def one_thread() -> Iterator[None]:
    """Units run on one thread each on a CPU: the same sums in the same order with any number of workers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def _checked(received: object, shape: torch.Size, system: System) -> Received:
    def refuse(what: str) -> LinksimError:
        return LinksimError(f"scheme {system.name!r} returned {what}")

    if not isinstance(received, Received):
        raise refuse(f"{type(received).__name__}: return linksim.Received with a tensor of images")
    check_images(received.images, shape, f"scheme {system.name!r}")
    lost = received.lost
    if lost is not None and not isinstance(lost, torch.Tensor):
        raise refuse(f"`lost` of type {type(lost).__name__}: return a tensor of bool {list(shape[:2])}")
    if lost is not None and (lost.shape != shape[:2] or lost.dtype != torch.bool):
        raise refuse(f"`lost` of shape {list(lost.shape)} and type {lost.dtype}, bool {list(shape[:2])} is wanted")
    counts = (received.blocks, received.block_errors)
    if not all(isinstance(count, int) for count in counts) or not 0 <= received.block_errors <= received.blocks:
        raise refuse(
            f"{received.block_errors} errors in {received.blocks} blocks: give whole numbers, errors at most blocks"
        )
    clusters = received.block_clusters
    if clusters is not None and not _add_up(clusters, counts):
        raise refuse(
            f"`block_clusters` that do not add up to {received.block_errors} errors in {received.blocks} blocks: give "
            "one (blocks, block errors) for each run of image groups, in whole numbers"
        )
    return _copy(received)


def _copy(received: Received) -> Received:
    """The same, which no plug-in can reach any more."""
    lost = received.lost.clone() if received.lost is not None else None
    clusters = None if received.block_clusters is None else tuple(received.block_clusters)
    return replace(received, images=received.images.clone(), lost=lost, block_clusters=clusters)


def _add_up(clusters: object, counts: tuple[int, int]) -> bool:
    """Whether `clusters` are pairs of (blocks, block errors) in whole numbers that sum to `counts`."""
    try:
        pairs = [(blocks, errors) for blocks, errors in clusters]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return False
    whole = all(isinstance(count, int) for pair in pairs for count in pair)
    return (
        whole
        and all(0 <= errors <= blocks for blocks, errors in pairs)
        and counts
        == (
            sum(blocks for blocks, _ in pairs),
            sum(errors for _, errors in pairs),
        )
    )


@dataclass(frozen=True)
class Transferred:
    """Images as they were sent and received.

    Args:
        stages: what each stage shows, the first before the refined.
        symbols: what was sent, complex64 [B, N, k of a user]; None for a bound.
        tx_power: as measured; None for a bound.
        allowed_power: what the link allows in its place; None for a bound.
        channel_uses: of the system, for one group.
        user_uses: in which one user sends.
        split: shares of the power.
        power_note: what the row must say of the power.
        refinement: `steps`, evaluations of the refiner's network for an image, and what else the refiner says of
            itself; empty without a refiner.
        seconds: by stage of the work.
    """

    stages: dict[str, Received]
    symbols: torch.Tensor | None
    tx_power: float | None
    allowed_power: float | None
    channel_uses: int
    user_uses: int
    split: str
    power_note: str
    refinement: dict[str, float]
    seconds: dict[str, float]


def transfer(
    system: System,
    images: torch.Tensor,
    snr_db: Sequence[float],
    seed: int,
    groups: Sequence[int],
    report: Steps = silent,
    known: torch.Tensor | None = None,
) -> Transferred:
    """Sends the images of some groups and receives them.

    Args:
        system: what sends and receives, in its setting.
        images: float32 [B, N, C, H, W] in [0, 1].
        snr_db: gamma of each group, [B]. One for all, unless every part of the system takes each group's own.
        seed, groups: what the draws are keyed by.
        report: told the steps of a refinement, done and in all.
        known: what the system sent for the first of these groups before, complex64 [B', N, k]: those are not encoded
            again. Of a system whose symbols follow from images and SNR alone (`Scheme.symbols_follow_from`).

    Raises:
        LinksimError: the audit stopped the scheme, or it broke its contract. What a plug-in raises passes through.
    """
    setting = system.setting
    link, device = setting.link, setting.device
    clock = Clock()
    if not isinstance(system, Scheme | Reference):
        raise LinksimError(f"scheme {system.name!r} is neither a Scheme nor a Reference")
    channel = realise(link, KeyedDraws(seed, groups, device), system.symbols_per_user, system.access)
    gamma = torch.tensor(snr_db, dtype=torch.float32, device=device)
    noise_var = torch.tensor([noise_variance(snr) for snr in snr_db], dtype=torch.float32, device=device)
    # A bound is of ideal codes: it knows h.
    estimate = channel.estimate(0.0 if isinstance(system, Reference) else link.csi_error_var)
    side = SideInfo(gamma, noise_var, estimate, (seed, tuple(groups)))

    def told(some: Sequence[int] | None = None) -> SideInfo:
        """Side information of all groups, or of some, for one call. What a plug-in is handed is a copy: whatever it
        does to it stays its own."""
        return side.part(range(len(groups)) if some is None else some)

    clock.lap("load")
    note, split = "", ""
    symbols: torch.Tensor | None = None
    if isinstance(system, Reference):
        received = _checked(system.evaluate(images.clone(), told()), images.shape, system)
        tx_power, allowed = None, None
        uses, user_uses = setting.channel_uses, system.symbols_per_user
        clock.lap("reference")
    else:
        symbols = _sent(system, images, told, known)
        clock.lap("transmit")
        tx_power, uses = audit_symbols(system, symbols, len(groups))
        if symbols.shape[-1] > channel.h.shape[-1] > 1:
            raise LinksimError(
                f"scheme {system.name!r} sent {symbols.shape[-1]} symbols a user, its symbols_per_user is "
                f"{channel.h.shape[-1]}: over a channel that changes from symbol to symbol the latter counts"
            )
        allowed = allowed_power(system)
        user_uses = symbols.shape[-1]
        note = power_note(system)
        if system.access == "noma":
            split = "/".join(f"{share:.4g}" for share in system.split)
        signal = channel.through(symbols, noise_var)
        clock.lap("channel")
        received = _checked(system.receive(signal, told()), images.shape, system)
        clock.lap("receive")
    stages, refinement = {FIRST: received}, {}
    if isinstance(system, Refined):
        refiner = system.refiner
        refiner.load()
        clock.lap("load_refiner")
        shown = torch.empty_like(received.images, dtype=torch.float32)
        for snr in dict.fromkeys(snr_db):
            rows = [row for row, own in enumerate(snr_db) if own == snr]
            # Rows of a tensor by their numbers are a copy.
            part = replace(received, images=received.images[rows], lost=None)
            shown[rows] = _checked(system.refine(part, told(rows), report), part.images.shape, system).images.to(shown)
        stages[refiner.name] = replace(received, images=shown)
        steps = refiner.evaluations(snr_db[0])
        if not isinstance(steps, int) or steps < 0:
            raise LinksimError(f"refiner {refiner.name!r}: evaluations are counted in whole numbers, not {steps!r}")
        refinement = {"steps": steps, **refiner.facts(snr_db[0])}
        clock.lap("refine")
    return Transferred(stages, symbols, tx_power, allowed, uses, user_uses, split, note, refinement, clock.laps)


def _sent(
    system: Scheme, images: torch.Tensor, told: Callable[[Sequence[int]], SideInfo], known: torch.Tensor | None
) -> torch.Tensor:
    """Symbols of all groups; what is audited is what is sent: the scheme may still hold its own tensor."""
    first = 0 if known is None else len(known)
    if known is not None and first == len(images):
        return known
    sent = system.transmit(images[first:].clone(), told(range(first, len(images))))
    if not isinstance(sent, torch.Tensor):
        raise LinksimError(f"scheme {system.name!r} sent a {type(sent).__name__} in place of a tensor of symbols")
    return sent.clone() if known is None else torch.cat([known.to(sent), sent])


class Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
