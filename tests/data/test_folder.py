import hashlib
import os
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from linksim.data import DATASETS, FolderImages, load_dataset
from linksim.errors import LinksimError


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LINKSIM_CACHE", str(folder))
    return folder


def _save(path: Path, height: int, width: int, seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels.transpose(2, 0, 1)


def test_images_come_sorted_by_name_whatever_the_order_on_disk(tmp_path: Path) -> None:
    expected = {name: _save(tmp_path / name, 8, 6, seed) for seed, name in enumerate(("c.png", "a.bmp", "b.PNG"))}
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "below").mkdir()
    _save(tmp_path / "below" / "a.png", 8, 6)
    data = load_dataset(f"folder:{tmp_path}")
    assert len(data) == 3
    assert data.image_shape == (3, 8, 6)
    for image, name in zip(data.images[np.arange(3)], ("a.bmp", "b.PNG", "c.png"), strict=True):
        np.testing.assert_array_equal(image, expected[name])


def test_a_folder_says_whom_to_cite(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", 8, 8)
    assert load_dataset(f"folder:{tmp_path}").citation == ""
    (tmp_path / "CITATION.txt").write_text("A. Body: Photographs,\n2011.\n")
    assert load_dataset(f"folder:{tmp_path}").citation == "A. Body: Photographs, 2011."
    for content, hint in ((b"\xff\xfe\x00", "cannot be read as text"), (b"a" * 2000, "2000 characters")):
        (tmp_path / "CITATION.txt").write_bytes(content)
        with pytest.raises(LinksimError, match=hint):
            load_dataset(f"folder:{tmp_path}")
    (tmp_path / "CITATION.txt").unlink()
    os.mkfifo(tmp_path / "CITATION.txt")
    with pytest.raises(LinksimError, match="cannot be read as text"):
        load_dataset(f"folder:{tmp_path}")


def test_a_folder_is_indexed_like_an_array(tmp_path: Path) -> None:
    every = np.stack([_save(tmp_path / f"{i}.png", 4, 4, i) for i in range(5)])
    images = load_dataset(f"folder:{tmp_path}").images
    assert isinstance(images, FolderImages)
    for indices in (2, slice(1, 4), [3, 0], np.array([[0, 1], [4, 4]]), np.array([-1])):
        np.testing.assert_array_equal(images[indices], every[indices])
    with pytest.raises(IndexError):
        images[5]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(images))[1], every[1])


def test_larger_images_are_cropped_to_the_centre_then_scaled_by_lanczos(tmp_path: Path) -> None:
    pixels = _save(tmp_path / "wide.png", 64, 101)
    _save(tmp_path / "x.png", 16, 16)
    data = load_dataset(f"folder:{tmp_path}", image_size=16)
    centre = Image.fromarray(np.ascontiguousarray(pixels[:, :, 18:82].transpose(1, 2, 0)))
    expected = np.asarray(centre.resize((16, 16), Image.Resampling.LANCZOS)).transpose(2, 0, 1)
    np.testing.assert_array_equal(data.images[0], expected)


def test_images_of_the_right_size_are_left_alone_and_grey_ones_become_rgb(tmp_path: Path) -> None:
    pixels = _save(tmp_path / "a.png", 16, 16)
    Image.fromarray(pixels[0]).save(tmp_path / "b.png")
    images = load_dataset(f"folder:{tmp_path}", image_size=16).images
    np.testing.assert_array_equal(images[0], pixels)
    np.testing.assert_array_equal(images[1], np.repeat(pixels[:1], 3, axis=0))


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image = load_dataset(f"folder:{tmp_path}").images[0]
    np.testing.assert_array_equal(image, np.rot90(pixels, -1).transpose(2, 0, 1))


