"""`linksim doctor`: what this installation can do, and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from linksim.errors import LinksimError


def _python() -> str:
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"


def _torch() -> str:
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none, everything runs on the CPU"
    return f"{torch.__version__}, GPU: {gpu}"


def _sionna() -> str:
    from importlib.metadata import version

    from linksim.link.phy import sionna

    sionna("config")

    return version("sionna-no-rt")


def _encoder() -> str:
    import av

    av.CodecContext.create("libx265", "w")
    av.CodecContext.create("hevc", "r")
    both = shutil.which("bpgenc") and shutil.which("bpgdec")
    return f"HEVC by PyAV {av.__version__}" + ("; bpgenc and bpgdec are on PATH and go before it" if both else "")


def _folder(path: Path) -> Callable[[], str]:
    def check() -> str:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path):
            pass
        free = shutil.disk_usage(path).free / 2**30
        return f"{path}, {free:.1f} GiB free"

    return check


def _own(path: Path) -> str:
    from linksim.models import weights
    from linksim.refine.ddim.starts import FILE

    own = sum(card["folder"] == str(path) for card in weights.cards().values())
    tuned = f", {FILE} with T' of your own" if (path / FILE).is_file() else ""
    return f"{path}: {own} models{tuned}"


def _shipped() -> str:
    from linksim.models import weights

    found = [card for card in weights.cards().values() if weights.is_shipped(card)]
    there = sum(map(weights.present, found))
    return f"{there} models (linksim list weights), {len(found) - there} more whose cards alone are there"


def _schemes() -> str:
    from linksim.schemes.registry import SCHEMES

    for name in SCHEMES.names():
        SCHEMES.find(name)
    return ", ".join(SCHEMES.names())


def diagnose() -> tuple[list[tuple[str, bool, str]], list[tuple[str, str]]]:
    """Checks, each (what, good, words), and assets, each (name, state)."""
    from linksim import assets
    from linksim.paths import assets_dir, cache_dir, weights_dir

    checks: dict[str, Callable[[], str]] = {
        "python": _python,
        "torch": _torch,
        "sionna": _sionna,
        "image codec": _encoder,
        "schemes": _schemes,
        "assets folder": _folder(assets_dir()),
        "cache folder": _folder(cache_dir()),
        "weights": _shipped,
        "own weights": lambda: _own(weights_dir()),
    }
    rows = []
    for what, check in checks.items():
        try:
            rows.append((what, True, check()))
        except LinksimError as error:
            rows.append((what, False, str(error)))
        except Exception as error:
            rows.append((what, False, f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"))
    return rows, [(row.name, row.state) for row in assets.listing()]
