"""Images to train on: split by content, prepared once, read at random without filling the memory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from linksim import LinksimError
from linksim.cache import write_entry
from linksim.data import training
from linksim.data.datasets import embedded_images, load_dataset
from linksim.data.images import read_image
from linksim.data.training import StoredImages, TrainingData, name_of, training_set_of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve images of 48x40."""
    monkeypatch.setenv("LINKSIM_CACHE", str(tmp_path / "cache"))
    made = tmp_path / "pictures"
    made.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 40, 48, 3), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(made / f"{number:02d}.png")
    return made


def test_a_folder_is_split_by_its_content_and_every_pixel_is_there(folder: Path) -> None:
    data = TrainingData(f"folder:{folder}", image_size="48x40")
    assert data.image_shape == (3, 40, 48)
    found = data.load()
    assert (len(found), len(found.held_out), found.image_shape) == (8, 4, (3, 40, 48))
    every = np.stack([read_image(path, None) for path in sorted(folder.iterdir())])
    there = np.concatenate([found.all(), found.held_out])
    assert sorted(image.tobytes() for image in there) == sorted(image.tobytes() for image in every)
    assert found.sha256 == load_dataset(f"folder:{folder}").fingerprint
    assert found.words.replace(training.VALIDATED, "2") == (
        "folder:pictures, 8 images of 48x40; validation on 2 of the other 4"
    )
    # Other names, another order: the same images are set apart.
    for path in sorted(folder.iterdir()):
        path.rename(folder / f"{99 - int(path.stem)}.png")
    again = data.load()
    assert {image.tobytes() for image in again.held_out} == {image.tobytes() for image in found.held_out}


def test_parts_of_images_are_read_from_several_files_of_the_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_SHARD", 5 * 3 * 40 * 48)
    found = TrainingData(f"folder:{folder}", image_size="48x40").load()
    assert isinstance(found.images, StoredImages)
    assert len(list((folder.parent / "cache" / "training").glob("*/0*"))) == 3
    every = found.all()
    rows, corners = np.array([7, 0, 3, 3]), np.array([[0, 0], [8, 16], [5, 1], [2, 2]])
    parts = found.crops(rows, corners, (32, 24))
    for part, row, (top, left) in zip(parts, rows, corners, strict=True):
        np.testing.assert_array_equal(part, every[row, :, top : top + 32, left : left + 24])


def test_what_was_prepared_is_used_again_and_what_was_damaged_is_made_anew(folder: Path) -> None:
    data, told = TrainingData(f"folder:{folder}", image_size=32), []
    first = data.load(lambda done, total: told.append((done, total)))
    assert told == [(0, 12), (12, 12)]
    data.load(lambda done, total: told.append((done, total)))
    assert len(told) == 2
    (file,) = (folder.parent / "cache" / "training").glob("*/00000")
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    second = data.load(lambda done, total: told.append((done, total)))
    assert len(told) == 4
    np.testing.assert_array_equal(second.all(), first.all())
    # So is an index of another form, and a file that is shorter than it says.
    for damage in (b"[1, 2]", b'{"counts": [12]}'):
        write_entry(file.with_name("index"), damage)
        data.load(lambda done, total: told.append((done, total)))
    write_entry(file, b"short")
    data.load(lambda done, total: told.append((done, total)))
    assert len(told) == 10
    # A replaced image is another data set, whatever its name, size and time.
    path = folder / "03.png"
    stamp = path.stat()
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert data.load().sha256 != first.sha256


