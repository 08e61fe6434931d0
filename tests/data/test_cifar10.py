import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from linksim.data import load_cifar10_train, load_dataset
from linksim.data.arrays import load_arrays
from linksim.data.cifar10 import TRAIN_MEAN
from linksim.errors import LinksimError
from tests.data.fake_cifar import hostile_pickle, install_fake, python_pickle, write_binary

OFFICIAL = os.environ.get("LINKSIM_TEST_CIFAR10")
needs_official = pytest.mark.skipif(not OFFICIAL, reason="LINKSIM_TEST_CIFAR10 names no folder with CIFAR-10's files")


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    monkeypatch.setenv("LINKSIM_ASSETS", str(tmp_path / "assets"))
    return install_fake(monkeypatch)


def _pixels(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8).reshape(-1, 3073)[:, 1:].reshape(-1, 3, 32, 32)


@pytest.mark.parametrize("subfolder", [".", "cifar-10-batches-bin"])
def test_the_binary_files_are_found_in_the_folder_or_below_it(
    batches: dict[str, bytes], tmp_path: Path, subfolder: str
) -> None:
    write_binary(tmp_path / "data" / subfolder, batches)
    images = load_dataset("cifar10", tmp_path / "data").images
    np.testing.assert_array_equal(images[:], _pixels(batches["test_batch"]))


def test_a_torchvision_folder_gives_the_same_images_as_the_binary_files(
    batches: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "torchvision" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for batch, content in batches.items():
        (folder / batch).write_bytes(python_pickle(content))
    write_binary(tmp_path / "binary", batches)
    torchvision = load_dataset("cifar10", tmp_path / "torchvision")
    binary = load_dataset("cifar10", tmp_path / "binary")
    assert torchvision.fingerprint == binary.fingerprint
    np.testing.assert_array_equal(load_cifar10_train(tmp_path / "torchvision"), load_cifar10_train(tmp_path / "binary"))


def test_without_a_folder_the_asset_is_taken(batches: dict[str, bytes], tmp_path: Path) -> None:
    write_binary(tmp_path / "assets" / "cifar10", batches)
    np.testing.assert_array_equal(load_dataset("cifar10").images[:], _pixels(batches["test_batch"]))


def test_the_training_images_are_those_of_the_five_files_in_order(batches: dict[str, bytes], tmp_path: Path) -> None:
    write_binary(tmp_path, batches)
    train = load_cifar10_train(tmp_path)
    assert train.shape == (50, 3, 32, 32)
    np.testing.assert_array_equal(train[40:], _pixels(batches["data_batch_5"]))


def test_data_that_is_not_installed_names_both_ways_out(batches: dict[str, bytes]) -> None:
    with pytest.raises(LinksimError, match=r"linksim assets get cifar10, or --data-dir DIR"):
        load_dataset("cifar10")


def test_a_folder_without_it_is_named(batches: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(LinksimError, match=rf"no CIFAR-10 in {tmp_path}.*linksim assets get cifar10"):
        load_dataset("cifar10", tmp_path)


def test_a_truncated_file_is_refused(batches: dict[str, bytes], tmp_path: Path) -> None:
    batches["test_batch"] = batches["test_batch"][:-1]
    write_binary(tmp_path, batches)
    with pytest.raises(LinksimError, match=r"test_batch.bin is truncated: 30729 bytes instead of 30730"):
        load_dataset("cifar10", tmp_path)


def test_a_file_with_one_changed_byte_is_refused(batches: dict[str, bytes], tmp_path: Path) -> None:
    changed = bytearray(batches["test_batch"])
    changed[5000] ^= 1
    batches["test_batch"] = bytes(changed)
    write_binary(tmp_path, batches)
    with pytest.raises(LinksimError, match=r"test_batch.bin is corrupt.*SHA-1"):
        load_dataset("cifar10", tmp_path)


def test_a_damaged_pickle_is_refused_in_one_line(batches: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "test_batch").write_bytes(python_pickle(batches["test_batch"])[:-100])
    with pytest.raises(LinksimError, match="is corrupt") as caught:
        load_dataset("cifar10", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(batches: dict[str, bytes], tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "test_batch").write_bytes(hostile_pickle(marker))
    with pytest.raises(LinksimError, match="no array"):
        load_dataset("cifar10", tmp_path)
    assert not marker.exists()


def test_plain_arrays_come_back_from_a_pickle() -> None:
    import pickle

    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    loaded = load_arrays(pickle.dumps({"a": [array, 1]}, protocol=3))
    np.testing.assert_array_equal(loaded["a"][0], array)


def test_cifar10_has_no_other_size(batches: dict[str, bytes], tmp_path: Path) -> None:
    write_binary(tmp_path, batches)
    with pytest.raises(LinksimError, match="32x32, not 64"):
        load_dataset("cifar10", tmp_path, image_size=64)
    assert load_dataset("cifar10", tmp_path, image_size=32).image_shape == (3, 32, 32)


@needs_official
def test_the_embedded_images_are_the_first_512_of_the_official_test_set() -> None:
    official = load_dataset("cifar10", Path(OFFICIAL or ""))
    assert len(official) == 10_000
    np.testing.assert_array_equal(load_dataset("cifar10-mini").images[:], official.images[np.arange(512)])


@needs_official
@pytest.mark.skipif(
    not (Path(OFFICIAL or "") / "data_batch_1.bin").is_file(), reason="LINKSIM_TEST_CIFAR10 holds no training batches"
)
def test_the_mean_colour_is_that_of_the_official_training_set() -> None:
    train = load_cifar10_train(Path(OFFICIAL or ""))
    sums = train.sum(axis=(0, 2, 3), dtype=np.int64)
    np.testing.assert_allclose(TRAIN_MEAN, sums / (50_000 * 1024 * 255), rtol=1e-12)


def test_the_embedded_images_are_the_ones_that_were_put_there() -> None:
    mini = load_dataset("cifar10-mini")
    assert mini.images.shape == (512, 3, 32, 32)
    assert mini.fingerprint == "d4a4278000daab569ad7ab285ca4fb9ada6c85cc55f4ea982d9039a8e2202e50"
    pixels = np.ascontiguousarray(mini.images[:]).tobytes()
    assert hashlib.sha256(b"512x3x32x32" + pixels).hexdigest() == mini.fingerprint
    np.testing.assert_allclose(mini.train_mean, (0.4914, 0.4822, 0.4465), atol=5e-5)
    assert "Krizhevsky" in mini.citation


def test_the_embedded_images_take_no_folder(tmp_path: Path) -> None:
    with pytest.raises(LinksimError, match="takes no --data-dir"):
        load_dataset("cifar10-mini", tmp_path)
