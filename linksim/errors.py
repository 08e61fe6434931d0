"""The error that a user can act on, and the helper that names the nearest known word."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any


class LinksimError(Exception):
    """Something the user can put right: one line that says what is wrong and the way out.

    The command line prints it without a traceback and exits with code 2.

    Example:
        >>> import linksim
        >>> try:
        ...     linksim.load("nowhere")
        ... except LinksimError as error:
        ...     print(error)
        nowhere: no such results folder
    """


class NoWeights(LinksimError):
    """Weights that are not there, or not whole.

    Args:
        why: the line, or what of it stands before a command that trains.
        model: that the command trains, a `linksim.models.owner.Model`.
    """

    def __init__(self, why: str, model: Any = None) -> None:
        super().__init__(f"{why}: {model.command}" if model else why)
        self._why, self._model = why, model

    def on(self, words: Sequence[str]) -> NoWeights:
        """The same, with a command that trains on the images that `words` of `linksim train` say."""
        return NoWeights(f"{self._why}: {self._model.command_on(words)}") if self._model else self


class WrongStart(LinksimError):
    """Weights that a training cannot start from."""


#: Characters of a value that a message shows at the most.
_SHOWN = 80

#: Characters of a list of names that a message has whole.
_LISTED = 600

#: Characters of a message at the most; the longest name what is known.
_LINE = 5000


def shown(value: object) -> str:
    """`repr(value)`, cut short: what a user wrote can be long, and nested values can be longer than any memory.

    Example:
        >>> shown("a" * 100)[:5], len(shown("a" * 100))
        ("'aaaa", 80)
    """
    short = reprlib.Repr()
    short.maxstring = short.maxother = _SHOWN
    text = short.repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def said(error: BaseException, most: int = 300) -> str:
    """What an error of another's code says, with its type, in one line of `most` characters.

    Example:
        >>> said(ValueError("no\\nway"))
        'ValueError: no way'
        >>> said(EOFError())
        'EOFError'
    """
    text, kind = " ".join(str(error).split()), type(error).__name__
    return f"{kind}: {text}"[:most] if text else kind


def in_short(line: str) -> str:
    """A message without its middle where a path of the user's, say, makes it longer than anybody reads.

    Example:
        >>> len(in_short("a" * 2**20))
        605
    """
    return line if len(line) <= _LINE else f"{line[:300]} ... {line[-300:]}"


def unknown(kind: str, name: str, known: Iterable[str]) -> LinksimError:
    """The error for a `name` that is none of the `known` names of its `kind`, with the nearest one, or more of many.

    The nearest is the one that it begins, or that has it inside, else one of a like spelling; case is nothing.

    Example:
        >>> print(unknown("scheme", "bpg", ["jpg", "bpg-ldpc"]))
        unknown scheme 'bpg': did you mean 'bpg-ldpc'? known: bpg-ldpc, jpg
    """
    names, told = sorted(known), str(name)[:_SHOWN]
    low = told.lower()
    alike = {known.lower(): known for known in reversed(names)}
    begun = [known for known in names if low and known.lower().startswith(low if len(low) > 2 else f"{low}_")]
    within = [known for known in names if len(low) > 3 and low in known.lower() and known not in begun]
    near = [*begun, *within] or [alike[word] for word in difflib.get_close_matches(low, alike, n=1, cutoff=0.5)]
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = f"known: {', '.join(names) or 'none'}"
    if len(listed) > _LISTED:
        rest = [word for word in alike if alike[word] not in near]
        nearest = [*near, *(alike[word] for word in difflib.get_close_matches(low, rest, n=5, cutoff=0.0))][:5]
        listed = f"the nearest of {len(names)} are {', '.join(nearest)}"
    return LinksimError(f"unknown {kind} {shown(name)}: {hint}{listed}")


def chosen(labels: Sequence[str], label: str, kind: str = "scheme variant", trainings: bool = False) -> str:
    """The one of `labels` that `label` names, whole or by its bare scheme name. Raises LinksimError.

    Args:
        trainings: whether `--trainings` is a way out where several differ in their weights.
    """
    if not isinstance(label, str):
        raise LinksimError(f"{shown(label)} names no scheme: give its name")
    matches = [known for known in labels if known == label] or [
        known for known in labels if known.partition(":")[0] == label
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        together = ", or --trainings" if trainings and all("weights=" in known for known in matches) else ""
        raise LinksimError(f"{shown(label)} names several variants: {', '.join(matches)}: give one in full{together}")
    raise unknown(kind, label, labels)
