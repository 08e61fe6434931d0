"""The documentation: `sphinx-build -W --keep-going -b html docs docs/_build`."""

import argparse
import contextlib
import io
import os
import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

# Help texts of one width, whatever the terminal.
os.environ["COLUMNS"] = "76"
# The weights that are listed are those that ship.
os.environ["LINKSIM_WEIGHTS"] = str(Path(__file__).parent / "_build" / "none")

import linksim
from linksim.cli import _parser, main

project = "linksim"
author = "The linksim authors"
release = linksim.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "jupyter_execute", "figures"]
html_theme = "pydata_sphinx_theme"
html_title = "linksim"
html_static_path = ["_static"]
html_show_sourcelink = False
html_theme_options = {"show_nav_level": 2, "navigation_with_keys": False, "secondary_sidebar_items": ["page-toc"]}

# Notebooks are executed by the tests, never by a build.
nb_execution_mode = "off"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]
# Code that is no language, a shell's session say, stays as it is.
highlight_language = "none"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Class attributes", "params_style")]
# Docstrings set names in single backticks.
default_role = "code"
# `linkcheck` alone needs a network.
linkcheck_timeout = 20
linkcheck_ignore = [r"http://127\.0\.0\.1.*", r"http://localhost.*"]


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                below = _commands(sub)
                found |= {f"{name} {key}": value for key, value in below.items()} if below else {name: sub}
    return found


class CommandLine(Directive):
    """A section for every command, with the help that it prints."""

    def run(self) -> list[nodes.Node]:
        sections: list[nodes.Node] = []
        for name, parser in _commands(_parser()).items():
            section = nodes.section(ids=[f"linksim-{name.replace(' ', '-')}"], names=[f"linksim {name}"])
            section += nodes.title(text=f"linksim {name}")
            text = parser.format_help()
            section += nodes.literal_block(text, text, language="none")
            sections.append(section)
        return sections


class Printed(Directive):
    """What a command of linksim prints in this build: `linksim-prints` with the command's words."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = main(self.arguments[0].split())
        if code:
            raise self.error(f"linksim {self.arguments[0]} ends with {code}")
        text = printed.getvalue()
        return [nodes.literal_block(text, text, language="none")]


class Zoo(Directive):
    """The model zoo as a table."""

    def run(self) -> list[nodes.Node]:
        table = linksim.zoo().astype(str).replace({"mb": {"0.0": "card alone"}}).drop(columns="note")
        lines = [list(table.columns), *table.to_numpy().tolist()]
        group = nodes.tgroup(cols=len(table.columns))
        group += [nodes.colspec(colwidth=1) for _ in table.columns]
        head, body = nodes.thead(), nodes.tbody()
        for place, line in zip([head, *[body] * len(table)], lines, strict=True):
            row = nodes.row()
            for word in line:
                entry = nodes.entry()
                entry += nodes.paragraph(text=word)
                row += entry
            place += row
        group += [head, body]
        return [nodes.table("", group)]


HERE = Path(__file__).parent
RESULTS = HERE / "results"
NOTEBOOKS = "\n\n## Notebooks\n\n```{toctree}\n:glob:\n\n*\n```\n"


def bring_results(app: Any) -> None:
    """Copies the results' page and notebooks, which stand beside the numbers that they are about, into the site."""
    RESULTS.mkdir(exist_ok=True)
    text = (HERE.parent / "results" / "README.md").read_text()
    (RESULTS / "index.md").write_text(text + NOTEBOOKS)
    for notebook in (HERE.parent / "results").glob("*.ipynb"):
        shutil.copy(notebook, RESULTS)


def point_into_site(app: Any, page: str, source: list[str]) -> None:
    """Links are written as they are right in the repository; those to the results' page stay within the site here."""
    source[0] = re.sub(r"\]\((?:\.\./)+results/README\.md", "](/results/index.md", source[0])


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", bring_results)
    app.connect("source-read", point_into_site)
    app.add_directive("linksim-commands", CommandLine)
    app.add_directive("linksim-prints", Printed)
    app.add_directive("linksim-zoo", Zoo)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
