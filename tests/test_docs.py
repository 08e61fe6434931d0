"""README, CONTRIBUTING and the pages of the site: what they tell a reader to type, and where they point."""

import argparse
import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from linksim.cli import _join_negative, _parser
from linksim.cli.options import Parser
from tests.conftest import ROOT

DOCS = ROOT / "docs"
# What a build of the site brings along is not written by hand.
BUILT = {"_build", "results", "jupyter_execute"}
PAGES = sorted(page for page in DOCS.rglob("*.md") if page.relative_to(DOCS).parts[0] not in BUILT)
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
FENCED = re.compile(r"^```(\{?[\w-]*\}?)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LANGUAGES = {"", "text", "bash", "console"}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def shell_lines(text: str) -> Iterator[str]:
    """Lines of shell: in indented blocks and in fenced ones of no other language, and whole commands in backticks."""
    for language, block in FENCED.findall(text):
        if language in LANGUAGES:
            yield from block.replace("\\\n", " ").splitlines()
    rest = FENCED.sub("", text)
    yield from (line.strip() for line in re.findall(r"^ {4}.*$", rest.replace("\\\n", " "), re.MULTILINE))
    # Of two words it names a command; what is longer is one to type.
    yield from (code for code in re.findall(r"`([^`]+)`", rest.replace("\n", " ")) if code.count(" ") > 1)


def commands(text: str) -> list[list[str]]:
    """The words of every `linksim ...` in a text; what stands for any words, `...`, is no command to parse."""
    found = []
    for line in shell_lines(text):
        if "linksim " not in line or "..." in line:
            continue
        for part in re.split(r"&&|[;|]", line):
            words = shlex.split(part, comments=True)
            if words[:1] == ["linksim"]:
                found.append(words[1:])
    return found


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_the_readme_is_read_in_minutes() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 700


@pytest.fixture(scope="module")
def parser() -> Parser:
    return _parser()


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_every_command_that_a_reader_is_told_to_type_is_one(parser: Parser, path: Path) -> None:
    text = path.read_text()
    known = next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    assert set(re.findall(r"`linksim (\w+)`", text)) <= set(known)
    for words in commands(text):
        args = parser.parse_all(_join_negative(words))
        assert args.command is None or callable(args.run), words


def test_commands_are_found_in_every_form() -> None:
    text = (
        "    pip install -e . && linksim sweep --snr -5:20:5  # all\n\n```text\nlinksim show x ; linksim list schemes\n"
        "```\n"
        "Type `linksim plot\nx` (of `linksim plot`), or `linksim sweep ...`.\n\n"
        "    linksim sweep \\\n        --rho 1/6\n"
    )
    assert commands(text) == [
        ["show", "x"], ["list", "schemes"], ["sweep", "--snr", "-5:20:5"], ["sweep", "--rho", "1/6"], ["plot", "x"]
    ]  # fmt: skip
    assert sum(len(commands(path.read_text())) for path in TEXTS) > 100


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_blocks_of_python_are_python(path: Path) -> None:
    for language, block in FENCED.findall(path.read_text()):
        if language == "python":
            ast.parse(block)


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_links_within_the_repository_lead_somewhere(path: Path) -> None:
    text = FENCED.sub("", path.read_text())
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        target, _, anchor = link.partition("#")
        there = (path.parent / target).resolve() if target else path
        assert there.exists(), link
        if anchor and there.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, link


def test_every_page_is_in_a_table_of_contents() -> None:
    listed = {DOCS / "index.md"}
    for page in PAGES:
        for language, block in FENCED.findall(page.read_text()):
            if language != "{toctree}":
                continue
            for line in block.splitlines():
                name = re.sub(r".*<(.*)>", r"\1", line.strip())
                if name and not name.startswith(":"):
                    listed.add((page.parent / f"{name}.md").resolve())
    assert set(PAGES) <= listed
    assert all(path.is_file() for path in listed if path.relative_to(DOCS).parts[0] not in BUILT)


def test_what_the_pages_show_of_examples_is_there() -> None:
    for page in PAGES:
        for name in re.findall(r"^```\{literalinclude\} (.*)$", page.read_text(), re.MULTILINE):
            assert (page.parent / name).is_file(), name


def test_the_drawing_of_the_link_is_what_its_script_draws() -> None:
    script: dict[str, object] = {"__name__": "link", "__file__": str(DOCS / "figures" / "link.py")}
    exec(compile((DOCS / "figures" / "link.py").read_text(), "link.py", "exec"), script)
    drawing = script["drawing"]
    assert callable(drawing)
    assert (DOCS / "_static" / "link.svg").read_text() == drawing()


def test_every_public_name_is_in_the_reference() -> None:
    import linksim

    text = (DOCS / "reference" / "api.md").read_text()
    listed = set(re.findall(r"^\.\. auto\w+:: (\w+)$", text, re.MULTILINE))
    assert {name for name in linksim.__all__ if not name.startswith("__")} <= listed
