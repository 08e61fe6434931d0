"""What a sweep consists of: points, and units of work in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from linksim.engine.config import SweepConfig
from linksim.engine.variants import Variant, expand
from linksim.errors import LinksimError, shown

#: Image groups of a unit, by the largest image side it is for. Fixed, so that a batch never depends on the machine.
_UNIT_GROUPS = ((64, 64), (256, 4))
_UNIT_GROUPS_LARGE = 2


@dataclass(frozen=True)
class Point:
    """One point of a curve: a scheme variant over a channel at a bandwidth ratio and an SNR."""

    variant: Variant
    channel: str
    rho: Fraction
    snr_db: float

    @property
    def key(self) -> str:
        """Names the point in the journal."""
        return f"{self.variant.key}|{self.channel}|{self.rho}|{self.snr_db!r}"


@dataclass(frozen=True)
class Unit:
    """A point and a fixed run of image groups [start, stop): the grain of work, journal and resume."""

    point: Point
    start: int
    stop: int

    @property
    def key(self) -> tuple[str, int, int]:
        """Names the unit in the journal."""
        return self.point.key, self.start, self.stop


@dataclass(frozen=True)
class Plan:
    """The points of a sweep and the runs of groups that each goes through, in order.

    Args:
        points: every point that is simulated.
        derived: envelope variants and the variants that each picks from.
        runs: [start, stop) of each unit; with `until` a point may end after fewer.
        groups: image groups a point has at the most.
        available: image groups of the data set.
        multiple: every run but the last begins and ends at one of these (code blocks that span groups).
    """

    points: tuple[Point, ...]
    derived: dict[Variant, list[Variant]]
    runs: tuple[tuple[int, int], ...]
    groups: int
    available: int
    multiple: int

    def units(self, point_major: bool = False) -> Iterator[Unit]:
        """Every unit. By runs first, so that a sweep cut short has all its points to the same depth, unless
        `point_major`, which ends one point before the next begins, but for the first run: by then it is known what each
        point takes."""
        if point_major:
            yield from (Unit(point, *run) for run in self.runs[:1] for point in self.points)
            yield from (Unit(point, *run) for point in self.points for run in self.runs[1:])
        else:
            yield from (Unit(point, *run) for run in self.runs for point in self.points)


def unit_groups(image_shape: tuple[int, int, int]) -> int:
    """Image groups of a unit for images of this shape."""
    side = max(image_shape[1:])
    return next((groups for largest, groups in _UNIT_GROUPS if side <= largest), _UNIT_GROUPS_LARGE)


def make_plan(config: SweepConfig, available: int, image_shape: tuple[int, int, int], multiple: int = 1) -> Plan:
    """The plan of `config` on a data set of `available` image groups.

    Args:
        multiple: units are a multiple of this many groups (code blocks that span groups).

    Raises:
        LinksimError: more groups asked for than there are.
    """
    for name, asked in (("--groups", config.groups), ("--max-groups", config.max_groups)):
        if asked is not None and asked > available:
            raise LinksimError(
                f"{name} {asked}: {config.dataset} has {available} groups of {config.users} users: take that or fewer"
            )
    groups = config.groups or config.max_groups or available
    if config.until and groups < config.least_groups:
        raise LinksimError(f"--min-groups {config.least_groups}: only {groups} groups are at hand: take that or fewer")
    size = -(-unit_groups(image_shape) // multiple) * multiple
    variants, derived = expand(config.variants)
    points = tuple(
        Point(variant, channel, rho, snr_db)
        for variant in variants
        for channel in config.channel
        for rho in config.rhos
        for snr_db in config.snr
    )
    runs = tuple((start, min(start + size, groups)) for start in range(0, groups, size))
    return Plan(points, derived, runs, groups, available, multiple)


def in_shard(unit_index: int, point_index: int, shard: tuple[int, int], by_point: bool) -> bool:
    """Whether shard (i, n) works on a unit. Whole points where a stopping rule must see all units of a point."""
    index, count = shard
    return (point_index if by_point else point_index + unit_index) % count == index


def parse_shard(text: str) -> tuple[int, int]:
    """`i/n` with i in 0..n-1. Raises LinksimError."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise LinksimError(f"--shard {shown(text)}: write i/n with i from 0 to n-1, like 0/7")
    return int(match[1]), int(match[2])
