"""Versions of linksim and of the packages that results can depend on."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__version__ = "0.1.0"

#: Ends the version of edited code.
DIRTY = "+dirty"

_PACKAGES = (
    "av", "diffusers", "lpips", "numba", "numpy", "pandas", "pillow", "scipy", "sionna-no-rt", "torch",
    "torch-fidelity", "torchvision", "transformers",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Versions of the packages that results can depend on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def numeric_versions() -> dict[str, str]:
    """Versions of what computes numbers; pandas only writes them down."""
    return {name: found for name, found in package_versions().items() if name != "pandas"}


def code_version() -> str:
    """linksim's version, with the commit that it runs from or was built from; `+dirty` marks uncommitted changes."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        built = root / "linksim" / "shipped" / "version"
        return built.read_text().strip() if built.is_file() else __version__

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        # Without a lock, which would stay behind where this process is killed.
        changed = git(
            "--no-optional-locks", "status", "--porcelain", "--untracked-files=no", "--", "linksim", "baselines"
        )
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+{commit}{DIRTY if changed else ''}"