def test_a_folder_shows_mid_grey_for_a_lost_image(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", 4, 4)
    assert load_dataset(f"folder:{tmp_path}").train_mean == (0.5, 0.5, 0.5)


def test_equal_pixels_have_one_fingerprint_and_other_pixels_another(tmp_path: Path, cache: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for i in range(2):
            _save(tmp_path / name / f"{i}.png", 4, 4, i)
    one = load_dataset(f"folder:{tmp_path / 'one'}").fingerprint
    assert load_dataset(f"folder:{tmp_path / 'two'}").fingerprint == one
    assert load_dataset(f"folder:{tmp_path / 'one'}").fingerprint == one
    _save(tmp_path / "one" / "1.png", 4, 4, 7)
    assert load_dataset(f"folder:{tmp_path / 'one'}").fingerprint != one
    # Both folders hold the same bytes: they share an entry.
    assert len(list((cache / "fingerprints").iterdir())) == 2


def _save_as(path: Path, seed: int) -> np.ndarray:
    """A bitmap: its size is that of its pixels, whatever they are; its time is always the same."""
    pixels = _save(path, 4, 4, seed)
    os.utime(path, ns=(10**18, 10**18))
    return pixels


def test_an_image_replaced_by_one_of_the_same_size_and_time_is_seen(tmp_path: Path) -> None:
    _save_as(tmp_path / "a.bmp", 0)
    before = load_dataset(f"folder:{tmp_path}")
    stat = (tmp_path / "a.bmp").stat()
    pixels = _save_as(tmp_path / "a.bmp", 1)
    now = (tmp_path / "a.bmp").stat()
    assert (now.st_size, now.st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    after = load_dataset(f"folder:{tmp_path}")
    assert after.fingerprint == hashlib.sha256(b"1x3x4x4" + pixels.tobytes()).hexdigest() != before.fingerprint
    with pytest.raises(LinksimError, match="has changed since the run began"):
        before.images[0]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe no text", b"0" * 64, b"0" * 96])
def test_a_damaged_fingerprint_in_the_cache_is_computed_anew(tmp_path: Path, cache: Path, content: bytes) -> None:
    pixels = _save_as(tmp_path / "a.bmp", 0)
    expected = hashlib.sha256(b"1x3x4x4" + pixels.tobytes()).hexdigest()
    for _ in range(2):
        assert load_dataset(f"folder:{tmp_path}").fingerprint == expected
        (kept,) = (cache / "fingerprints").iterdir()
        kept.write_bytes(content)


def test_what_a_killed_process_left_in_the_cache_goes_when_it_is_old(tmp_path: Path, cache: Path) -> None:
    _save_as(tmp_path / "a.bmp", 0)
    (cache / "fingerprints").mkdir()
    old, young = (cache / "fingerprints" / name for name in (".old.part", ".young.part"))
    for path in (old, young):
        path.touch()
    os.utime(old, (0, 0))
    load_dataset(f"folder:{tmp_path}")
    assert young.exists()
    assert not old.exists()


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path / "a.png", 4, 4)
    expected = load_dataset(f"folder:{tmp_path}").fingerprint
    monkeypatch.setenv("LINKSIM_CACHE", str(tmp_path / "a.png"))
    assert load_dataset(f"folder:{tmp_path}").fingerprint == expected


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(LinksimError, match="gone"):
        load_dataset(f"folder:{tmp_path / 'gone'}")


def test_an_empty_folder_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(LinksimError, match=r"no images in .*\.png"):
        load_dataset(f"folder:{tmp_path}")


@pytest.mark.parametrize("damage", ["text", "truncated"])
def test_an_unreadable_image_is_named_before_anything_runs(tmp_path: Path, damage: str) -> None:
    _save(tmp_path / "a.png", 32, 32)
    content = b"no image" if damage == "text" else (tmp_path / "a.png").read_bytes()[:-500]
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(LinksimError, match=r"broken\.png") as caught:
        load_dataset(f"folder:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_an_image_smaller_than_asked_is_named_with_its_size(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", 16, 16)
    _save(tmp_path / "b.png", 16, 15)
    with pytest.raises(LinksimError, match=r"b\.png is 15x16, smaller than 16x16"):
        load_dataset(f"folder:{tmp_path}", image_size=16)


def test_images_of_several_sizes_need_an_image_size(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", 16, 16)
    _save(tmp_path / "b.png", 16, 15)
    with pytest.raises(LinksimError, match=r"b\.png is 15x16, the first image is 16x16.*--image-size"):
        load_dataset(f"folder:{tmp_path}")


def test_images_of_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(LinksimError, match=r"deep\.png has more than 8 bits"):
        load_dataset(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("cifar-10", "did you mean 'cifar10'"),
        ("cifar10-minni", "did you mean 'cifar10-mini'"),
        ("folder", "folder:DIR"),
        ("folder:", "names no folder"),
    ],
)
def test_an_unknown_data_set_gets_the_nearest_name(spec: str, words: str) -> None:
    with pytest.raises(LinksimError, match=words):
        load_dataset(spec)


def test_an_image_size_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LinksimError, match="image size 0"):
        load_dataset(f"folder:{tmp_path}", image_size=0)


def test_every_data_set_has_a_line_of_its_own() -> None:
    assert list(DATASETS) == ["cifar10-mini", "cifar10", "cifar10-val", "folder"]
    assert all(source.summary and "\n" not in source.summary for source in DATASETS.values())


@pytest.mark.parametrize("module", ["linksim.data.datasets", "linksim.metrics", "linksim.assets"])
def test_importing_these_loads_no_network_library(module: str) -> None:
    heavy = {"torch", "lpips", "torchvision", "torch_fidelity", "torchmetrics", "sionna"}
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _deep_png(path: Path, colours: int) -> None:
    """A PNG of 16 bits a channel, which Pillow cannot write in colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colours]
    rows = b"".join(b"\0" + b"\x12\x34" * (4 * channels) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, colours, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


@pytest.mark.parametrize("colours", [0, 2, 4, 6])
def test_sixteen_bits_a_channel_are_refused_whatever_the_channels(tmp_path: Path, colours: int) -> None:
    _deep_png(tmp_path / "deep.png", colours)
    with pytest.raises(LinksimError, match=r"deep\.png has more than 8 bits"):
        load_dataset(f"folder:{tmp_path}")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_refused_and_a_full_alpha_channel_changes_nothing(tmp_path: Path, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    image = Image.fromarray(pixels)
    image.convert(mode).save(tmp_path / "a.png")
    expected = np.asarray(image.convert(mode).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(load_dataset(f"folder:{tmp_path}").images[0], expected)
    pixels[1, 2, 3] = 254
    image = Image.fromarray(pixels)
    if mode == "P":
        image.convert("P").save(tmp_path / "a.png", transparency=bytes([0] * 256))
    else:
        image.convert(mode).save(tmp_path / "a.png")
    with pytest.raises(LinksimError, match=r"a\.png has transparent pixels"):
        load_dataset(f"folder:{tmp_path}")


def test_images_of_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", 4, 4)
    for name in ("b.tif", "c.gif", "d.PPM"):
        _save(tmp_path / name, 4, 4)
    (tmp_path / "notes.txt").touch()
    assert load_dataset(f"folder:{tmp_path}").passed_over == ("b.tif", "c.gif", "d.PPM")
