"""Codecs: round trips, the BPG container against an independent decoder, damaged streams, the cache."""

import io
import os
import sqlite3
import stat
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from baselines.codecs import BpgCodec, CodecError, ImageCodec, JpegCodec, StreamCache, default_path, parse_bpg
from baselines.codecs import bpg as bpg_module
from baselines.codecs.bpg_file import BpgFile
from baselines.codecs.cache import Row, image_key
from baselines.codecs.codec import scaled_size
from baselines.codecs.colour import rgb_to_yuv420, yuv420_to_rgb
from baselines.codecs.hevc import escape, split_annexb, unescape
from linksim.errors import LinksimError

Image = npt.NDArray[np.uint8]

CODECS: dict[str, Callable[[], ImageCodec]] = {
    "bpg file": lambda: BpgCodec("file", "pyav"),
    "bpg slice": lambda: BpgCodec("slice", "pyav"),
    "jpeg": JpegCodec,
}


def smooth(height: int, width: int, seed: int = 0) -> Image:
    """A few coloured waves of low frequency."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [rng.uniform(-40, 40) * np.sin(6 * (a * x + b * y) + c) for a, b, c in rng.uniform(0, 1, (9, 3))]
    planes = np.stack(waves).reshape(3, 3, height, width).sum(0)
    return np.clip(128 + np.moveaxis(planes, 0, -1), 0, 255).round().astype(np.uint8)


def noise(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def psnr(a: Image, b: Image) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> ImageCodec:
    return CODECS[request.param]()


def test_the_best_quality_shows_a_smooth_image_as_well_as_420_allows(codec: ImageCodec) -> None:
    image = smooth(64, 48)
    stream = codec.encode(image, codec.qualities[0])
    assert psnr(codec.decode(stream, (64, 48)), image) > 38


def test_worse_qualities_give_smaller_streams(codec: ImageCodec) -> None:
    image = smooth(32, 32)
    n_bytes = [len(codec.encode(image, quality)) for quality in codec.qualities[::10]]
    assert n_bytes == sorted(n_bytes, reverse=True)
    assert n_bytes[0] > n_bytes[-1]


@pytest.mark.parametrize("size", [(32, 32), (33, 31), (16, 57), (20, 9), (129, 200)])
def test_images_of_any_size_come_back_in_their_size(codec: ImageCodec, size: tuple[int, int]) -> None:
    image = smooth(*size)
    shown = codec.decode(codec.encode(image, codec.qualities[5]), size)
    assert shown.dtype == np.uint8
    assert shown.shape == image.shape
    assert psnr(shown, image) > 34


def test_a_stream_never_ends_in_zero_and_zeros_after_it_change_nothing(codec: ImageCodec) -> None:
    for seed in range(20):
        stream = codec.encode(smooth(32, 32, seed), codec.qualities[-10])
        assert stream[-1] != 0
        shown = codec.decode(stream, (32, 32))
        for padding in (1, 2, 61):
            assert np.array_equal(codec.decode(stream + bytes(padding), (32, 32)), shown)


def test_a_batch_gives_the_bytes_and_pictures_of_its_images_alone(codec: ImageCodec) -> None:
    images = np.stack([smooth(32, 32, seed) for seed in range(8)] + [noise(32, 32, seed) for seed in range(4)])
    for quality in codec.qualities[1::17]:
        streams = codec.encode_many(images, quality)
        assert streams == [codec.encode(image, quality) for image in images]
        assert codec.encode_many(images[::-1], quality) == streams[::-1]
        alone = [codec.decode(stream, (32, 32)) for stream in streams]
        assert np.array_equal(codec.decode_many(streams, (32, 32)), alone)


def test_a_damaged_stream_gives_the_same_image_again_or_a_codec_error(codec: ImageCodec) -> None:
    rng = np.random.default_rng(1)
    stream = codec.encode(smooth(32, 32), codec.qualities[len(codec.qualities) // 2])
    outcomes: set[bool] = set()
    for _ in range(300):
        damaged = bytearray(stream[: None if rng.random() < 0.8 else rng.integers(len(stream))])
        for at in rng.integers(0, 8 * max(len(damaged), 1), rng.integers(1, 4)):
            if damaged:
                damaged[at // 8] ^= 1 << at % 8
        shown: list[bytes | None] = []
        for _ in range(2):
            try:
                image = codec.decode(bytes(damaged), (32, 32))
                assert image.shape[2] == 3
                shown.append(image.tobytes())
            except CodecError:
                shown.append(None)
        assert shown[0] == shown[1]
        outcomes.add(shown[0] is None)
    assert outcomes == {True, False}


@pytest.mark.parametrize("garbage", [b"", b"\0", b"\1", b"BPG\xfb", b"BPG\xfb\x20\0\x20\x20\0\3abc", bytes(99)])
def test_what_is_no_stream_is_a_codec_error(codec: ImageCodec, garbage: bytes) -> None:
    with pytest.raises(CodecError):
        codec.decode(garbage, (32, 32))


def test_a_header_that_claims_another_picture_size_is_a_codec_error(codec: ImageCodec) -> None:
    stream = codec.encode(smooth(64, 64), codec.qualities[20])
    if "slice" in codec.settings:
        stream = bytes((3,)) + stream[1:]
    with pytest.raises(CodecError):
        codec.decode(stream, (48, 48))


def test_a_shrunk_image_comes_back_shrunk(codec: ImageCodec) -> None:
    size = scaled_size((65, 40), 2)
    assert size == (33, 20)
    shown = codec.decode(codec.encode(smooth(*size), codec.qualities[0], scale=2), (65, 40))
    assert shown.shape[:2] == size


def test_an_unknown_quality_or_shape_is_refused_in_one_line(codec: ImageCodec) -> None:
    for image, quality in ((smooth(32, 32), 101), (smooth(32, 32)[..., 0], 10), (smooth(32, 32)[..., :2], 10)):
        with pytest.raises(LinksimError) as refusal:
            codec.encode(image, quality)
        assert "\n" not in str(refusal.value)


def test_bpg_refuses_sides_under_nine_pixels() -> None:
    with pytest.raises(LinksimError, match="9 pixels or more, not 32x8"):
        BpgCodec("file", "pyav").encode(smooth(8, 32), 30)


def test_unknown_bpg_options_name_the_nearest() -> None:
    with pytest.raises(LinksimError, match="did you mean 'slice'"):
        BpgCodec("slices")  # type: ignore[arg-type]
    with pytest.raises(LinksimError, match="did you mean 'pyav'"):
        BpgCodec("file", "av")  # type: ignore[arg-type]


def test_the_settings_tell_codec_version_and_count_apart() -> None:
    settings = [make().settings for make in CODECS.values()]
    assert len(set(settings)) == 3
    assert "x265" in settings[0]
    assert "count=file" in settings[0]
    assert "count=slice" in settings[1]


# Colour


def test_grey_has_no_chroma_and_comes_back_exactly() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), 3, 3)
    frames = rgb_to_yuv420(grey)
    assert np.array_equal(frames[:, :16], grey[..., 0])
    assert (frames[:, 16:] == 128).all()
    assert np.array_equal(yuv420_to_rgb(frames), grey)


def test_colours_follow_the_full_range_bt601_matrix() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (500, 1, 1, 3), dtype=np.uint8)
    frames = rgb_to_yuv420(np.broadcast_to(colours, (500, 2, 2, 3)))
    r, g, b = (colours[:, 0, 0, i].astype(float) for i in range(3))
    y = 0.299 * r + 0.587 * g + 0.114 * b
    expected = np.stack([y, 128 + (b - y) / 1.772, 128 + (r - y) / 1.402], 1)
    found = np.concatenate([frames[:, 0, :1], frames[:, 2, :2]], 1)
    assert np.abs(found - expected).max() < 0.52
    back = yuv420_to_rgb(frames)[:, 0, 0]
    assert np.abs(back.astype(int) - colours[:, 0, 0]).max() <= 2


def test_chroma_stays_in_its_place() -> None:
    ramp = np.zeros((1, 64, 64, 3), np.uint8)
    ramp[..., 0] = 60 + 2 * np.arange(64)
    ramp[..., 2] = 60 + 2 * np.arange(64)[:, None]
    back = yuv420_to_rgb(rgb_to_yuv420(ramp))
    assert np.abs(back[:, 2:-2, 2:-2].astype(int) - ramp[:, 2:-2, 2:-2]).max() <= 2


# The container


@pytest.mark.parametrize("size", [(32, 32), (33, 31), (256, 256), (200, 129)])
def test_a_bpg_file_tells_its_true_size_and_kind(size: tuple[int, int]) -> None:
    stream = BpgCodec("file", "pyav").encode(smooth(*size), 30)
    assert stream[:4] == b"BPG\xfb"
    assert stream[4] >> 5 == 1, "4:2:0, chroma in the middle"
    assert stream[4] & 0b11111 == 0, "no alpha, 8 bits"
    assert stream[5] == 0, "BT.601, full range, no extension, no animation"
    picture = parse_bpg(stream)
    assert (picture.height, picture.width) == size
    assert picture.coded_size == (-(-size[1] // 8) * 8, -(-size[0] // 8) * 8)
    assert picture.to_bytes() == stream


def test_a_bpg_file_is_23_bytes_longer_than_the_slice_at_32x32() -> None:
    image = smooth(32, 32)
    assert len(BpgCodec("file", "pyav").encode(image, 30)) - len(BpgCodec("slice").encode(image, 30)) == 23


def test_a_bpg_file_with_an_extension_and_a_data_length_is_read() -> None:
    codec = BpgCodec("file", "pyav")
    plain = codec.encode(smooth(32, 32), 30)
    extension = b"\x05\x01\x03abc"
    n_picture = len(plain) - 9
    assert n_picture < 128
    flags, sizes, length = bytes((plain[5] | 8,)), plain[6:8], bytes((n_picture,))
    long = plain[:5] + flags + sizes + length + extension + plain[9:] + b"what follows the picture"
    assert parse_bpg(long) == parse_bpg(plain)


def test_bpg_files_of_other_kinds_are_codec_errors() -> None:
    stream = BpgCodec("file", "pyav").encode(smooth(32, 32), 30)
    for at, value in ((4, 0x60), (4, 0x22), (4, 0x30), (5, 0x10), (5, 0x02), (5, 0x01), (5, 0x04)):
        other = stream[:at] + bytes((value,)) + stream[at + 1 :]
        with pytest.raises(CodecError):
            parse_bpg(other)
    huge = stream[:6] + b"\x8f\xff\xff\xff\x7f" * 2 + stream[8:]
    with pytest.raises(CodecError, match="pixels"):
        parse_bpg(huge)


def test_emulation_prevention_is_undone_exactly() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        rbsp = rng.choice([0, 0, 0, 1, 2, 3, 4, 255], rng.integers(1, 30)).astype(np.uint8).tobytes() + b"\x80"
        escaped = escape(rbsp)
        assert unescape(escaped) == rbsp
        assert not any(code in escaped for code in (b"\0\0\0", b"\0\0\1", b"\0\0\2"))


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def full_box(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def heif_of(picture: BpgFile) -> bytes:
    """A minimal HEIF file (ISO/IEC 23008-12) around a BPG picture's HEVC stream."""
    *parameter_sets, slice_nal = split_annexb(picture.to_annexb())
    width, height = picture.coded_size
    # ISO/IEC 14496-15, 8.3.3.1.2: version, profile, compatibility, constraints, level, ..., 8 bits, 4-byte lengths
    configuration = bytes((1, 3)) + (0b0111 << 28).to_bytes(4, "big") + b"\x90" + bytes(5) + bytes((186,))
    configuration += bytes((0xF0, 0, 0xFC, 0xFD, 0xF8, 0xF8, 0, 0, 0x0F, len(parameter_sets)))
    for nal in parameter_sets:
        configuration += bytes((0x80 | nal[0] >> 1, 0, 1)) + struct.pack(">H", len(nal)) + nal
    properties = box(
        b"ipco",
        box(b"hvcC", configuration),
        full_box(b"ispe", struct.pack(">II", width, height)),
        box(b"colr", b"nclx", struct.pack(">HHHB", 1, 13, 5, 0x80)),
    )
    association = full_box(b"ipma", struct.pack(">IHB", 1, 1, 3), bytes((0x81, 2, 3)))
    data = struct.pack(">I", len(slice_nal)) + slice_nal
    kind = box(b"ftyp", b"heic", bytes(4), b"mif1heic")

    def meta(offset: int) -> bytes:
        return full_box(
            b"meta",
            full_box(b"hdlr", bytes(4), b"pict", bytes(13)),
            full_box(b"pitm", struct.pack(">H", 1)),
            full_box(b"iloc", bytes((0x44, 0)), struct.pack(">HHHHII", 1, 1, 0, 1, offset, len(data))),
            full_box(
                b"iinf", struct.pack(">H", 1), full_box(b"infe", struct.pack(">HH4sB", 1, 0, b"hvc1", 0), version=2)
            ),
            box(b"iprp", properties, association),
        )

    return kind + meta(len(kind) + len(meta(0)) + 8) + box(b"mdat", data)


