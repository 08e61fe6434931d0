"""The error that a user can act on, and the helper that names the nearest known word."""

import difflib
from collections.abc import Iterable


class LinksimError(Exception):
    """Something the user can put right: one line that says what is wrong and the way out.

    The command line prints it without a traceback and exits with code 2.
    """


class NoWeights(LinksimError):
    """Weights that are not there, or not whole."""


def unknown(kind: str, name: str, known: Iterable[str]) -> LinksimError:
    """The error for a `name` that is none of the `known` names of its `kind`, with the nearest one."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return LinksimError(f"unknown {kind} {name!r}: {hint}known: {', '.join(names) or 'none'}")
