"""Fixtures of the whole suite: a cache and an assets folder of its own, and the example plug-in on the path."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from linksim import assets
from linksim.report import figures
from tests.small import shrink

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "plugin"


def pytest_configure() -> None:
    """One thread a process, those that tests start too: there is a process for each core, and one more."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # This process has read the variable already where no other one runs the tests (`-n 0`).
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


#: Files that take longest, which begin first: the last one to end is then a short one.
LONGEST = (
    "test_cluster.py", "test_sweep.py", "test_command.py", "test_any_images.py", "test_loop.py",
    "test_reproduce.py", "test_refiners.py", "test_cli.py", "test_sweeps.py", "test_frechet.py", "test_learned.py",
    "test_ldpc.py", "test_flow.py", "test_registry.py", "test_embedding.py", "test_perceptual.py",
    "test_rate_control.py", "test_refined.py", "test_campaign.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, each in its own order."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's cache and assets; those of all processes share what codecs have coded."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent / "home" if "PYTEST_XDIST_WORKER" in os.environ else base / "home"
    folder.mkdir(exist_ok=True)
    before = {name: os.environ.get(name) for name in ("LINKSIM_CACHE", "LINKSIM_ASSETS", "LINKSIM_WEIGHTS")}
    os.environ["LINKSIM_CACHE"] = str(folder / "cache")
    os.environ["LINKSIM_ASSETS"] = str(folder / "assets")
    os.environ["LINKSIM_WEIGHTS"] = str(folder / "weights")
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name)
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def plugin_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder that, on the import path, is the example plug-in installed: its module and its entry point."""
    folder = tmp_path_factory.mktemp("plugin")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    for module in EXAMPLE.glob("*.py"):
        (folder / module.name).write_text(module.read_text())
    info = folder / "linksim_analog_pixels-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in e.items()) for group, e in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("".join(lines))
    return str(folder)


Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def cli_env(plugin_path: str) -> dict[str, str]:
    """The environment of a process with this checkout's linksim that sees the example plug-in."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([plugin_path, str(ROOT)])}


@pytest.fixture
def cli(cli_env: dict[str, str], tmp_path: Path) -> Cli:
    """Runs the command line in a process of its own, in a temporary folder."""

    def run(*words: str, timeout: float = 1200) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "linksim", *words],
            cwd=tmp_path,
            env=cli_env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


SOURCES = {
    "vgg16": ("LINKSIM_TEST_WEIGHTS", "vgg16_imagenet_features.pth"),
    "inception-fid": ("LINKSIM_TEST_FID", ""),
}


@pytest.fixture(scope="session")
def real_assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real-assets")


@pytest.fixture
def install(real_assets: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Installs a real asset, or skips the test where the environment does not say where it is."""
    monkeypatch.setenv("LINKSIM_ASSETS", str(real_assets))

    def put(name: str) -> None:
        variable, file = SOURCES[name]
        folder = os.environ.get(variable)
        if not folder:
            pytest.skip(f"{variable} does not say where the weights of {name} are")
        if not (real_assets / f"{name}.safetensors").exists():
            assets.get(name, Path(folder) / file)

    return put


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws without a seed of its own is the same in every run."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of this process are laid out and not written, which takes most of a short sweep: a mark asks for them."""
    if request.node.get_closest_marker("figures") is None:
        for draw in (figures.draw, figures.draw_tradeoff):
            monkeypatch.setattr(draw, "__defaults__", ((),))


@pytest.fixture
def small_networks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that build, save and run in a fraction of the time: for tests of what is done with any.

    Weights that are shipped have the real ones, and processes of their own (see `few_held_out`): tests with these are
    marked `whole`.
    """
    if request.node.get_closest_marker("whole") is not None:
        return
    shrink(monkeypatch.setattr)


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> int:
    """Image groups of a unit of sweeps that this process plans: few, so that a short sweep has many units."""
    monkeypatch.setattr("linksim.engine.plan._UNIT_GROUPS", ((64, 8),))
    return 8


@pytest.fixture(scope="session")
def few_held_out(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder that, first on the import path of a new process, has its trainings validate on 8 images.

    They are small too, unless WHOLE is in the environment.
    """
    folder = tmp_path_factory.mktemp("few-held-out")
    lines = [
        "import os, sys", "from linksim.data import cifar10", "cifar10.VALIDATION = 8",
        "if 'train' in sys.orig_argv and 'WHOLE' not in os.environ:",
        "    import runpy", f"    runpy.run_path({str(ROOT / 'tests' / 'small.py')!r})['shrink']()",
    ]  # fmt: skip
    (folder / "sitecustomize.py").write_text("\n".join(lines) + "\n")
    return str(folder)


def see(patch: pytest.MonkeyPatch, plugin_path: str) -> None:
    """Has this process look for installed plug-ins as a new one does, with the example among them."""
    from linksim.data import DATASETS
    from linksim.link.channels import CHANNELS
    from linksim.metrics import METRICS
    from linksim.refine.registry import REFINERS
    from linksim.schemes.registry import SCHEMES

    patch.syspath_prepend(plugin_path)
    # Installed plug-ins are looked up once a process: what is found here is not there for the next test.
    for registry in (SCHEMES, REFINERS, CHANNELS, METRICS, DATASETS):
        patch.setattr(registry, "_points", None)


@pytest.fixture
def here(plugin_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command line as `cli` does, without the seconds that a process of its own takes to begin."""
    from linksim.cli import main

    monkeypatch.chdir(tmp_path)
    see(monkeypatch, plugin_path)

    def run(*words: str, timeout: float = 0) -> "subprocess.CompletedProcess[str]":
        code = main(words)
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    return run