@pytest.mark.parametrize("quality", [0, 20, 38, 51])
@pytest.mark.parametrize("size", [(32, 32), (45, 70), (128, 128)])
def test_an_independent_hevc_decoder_reads_a_bpg_file(size: tuple[int, int], quality: int) -> None:
    """libde265 (by libheif), where the product decodes by FFmpeg.

    Grey and flat pictures must agree to rounding; in others libheif's chroma filter differs from ours.
    """
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is in the extra 'test'")
    image = smooth(*size)
    grey = np.repeat(image[..., :1], 3, 2)
    flat = np.full_like(image, (200, 90, 40))
    codec = BpgCodec("file", "pyav")
    for pixels, largest, mean in ((grey, 1, 0.5), (flat, 2, 1.0), (image, 12, 1.5)):
        stream = codec.encode(pixels, quality)
        other = pillow_heif.open_heif(io.BytesIO(heif_of(parse_bpg(stream))), convert_hdr_to_8bit=False)
        shown = np.asarray(other)[: size[0], : size[1], :3]
        difference = np.abs(shown.astype(int) - codec.decode(stream, size))
        assert difference.max() <= largest
        assert difference.mean() <= mean


# The programs bpgenc and bpgdec, played by scripts

PROGRAM = """#!{python}
import argparse, sys
sys.path[:0] = {path!r}
from pathlib import Path
import numpy as np
from PIL import Image
from baselines.codecs import BpgCodec, CodecError
if "-h" in sys.argv:
    print("BPG Image Encoder version 0.9.8")
    sys.exit(1)
parser = argparse.ArgumentParser()
for flag in "qfbo":
    parser.add_argument("-" + flag)
parser.add_argument("source")
given = parser.parse_args()
codec = BpgCodec("file", "pyav")
if "enc" in sys.argv[0]:
    Path(given.o).write_bytes(codec.encode(np.asarray(Image.open(given.source)), int(given.q)))
else:
    try:
        Image.fromarray(codec.decode(Path(given.source).read_bytes(), (32, 32))).save(given.o)
    except CodecError as error:
        sys.exit(str(error))
"""


