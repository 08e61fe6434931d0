"""No file of linksim or baselines imports, whether at its top or inside a function, what imports it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("linksim", "baselines")


def module_files(root: Path, packages: tuple[str, ...] = PACKAGES) -> dict[str, Path]:
    """Every module by its dotted name."""
    found = {}
    for package in packages:
        for path in (root / package).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(node: ast.AST, name: str, modules: dict[str, Path]) -> Iterator[str]:
    """The modules that the statements under `node` import; those for type checkers alone do not count."""
    for part in ast.iter_child_nodes(node):
        if isinstance(part, ast.If) and "TYPE_CHECKING" in ast.unparse(part.test):
            for other in part.orelse:
                yield from imported(other, name, modules)
        elif isinstance(part, ast.Import):
            yield from (alias.name for alias in part.names if alias.name in modules)
        elif isinstance(part, ast.ImportFrom):
            package = name.split(".") if modules[name].name == "__init__.py" else name.split(".")[:-1]
            above = package[: len(package) - part.level + 1] if part.level else []
            source = ".".join([*above, *([part.module] if part.module else [])])
            for alias in part.names:
                inner = f"{source}.{alias.name}"
                if inner in modules or source in modules:
                    yield inner if inner in modules else source
        else:
            yield from imported(part, name, modules)


def import_graph(root: Path, packages: tuple[str, ...] = PACKAGES) -> dict[str, set[str]]:
    """Module -> the modules that it imports."""
    modules = module_files(root, packages)
    return {name: set(imported(ast.parse(path.read_text()), name, modules)) for name, path in modules.items()}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a graph, its first name again at its end; empty where there is none."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if found := walk(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def test_no_file_imports_what_imports_it() -> None:
    found = circle(import_graph(ROOT))
    assert not found, f"a circle of imports: {' -> '.join(found)}"


#: Rooms from the ground up: each may import those before it, and itself.
FLOORS = [
    "link",
    "data",
    "metrics",
    "nets",
    "models",
    "schemes",
    "refine",
    "engine",
    "train",
    "report",
    "serve",
    "api",
    "cli",
]


def test_rooms_stand_on_those_below_them() -> None:
    wrong = []
    for name, others in import_graph(ROOT, ("linksim",)).items():
        floor = name.split(".")[1] if "." in name else ""
        if floor not in FLOORS:
            continue
        for other in others:
            below = other.split(".")[1] if "." in other else ""
            if below in FLOORS and FLOORS.index(below) > FLOORS.index(floor):
                wrong.append(f"{name} imports {other}")
    assert not wrong, f"upstairs: {'; '.join(sorted(wrong))}"


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"a": "import p.b", "b": ""}, []),
        ({"a": "import p.b", "b": "def f():\n    from p import a"}, ["p.a", "p.b", "p.a"]),
        ({"a": "from .b import x", "b": "from p.c import x", "c": "from . import a"}, ["p.a", "p.b", "p.c", "p.a"]),
        ({"a": "import p.b", "b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p import a"}, []),
    ],
    ids=["none", "inside a function", "relative", "for types alone"],
)
def test_a_circle_is_named(tmp_path: Path, files: dict[str, str], wanted: list[str]) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "__init__.py").write_text("")
    for name, text in files.items():
        (tmp_path / "p" / f"{name}.py").write_text(text)
    assert circle(import_graph(tmp_path, ("p",))) == wanted
