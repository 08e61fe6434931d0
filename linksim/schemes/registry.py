"""Schemes by name: found through the entry-point group `linksim.schemes`, or registered from Python."""

from __future__ import annotations

from linksim.columns import COLUMNS, SUFFIXES
from linksim.errors import LinksimError
from linksim.metrics import own_columns
from linksim.registry import Registry
from linksim.schemes.base import System


def check(system: type[System], name: str) -> None:
    """Raises LinksimError for a class whose parameters hide columns of the table."""
    columns = (COLUMNS | own_columns()) - {"detector"}  # a scheme may have its own
    hidden = {name for name in system.Params.model_fields if name in columns or name.endswith(SUFFIXES)}
    if hidden:
        raise LinksimError(
            f"scheme {name!r} has a parameter {min(hidden)!r}, which is a column of every table: rename it"
        )


#: Schemes and references of one stage; `linksim.engine.variants` finds those with a refiner behind them too.
SCHEMES: Registry[System] = Registry(
    "scheme", "linksim.schemes", lambda: System, "Scheme or Reference", check, signs="._+-"
)


def register(system: type[System]) -> type[System]:
    """Adds a scheme or reference for this process (a notebook, a test); installed plug-ins use an entry point.

    Worker processes cannot see such a scheme: run it with one worker. Raises LinksimError when linksim or an
    installed plug-in has the name.

    Example:
        >>> from linksim.schemes import Scheme
        >>> class Own(Scheme):
        ...     name, summary = "own", "a scheme of one's own"
        >>> register(Own).name in SCHEMES
        True
        >>> unregister("own")
    """
    return SCHEMES.register(system)


def unregister(name: str) -> None:
    """Takes back `register`."""
    SCHEMES.unregister(name)
