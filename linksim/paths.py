"""Where linksim keeps what outlives a run: assets (weights, data sets) and caches (encoded images)."""

import os
from pathlib import Path

import platformdirs

#: Where the process was when linksim was first used: a plug-in that changes the folder must not move what is kept.
START = Path.cwd()

#: Where this process has the files and folders that a sweep names by their place on another machine.
ELSEWHERE: dict[str, Path] = {}


def here(path: Path) -> Path:
    """Where this process finds a file, or a folder, that a sweep names.

    Example:
        >>> here(Path("weights/mine.safetensors"))
        PosixPath('weights/mine.safetensors')
    """
    for place in (path, *path.parents):
        if found := ELSEWHERE.get(str(place)):
            return found / path.relative_to(place)
    return path.expanduser()


def shipped(path: Path) -> Path:
    """A file or folder of `sweeps/` or `results/` that linksim brings along, where there is none here of this name.

    Example:
        >>> shipped(Path("sweeps/fig06.yaml")).is_file()
        True
    """
    package = Path(__file__).resolve().parent
    # Of a wheel, see setup.py; else of the checkout.
    root = package / "shipped" if (package / "shipped").is_dir() else package.parent
    known = path.parts[:1] in (("sweeps",), ("results",)) and not path.exists() and (root / path).exists()
    return root / path if known else path


def assets_dir() -> Path:
    """Folder of the assets: `$LINKSIM_ASSETS`, else the user's data folder."""
    given = os.environ.get("LINKSIM_ASSETS")
    return START / given if given else platformdirs.user_data_path("linksim") / "assets"


def weights_dir() -> Path:
    """Folder of the weights that the user trained: `$LINKSIM_WEIGHTS`, else the user's data folder."""
    given = os.environ.get("LINKSIM_WEIGHTS")
    return START / given if given else platformdirs.user_data_path("linksim") / "weights"


def cache_dir() -> Path:
    """Folder of what can be computed again: `$LINKSIM_CACHE`, else the user's cache folder."""
    given = os.environ.get("LINKSIM_CACHE")
    return START / given if given else platformdirs.user_cache_path("linksim")
