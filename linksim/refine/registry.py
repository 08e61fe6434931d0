"""Refiners by name: found through the entry-point group `linksim.refiners`, or registered from Python."""

from __future__ import annotations

from linksim.errors import LinksimError
from linksim.refine.base import Refiner
from linksim.registry import Registry


def _check(refiner: type[Refiner], name: str) -> None:
    """Raises LinksimError for a class whose name is that of the first stage."""
    if "first" in (name, refiner.name):
        raise LinksimError("a refiner cannot be named 'first': that is the stage before it")


#: Every refiner by name.
REFINERS: Registry[Refiner] = Registry("refiner", "linksim.refiners", lambda: Refiner, "Refiner", _check)


def register(refiner: type[Refiner]) -> type[Refiner]:
    """Adds a refiner for this process (a notebook, a test); installed plug-ins use an entry point.

    Worker processes cannot see it: run it with one worker. Raises LinksimError when linksim or an
    installed plug-in has the name.

    Example:
        >>> from linksim.refine.base import Refiner
        >>> class Own(Refiner):
        ...     name, summary = "own", "a second stage of one's own"
        >>> register(Own).name in REFINERS
        True
        >>> unregister("own")
    """
    return REFINERS.register(refiner)


def unregister(name: str) -> None:
    """Takes back `register`."""
    REFINERS.unregister(name)
