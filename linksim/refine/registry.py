"""Refiners by name, found through the entry-point group `linksim.refiners`."""

from __future__ import annotations

import functools
from importlib.metadata import entry_points

from linksim.errors import LinksimError, unknown
from linksim.refine.base import Refiner

GROUP = "linksim.refiners"


@functools.cache
def _points() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=GROUP)}


def names() -> list[str]:
    """Every known name, sorted."""
    return sorted(_points())


@functools.cache
def find(name: str) -> type[Refiner]:
    """The class behind a name. Raises LinksimError: unknown name, or a plug-in that does not import."""
    if name not in _points():
        raise unknown("refiner", name, names())
    point = next(point for point in entry_points(group=GROUP) if point.name == name)
    try:
        refiner = point.load()
    except (Exception, SystemExit) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise LinksimError(f"the plug-in of refiner {name!r} ({point.value}) does not import: {said}") from error
    if not (isinstance(refiner, type) and issubclass(refiner, Refiner)):
        raise LinksimError(f"the plug-in of refiner {name!r} ({point.value}) is no linksim Refiner")
    return refiner
