"""The examples in docstrings run, and give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import baselines
import linksim

MODULES = sorted(
    found.name
    for package in (linksim, baselines)
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not found.name.endswith("__main__")
)


def test_examples_in_docstrings_run() -> None:
    count = 0
    for name in MODULES:
        result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
        assert not result.failed, name
        count += result.attempted
    assert count > 60


@pytest.mark.parametrize(
    "name",
    ["link.fading", "link.realisation", "link.detection", "schemes.base", "metrics.base", "registry", "grammar"],
)
def test_what_plug_ins_are_written_against_has_examples(name: str) -> None:
    found = doctest.DocTestFinder().find(importlib.import_module(f"linksim.{name}"))
    assert any(test.examples for test in found)


def test_every_public_name_has_an_example() -> None:
    for name in linksim.__all__:
        found = getattr(linksim, name)
        if callable(found):
            assert ">>>" in (found.__doc__ or ""), name
