"""What is built for a wheel works where no checkout is."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_figures_and_tables_are_there_outside_of_the_checkout(tmp_path: Path) -> None:
    built = tmp_path / "built"
    words = ["-q", "build", "--build-base", str(tmp_path / "base"), "--build-lib", str(built)]
    subprocess.run(
        [sys.executable, "setup.py", *words], cwd=ROOT, check=True, timeout=600, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    (tmp_path / "empty").mkdir()
    sweep = "sweep sweeps/embedded.yaml --scheme klt --users 1 --groups 2 --snr 0 --metrics psnr --quiet --out x"
    code = "\n".join((
        "import sys, linksim",
        "from linksim.cli import main",
        "print(linksim.__file__)",
        "main(['--version'])",
        "print(len(linksim.load('results/fig07')))",
        "raise SystemExit(main(['reproduce', 'fig06', '--dry-run']) or main(sys.argv[1:]))",
    ))  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, *sweep.split()], cwd=tmp_path / "empty", capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(built)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    place, version, rows, *_ = done.stdout.splitlines()
    assert place.startswith(str(built))
    assert version.startswith("0.1.0+")
    assert int(rows) > 50
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["x"]


def test_a_script_beside_the_clone_finds_the_package(tmp_path: Path) -> None:
    """A folder `linksim` without the package's files, the clone's own, does not stand before what is installed."""
    (tmp_path / "linksim").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = "import importlib.util; print(importlib.util.find_spec('linksim').origin)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("__init__.py"), done.stdout
