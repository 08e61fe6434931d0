"""Refiners by name: found through the entry-point group `linksim.refiners`, or registered from Python."""

from __future__ import annotations

import functools
import re
from importlib.metadata import EntryPoint, entry_points

from linksim.errors import LinksimError, unknown
from linksim.refine.base import Refiner

GROUP = "linksim.refiners"

_registered: dict[str, type[Refiner]] = {}


def register(refiner: type[Refiner]) -> type[Refiner]:
    """Adds a refiner for this process (a notebook, a test); installed plug-ins use an entry point.

    Worker processes cannot see it: run it with one worker. Raises LinksimError when the name is taken.
    """
    if not (isinstance(refiner, type) and issubclass(refiner, Refiner)):
        raise LinksimError(f"{refiner!r} is no linksim Refiner")
    _check(refiner)
    if refiner.name in names():
        raise LinksimError(f"a refiner named {refiner.name!r} exists: give this one another name")
    _registered[refiner.name] = refiner
    return refiner


def _check(refiner: type[Refiner]) -> None:
    """Raises LinksimError for a class whose name cannot be asked for, or is that of the first stage."""
    name = getattr(refiner, "name", None)
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name == "first":
        raise LinksimError(f"a refiner cannot be named {name!r}: use letters, digits, '.', '_' and '-'")


def unregister(name: str) -> None:
    """Takes back `register`."""
    _registered.pop(name, None)


@functools.cache
def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def names() -> list[str]:
    """Every known name, sorted."""
    return sorted({*_registered, *_points()})


def is_local(name: str) -> bool:
    """True for a refiner registered in this process alone."""
    return name in _registered


def find(name: str) -> type[Refiner]:
    """The class behind a name. Raises LinksimError: unknown name, or a plug-in that does not import."""
    if name in _registered:
        return _registered[name]
    if name not in _points():
        raise unknown("refiner", name, names())
    point = _points()[name]
    try:
        refiner = point.load()
    except (Exception, SystemExit) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise LinksimError(f"the plug-in of refiner {name!r} ({point.value}) does not import: {said}") from error
    if not (isinstance(refiner, type) and issubclass(refiner, Refiner)):
        raise LinksimError(f"the plug-in of refiner {name!r} ({point.value}) is no linksim Refiner")
    _check(refiner)
    return refiner