@pytest.fixture
def bpg_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bpgenc", "bpgdec"):
        program = tmp_path / name
        program.write_text(PROGRAM.format(python=sys.executable, path=[str(Path(__file__).parents[2])]))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    bpg_module._bpgenc_version.cache_clear()


@pytest.mark.usefixtures("bpg_programs")
def test_the_real_programs_are_preferred_for_files_when_they_are_on_path() -> None:
    codec = BpgCodec("file")
    assert codec.settings == "bpg bpgenc 0.9.8 420 count=file"
    assert "x265" in BpgCodec("slice").settings
    image = smooth(32, 32)
    stream = codec.encode(image, 30)
    in_process = BpgCodec("file", "pyav")
    assert stream == in_process.encode(image, 30)
    assert np.array_equal(codec.decode(stream + bytes(5), (32, 32)), in_process.decode(stream, (32, 32)))
    with pytest.raises(CodecError, match="bpgdec"):
        codec.decode(stream[:-30], (32, 32))


@pytest.mark.usefixtures("bpg_programs")
def test_the_programs_cannot_be_asked_for_slices() -> None:
    with pytest.raises(LinksimError, match="pyav"):
        BpgCodec("slice", "bpgenc")


def test_asking_for_missing_programs_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LinksimError, match=r"bpgenc or bpgdec on PATH.*'pyav'"):
        BpgCodec("file", "bpgenc")
    assert "x265" in BpgCodec("file").settings


