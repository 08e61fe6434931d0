"""A hash of a plug-in's code: an edited plug-in is another one, and its results of before are not its own."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: What results_version and the version of linksim stand for.
_OWN = ("linksim", "baselines")

#: Values of a class or a notebook that are part of its code.
_PLAIN = (str, bytes, int, float, complex, bool, type(None))


@functools.cache
def source_digest(found: type[object]) -> str:
    """Hash (16 hex digits) of the code behind a class; empty for linksim's own, which goes by its version.

    It covers the class's module, every module of its top-level package, those of its parents, and the user's own
    modules that these import (not what other distributions install). Where the files lie and when they were written
    does not count. A class without a file, from a notebook, goes by the source of its functions and of those that they
    name or, where Python does not know the source, by their compiled code.

    It is taken once, when the class is registered or found: later edits of the file are not what runs.

    Example:
        >>> from linksim.metrics import Psnr
        >>> source_digest(Psnr)
        ''
    """
    digest = hashlib.sha256()
    parents = [kind for kind in found.__mro__ if not _foreign(kind.__module__) or kind is found]
    parents = [kind for kind in parents if _top(kind.__module__) not in _OWN]
    if not parents:
        return ""
    files: dict[str, bytes] = {}
    for kind in parents:
        module = sys.modules.get(kind.__module__)
        if module is not None and _file(module) is not None:
            _add_files(_top(module.__name__), _file(module), files, set())
        else:
            for part in _pieces(kind, set()):
                digest.update(part + b"\0")
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + hashlib.sha256(files[name]).digest())
    return digest.hexdigest()[:16]


def _top(module: str) -> str:
    return module.partition(".")[0]


def _file(module: types.ModuleType) -> Path | None:
    path = getattr(module, "__file__", None)
    return Path(path) if isinstance(path, str) and Path(path).is_file() else None


def _foreign(name: str) -> bool:
    """Whether a module comes from Python or from another distribution, whose version stands for it."""
    return name != "__main__" and (_standard(name) or _installed(_place(_top(name))))


def _standard(name: str) -> bool:
    return _top(name) in (*sys.stdlib_module_names, *sys.builtin_module_names)


def _installed(path: Path | None) -> bool:
    if path is None:
        return False
    place = path.resolve()
    return any(place.is_relative_to(root) for root in _roots())


@functools.cache
def _roots() -> list[Path]:
    """Where distributions are installed, and Python's own modules."""
    paths = sysconfig.get_paths()
    return [Path(paths[key]).resolve() for key in ("purelib", "platlib", "stdlib")]


def _place(top: str) -> Path | None:
    """The file of a top-level module or package, found without importing it; None where there is none."""
    if top in sys.modules:
        return _file(sys.modules[top])
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def _add_files(top: str, path: Path | None, files: dict[str, bytes], seen: set[str]) -> None:
    """Adds the file of a module, its whole package where it has one, and the user's own modules that these import.

    Args:
        top: name of its top-level module.
        path: its own file, for a module of no package.
    """
    if top in seen or path is None:
        return
    seen.add(top)
    start = _place(top) or path
    package = start.name == "__init__.py"
    for file in sorted(start.parent.rglob("*.py")) if package else [path]:
        content = file.read_bytes()
        files[f"{top}/{file.relative_to(start.parent) if package else file.name}"] = content
        for name in _imports(content):
            if name not in _OWN and not _standard(name) and not _installed(found := _place(name)):
                _add_files(name, found, files, seen)


@functools.lru_cache(maxsize=1024)
def _imports(content: bytes) -> frozenset[str]:
    """Top-level names that a file imports, those inside its functions included."""
    names: set[str] = set()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return frozenset()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {_top(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(_top(node.module))
    return frozenset(names)


def _pieces(value: Any, seen: set[int]) -> Iterator[bytes]:
    """The parts of a class or function that has no file, and of what it names beside it."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, type):
        for name, part in sorted(vars(value).items()):
            part = getattr(part, "__func__", part)
            part = getattr(part, "fget", getattr(part, "func", part))
            if isinstance(part, types.FunctionType | type):
                yield name.encode()
                yield from _pieces(part, seen)
            elif not name.startswith("__") and (text := _text(part)) is not None:
                yield f"{name}={text}".encode()
    elif isinstance(value, types.FunctionType):
        try:
            yield inspect.getsource(value).encode()
        except (OSError, TypeError):
            yield from _code(value.__code__)
        for name in sorted(_names(value.__code__)):
            part = value.__globals__.get(name)
            if isinstance(part, types.FunctionType | type):
                if not _foreign(part.__module__) and _top(part.__module__) not in _OWN:
                    yield name.encode()
                    yield from _pieces(part, seen)
            elif part is not None and (text := _text(part)) is not None:
                yield f"{name}={text}".encode()


def _names(code: types.CodeType) -> set[str]:
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _code(code: types.CodeType) -> Iterator[bytes]:
    yield code.co_code
    yield repr((code.co_names, code.co_varnames, code.co_freevars)).encode()
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _code(const)
        else:
            yield (_text(const) or "").encode()


def _text(value: Any) -> str | None:
    """A plain value, or a container of such, as text that is the same in every session; None for anything else."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, dict):
        value = list(value.items())
    if not isinstance(value, tuple | list | set | frozenset):
        return None
    parts = [_text(part) for part in value]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return f"({', '.join(sorted(known) if isinstance(value, set | frozenset) else known)})"
