"""The real weights, where the environment names them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from linksim import assets

SOURCES = {
    "vgg16": ("LINKSIM_TEST_WEIGHTS", "vgg16_imagenet_features.pth"),
    "alexnet": ("LINKSIM_TEST_WEIGHTS", "alexnet_imagenet_features.pth"),
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
