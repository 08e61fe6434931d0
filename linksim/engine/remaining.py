"""How long a sweep has still to go, from what its units took so far."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from statistics import fmean, median

from linksim.engine.plan import Point, Unit
from linksim.engine.variants import Variant

#: Units a worker that are done before anything is said: the first ones pay for what all share.
_FIRST = 2

#: Units of a curve whose times count: the last ones.
_LAST = 15


class Remaining:
    """The time that is left: for each scheme the median of its units' times, since they differ by far.

    Args:
        workers: that share the work; None where nobody knows, as on a cluster: then what they do shows it.

    Example:
        >>> from fractions import Fraction
        >>> point = Point(Variant("klt"), "awgn", Fraction(1, 6), 10.0)
        >>> remaining = Remaining(workers=2)
        >>> for _ in range(4):
        ...     remaining.add(Unit(point, 0, 64), 3.0)
        >>> remaining.seconds({point: 10})
        15.0
    """

    def __init__(self, workers: int | None) -> None:
        self._workers, self._began = workers, time.monotonic()
        self._taken: dict[Variant, list[float]] = defaultdict(list)
        self._units, self._busy = 0, 0.0

    def add(self, unit: Unit, seconds: float) -> None:
        """Tells what a unit took, without what its process loaded first."""
        self._units, self._busy = self._units + 1, self._busy + seconds
        self._taken[unit.point.variant] = [*self._taken[unit.point.variant], seconds][-_LAST:]

    def seconds(self, left: Mapping[Point, int]) -> float | None:
        """Of wall time; None where it is too early to say.

        Args:
            left: units of each point that are not done.
        """
        at_once = self._workers or max(self._busy / max(time.monotonic() - self._began, 1e-9), 1.0)
        if self._units < _FIRST * at_once:
            return None
        usual = {variant: median(taken) for variant, taken in self._taken.items()}
        unknown = fmean(usual.values())
        return sum(units * usual.get(point.variant, unknown) for point, units in left.items()) / at_once