# The cache

ROWS = [(b"i" * 16, 1, quality, Row(bytes((quality,)) * 9, quality / 3)) for quality in range(20)]


def test_the_cache_gives_back_what_another_process_put_in(tmp_path: Path) -> None:
    path = tmp_path / "below" / "streams.sqlite"
    code = (
        "import sys; from pathlib import Path; from tests.baselines.test_codecs import ROWS;"
        "from baselines.codecs import StreamCache; StreamCache(Path(sys.argv[1])).put('s', ROWS)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=Path(__file__).parents[2])
    cache = StreamCache(path)
    assert cache.get("s", b"i" * 16, 1) == {quality: row for _, _, quality, row in ROWS}
    assert cache.get("other settings", b"i" * 16, 1) == {}
    assert cache.get("s", b"j" * 16, 1) == {}
    assert cache.get("s", b"i" * 16, 2) == {}


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "streams.sqlite"
    code = (
        "import sys; from pathlib import Path; from baselines.codecs import StreamCache;"
        "from baselines.codecs.cache import Row; cache = StreamCache(Path(sys.argv[1])); me = sys.argv[2];"
        "[cache.put('s', [(f'{me}{i:015}'.encode(), 1, 7, Row(me.encode() * 50, 1.0)),"
        " (b'c' * 16, 1, i, Row(b'common', 2.0))]) for i in range(60)]"
    )
    processes = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", code, str(path), name], cwd=Path(__file__).parents[2])
        for name in "123"
    ]
    assert [process.wait(timeout=1200) for process in processes] == [0, 0, 0]
    cache = StreamCache(path)
    assert len(cache.get("s", b"c" * 16, 1)) == 60
    for name in "123":
        for i in range(60):
            assert cache.get("s", f"{name}{i:015}".encode(), 1) == {7: Row(name.encode() * 50, 1.0)}


