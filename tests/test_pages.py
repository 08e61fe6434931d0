"""Every error of a command names a page that is there."""

from pathlib import Path

import pytest

from linksim.cli import main, pages
from linksim.cli.options import EXAMPLES

ROOT = Path(__file__).parent.parent


def test_every_command_has_a_page_and_every_page_is_there() -> None:
    assert {words.split()[0] for words in EXAMPLES} == set(pages.COMMANDS)
    for page in {*pages.COMMANDS.values(), *pages._SUBJECTS.values(), "index"}:
        assert (ROOT / "docs" / f"{page}.md").is_file(), page


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("sweep --scheme kd --snr x", "explain/snr"),
        ("sweep --scheme kdx", "explain/schemes"),
        ("sweep --scheme kd --channel rainbow", "howto/channel"),
        ("sweep --scheme kd --metrics psnrr", "howto/metric"),
        ("sweep --scheme kd --dataset nowhere", "howto/data"),
        ("sweep --scheme kd --cluster moon:2", "clusters"),
        ("sweep --scheme kd --rho 1/7 --groups 2", "explain/rho"),
        ("sweep --scheme kd --users 3 --groups 2", "howto/train"),
        ("show nowhere", "howto/tables"),
        ("reproduce fig99", "howto/reproduce"),
        ("plot", "howto/figures"),
        ("train --scheme kd --budget x", "howto/train"),
        ("sweeep", "index"),
        ("sweep --foo", "howto/sweep"),
        ("train", "howto/train"),
        ("show slurm-runs/none", "howto/tables"),
        ("sweep --scheme klt --power foo", "explain/power"),
        ("sweep --scheme klt --detector foo", "howto/antennas"),
        ("sweep --scheme klt --channel rician:k=3", "howto/channel"),
        ("sweep --scheme klt --dataset folder:/nope", "howto/data"),
        ("sweep --scheme kd+ddim:prior=nowhere --groups 2", "howto/prior"),
        ("sweep --scheme kd+ddim:prior=ffhq256 --groups 2", "howto/prior"),
        ("sweep --scheme klt --groups 2 --out /dev/null", "howto/sweep"),
    ],
)
def test_an_error_names_its_page(words: str, page: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f" (docs/{page}.md)"), said
