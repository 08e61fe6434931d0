"""Plug-ins by name: one registry serves schemes, refiners, metrics and data sets.

A name comes from linksim itself, from the entry-point group of an installed distribution, or from `register` in this
process. A name that two of them claim is refused, whoever came first.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from linksim.errors import LinksimError, said, shown, unknown
from linksim.source import source_digest

T = TypeVar("T", bound=object)

_SIGNS = "._-"


class Registry(Mapping[str, type[T]], Generic[T]):
    """The classes of one kind, by name.

    Args:
        kind: what one is called in messages, like "scheme".
        group: entry-point group of installed plug-ins.
        root: the class that each derives from, like `Scheme`; a function that gives it, to import it late.
        what: the class in words, like "Scheme or Reference".
        check: raises LinksimError for a class that cannot take part; called with the class and the name asked for.
        builtin: what linksim itself brings without an entry point.
        signs: characters that a name may have beside letters and digits.

    Example:
        >>> class Shape: ...
        >>> class Square(Shape):
        ...     name = "square"
        >>> shapes = Registry("shape", "example.shapes", lambda: Shape, "Shape")
        >>> shapes.register(Square).__name__
        'Square'
        >>> shapes.find("square") is Square, shapes.names(), shapes.is_local("square")
        (True, ['square'], True)
        >>> shapes.find("squre")
        Traceback (most recent call last):
        ...
        linksim.errors.LinksimError: unknown shape 'squre': did you mean 'square'? known: square
    """

    def __init__(
        self,
        kind: str,
        group: str,
        root: Callable[[], type],
        what: str,
        check: Callable[[type[T], str], None] | None = None,
        builtin: Mapping[str, type[T]] | None = None,
        signs: str = _SIGNS,
    ) -> None:
        self._signs = signs
        self.kind, self.group, self.builtin = kind, group, dict(builtin or {})
        self._root, self._what, self._check = root, what, check
        self._registered: dict[str, type[T]] = {}
        self._points: dict[str, list[EntryPoint]] | None = None

    def register(self, found: type[T]) -> type[T]:
        """Adds a class for this process (a notebook, a test); installed plug-ins use an entry point.

        Worker processes cannot see it: run it with one worker. One of the same name that was registered before goes,
        with a warning: a cell of a notebook runs again. Raises LinksimError when linksim itself or an installed plug-in
        has the name.
        """
        if not self._fits(found):
            raise LinksimError(f"{shown(found)} is no linksim {self._what}")
        name = self._named(getattr(found, "name", None))
        if name in self.builtin or name in self._installed():
            raise LinksimError(f"a {self.kind} named {name!r} exists: give this one another name")
        if self._check is not None:
            self._check(found, name)
        if self._registered.get(name, found) is not found:
            warnings.warn(f"the {self.kind} {name!r} is registered anew: the one before is gone", stacklevel=3)
        # Now, while the file is still the one that was imported.
        source_digest(found)  # type: ignore[arg-type]
        self._registered[name] = found
        return found

    def unregister(self, name: str) -> None:
        """Takes back `register`."""
        self._registered.pop(name, None)

    def names(self) -> list[str]:
        """Every known name: linksim's own in their order, then the others, sorted."""
        return [*self.builtin, *sorted({*self._registered, *self._installed()} - self.builtin.keys())]

    def check_installed(self, wanted: str) -> None:
        """Raises LinksimError, about what is `wanted`, where no name is known at all."""
        if not self.names():
            raise LinksimError(
                f"{wanted}: none is known, for linksim's code is here and not installed: pip install -e . in its clone"
            )

    def is_local(self, name: str) -> bool:
        """True for one that was registered in this process alone, which worker processes cannot import."""
        return name in self._registered

    def find(self, name: str) -> type[T]:
        """The class behind a name.

        Raises LinksimError: unknown name (with the nearest), one that several claim, a plug-in that does not import.
        """
        if not isinstance(name, str):
            raise LinksimError(f"{self.kind} {shown(name)}: give its name")
        if name in self._registered:
            return self._registered[name]
        points = self._installed().get(name, [])
        claims = {f"linksim ({found.__module__})" for key, found in self.builtin.items() if key == name}
        values = {point.value for point in points}
        if len(claims) + len(values) > 1:
            claims |= {f"{point.dist.name if point.dist else '?'} ({point.value})" for point in points}
            raise LinksimError(
                f"several plug-ins name a {self.kind} {name!r}: {' and '.join(sorted(claims))}: uninstall all but one"
            )
        if name in self.builtin:
            return self.builtin[name]
        if not points:
            self.check_installed(f"{self.kind} {shown(name)}")
            raise unknown(self.kind, name, self.names())
        found, where = self._load(points[0]), f"the plug-in of {self.kind} {name!r} ({points[0].value})"
        if not self._fits(found):
            raise LinksimError(f"{where} is no linksim {self._what}")
        self._named(name)
        if self._check is not None:
            self._check(found, name)
        source_digest(found)  # type: ignore[arg-type]
        return found

    def _named(self, name: object) -> str:
        if not isinstance(name, str) or not re.fullmatch(rf"[A-Za-z0-9][A-Za-z0-9{re.escape(self._signs)}]*", name):
            signs = ", ".join(f"'{sign}'" for sign in self._signs[:-1])
            raise LinksimError(
                f"a {self.kind} cannot be named {shown(name)}: use letters, digits, {signs} and '{self._signs[-1]}'"
            )
        return name

    def _load(self, point: EntryPoint) -> type[T]:
        try:
            found: type[T] = point.load()
            return found
        except KeyboardInterrupt:
            raise
        # A module can raise anything while it is imported, an exit of its own included.
        except BaseException as error:
            raise LinksimError(
                f"the plug-in of {self.kind} {point.name!r} ({point.value}) does not import: {said(error)}"
            ) from error

    def _fits(self, found: object) -> bool:
        return isinstance(found, type) and issubclass(found, self._root())

    def _installed(self) -> dict[str, list[EntryPoint]]:
        if self._points is None:
            self._points = {}
            for point in entry_points(group=self.group):
                self._points.setdefault(point.name, []).append(point)
        return self._points

    def __getitem__(self, name: str) -> type[T]:
        if name not in self:
            raise KeyError(name)
        return self.find(name)

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())