def unusable_folder(folder: Path) -> Path:
    (folder / "file").write_text("no folder")
    return folder / "file" / "streams.sqlite"


def corrupt_file(folder: Path) -> Path:
    path = folder / "streams.sqlite"
    path.write_bytes(b"this is no data base " * 100)
    return path


def file_of_another_format(folder: Path) -> Path:
    path = folder / "streams.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    return path


def read_only_folder(folder: Path) -> Path:
    if os.geteuid() == 0:
        pytest.skip("root writes to read-only folders")
    folder.chmod(0o500)
    return folder / "streams.sqlite"


@pytest.mark.parametrize("make", [unusable_folder, corrupt_file, file_of_another_format, read_only_folder])
def test_a_cache_file_of_no_use_warns_once_and_the_cache_goes_on(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            cache = StreamCache(path)
            assert cache.get("s", b"i" * 16, 1) == {}
            cache.put("s", ROWS)
            assert len(cache.get("s", b"i" * 16, 1)) == 20
            cache.put("s", [(b"j" * 16, 1, 0, Row(b"x", 0.0))])
    (warning,) = caught
    assert "LINKSIM_CACHE" in str(warning.message)
    assert str(path) in str(warning.message)
    assert "\n" not in str(warning.message)


def test_a_full_disk_warns_once_and_what_is_there_is_still_read(tmp_path: Path) -> None:
    cache = StreamCache(tmp_path / "streams.sqlite")
    cache.put("s", ROWS)
    pages = cache._open().execute("PRAGMA page_count").fetchone()[0]
    cache._open().execute(f"PRAGMA max_page_count = {pages}")
    with pytest.warns(RuntimeWarning, match="LINKSIM_CACHE"):
        cache.put("s", [(b"j" * 16, 1, 0, Row(bytes(100_000), 0.0))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put("s", [(b"k" * 16, 1, 0, Row(bytes(100_000), 0.0))])
        assert cache.get("s", b"k" * 16, 1)
    again = StreamCache(tmp_path / "streams.sqlite")
    assert len(again.get("s", b"i" * 16, 1)) == 20
    assert again.get("s", b"j" * 16, 1) == {}


def test_memory_holds_the_images_used_last(tmp_path: Path) -> None:
    cache = StreamCache(None, memory_bytes=3000)
    for image in (b"a", b"b", b"a", b"c"):
        cache.get("s", image, 1)
        cache.put("s", [(image, 1, 0, Row(bytes(1000), 0.0))])
    assert cache.get("s", b"a", 1)
    assert cache.get("s", b"c", 1)
    assert not cache.get("s", b"b", 1)


def test_the_default_cache_stands_in_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINKSIM_CACHE", str(tmp_path))
    assert default_path() == tmp_path / "streams.sqlite"


def test_images_of_equal_bytes_and_other_shape_have_other_keys() -> None:
    image = noise(4, 8)
    assert image_key(image) == image_key(image.copy())
    assert image_key(image) != image_key(image.reshape(8, 4, 3))