def test_images_to_choose_by_may_be_another_folder(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "others"
    other.mkdir()
    for number, image in enumerate(embedded_images(5, (3, 32, 32))):
        Image.fromarray(image.transpose(1, 2, 0)).save(other / f"{number}.png")
    data = TrainingData(f"folder:{folder}", image_size=32, validation=f"folder:{other}")
    found = data.load()
    assert (len(found), len(found.held_out), found.validation) == (12, 5, "folder:others")
    np.testing.assert_array_equal(found.held_out, embedded_images(5, (3, 32, 32)))
    assert data.words == [
        "--dataset", f"folder:{folder}", "--image-size", "32", "--validation", f"folder:{other}",
    ]  # fmt: skip


def test_the_same_pixels_in_other_files_are_split_alike(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "{again}"
    again.mkdir()
    for path in sorted(folder.iterdir()):
        Image.open(path).save(again / f"{path.stem}.bmp")
    first, second = (TrainingData(f"folder:{place}", image_size=32).load() for place in (folder, again))
    assert first.sha256 == second.sha256
    np.testing.assert_array_equal(first.held_out, second.held_out)
    assert second.words.replace(training.VALIDATED, "2").startswith(
        "folder:{again}, 8 images of 32x32; validation on 2"
    )
    with pytest.raises(LinksimError, match="12 of its images are among those to train on"):
        TrainingData(f"folder:{folder}", image_size=32, validation=f"folder:{again}").load()


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ({"dataset": "cifar10-mini"}, "--dataset cifar10-mini: its images are for tests"),
        ({"dataset": "cifar10-val"}, "its images are for tests"),
        ({"dataset": "folder:."}, "--image-size 256"),
        ({"dataset": "folder:.", "image_size": 0}, "image size 0: give the side"),
        ({"dataset": "folder:.", "image_size": "12x"}, "image size '12x': give the side"),
        ({"dataset": "folder:.", "image_size": 8, "data_dir": Path()}, "takes no --data-dir"),
        ({"image_size": 64}, "cifar10 has images of 32x32"),
        ({"validation": "folder:."}, "leave --validation out"),
        ({"dataset": "nosuch"}, "unknown data set 'nosuch'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(asked: dict[str, object], hint: str) -> None:
    with pytest.raises(LinksimError, match=hint):
        TrainingData(**asked)  # type: ignore[arg-type]


def test_too_few_images_and_no_room_are_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in sorted(folder.iterdir())[7:]:
        path.unlink()
    with pytest.raises(LinksimError, match="has 7 images: 8 at least"):
        TrainingData(f"folder:{folder}", image_size=32).load()
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(folder / "a.png")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LINKSIM_CACHE", str(tmp_path / "file"))
    with pytest.raises(LinksimError, match=r"cannot hold the images to train on, 0 MiB .*LINKSIM_CACHE"):
        TrainingData(f"folder:{folder}", image_size=32).load()


def test_images_that_stand_are_turned_where_a_lying_size_is_asked_for(folder: Path) -> None:
    lying, standing = (read_image(folder / "00.png", size) for size in ("48x40", "40x48"))
    np.testing.assert_array_equal(standing, np.rot90(lying, axes=(1, 2)))
    # A square is the middle of the image, as large as it fits, scaled.
    square = read_image(folder / "00.png", 40)
    np.testing.assert_array_equal(square, lying[:, :, 4:44])


def test_embedded_images_of_any_size_are_those_inside_the_package() -> None:
    mini = load_dataset("cifar10-mini").images
    np.testing.assert_array_equal(embedded_images(3, (3, 32, 32)), mini[:3])
    large = embedded_images(6, (3, 48, 64))
    assert len(large) == 2
    np.testing.assert_array_equal(large[0, :, :32, 32:], mini[1])
    np.testing.assert_array_equal(large[1, :, 32:, :32], mini[6, :, :16])


def test_a_cards_name_of_a_folder_is_not_its_place() -> None:
    assert name_of("folder:/home/me/ffhq256") == "folder:ffhq256"
    assert name_of("cifar10") == "cifar10"
    assert training_set_of(np.zeros((20, 3, 8, 8), np.uint8)).name == "array"


#: Draws from 3 GB of random images, and prints the highest memory of the process before and after, in KiB.
_STREAM = """
import resource, sys
from pathlib import Path
import numpy as np, torch
from linksim.cache import write_entry
from linksim.data.training import StoredImages, TrainingSet
from linksim.models.pool import Pool
folder, each, count = Path(sys.argv[1]), 1024, int(sys.argv[2])
rng = np.random.default_rng(0)
files = []
for number in range(count):
    write_entry(folder / str(number), rng.bytes(each * 3 * 256 * 256))
    files.append((folder / str(number), number * each, each))
images = StoredImages(files, (3, 256, 256))
held = images.crops(np.arange(4), np.zeros((4, 2), int), (256, 256))
pool = Pool(TrainingSet("random", images, np.arange(each * count), held, "", ""))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for step in range(200):
    torch.manual_seed(step)
    pool.draw((16, 2), True, 64)
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_data_set_larger_than_memory_is_read_as_it_is_drawn(tmp_path: Path) -> None:
    # 0.75 GiB in the test; with 16 files it is 3 GB.
    ran = subprocess.run(
        [sys.executable, "-c", _STREAM, str(tmp_path), "4"], capture_output=True, text=True, check=True
    )
    before, after = map(int, ran.stdout.split())
    assert after - before < 100 * 1024
