"""Rate control: budgets, the choice among encodings, the way down to smaller images, and what is remembered."""

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from baselines.codecs import BpgCodec, Encoding, JpegCodec, RateController, StreamCache
from baselines.codecs.rate_control import Search
from linksim.errors import LinksimError

Image = npt.NDArray[np.uint8]


def photos(count: int, side: int = 32, seed: int = 0) -> Image:
    """Images with the falling spectrum of photographs."""
    rng = np.random.default_rng(seed)
    fy, fx = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    spectrum = 1 / np.maximum(np.hypot(fy, fx), 1 / side) ** 1.3
    white = rng.standard_normal((count, 4, side, side))
    waves = np.fft.irfft2(np.fft.rfft2(white) * spectrum, (side, side))
    waves /= waves.std((2, 3), keepdims=True)
    luma, colour = waves[:, :1], waves[:, 1:]
    return np.moveaxis(np.clip(128 + 45 * luma + 12 * colour, 0, 255), 1, -1).round().astype(np.uint8)


def noise(count: int, side: int = 32, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def sent(encodings: list[Encoding | None]) -> list[Encoding]:
    return [encoding for encoding in encodings if encoding is not None]


class CountingCodec(BpgCodec):
    """Counts the images that are encoded."""

    def __init__(self) -> None:
        super().__init__("file", "pyav")
        self.encoded = 0

    def encode_many(self, images: Image, quality: int, scale: int = 1) -> list[bytes]:
        self.encoded += len(images)
        return super().encode_many(images, quality, scale)


@pytest.mark.parametrize("search", ["bisect", "ladder"])
@pytest.mark.parametrize("count", ["file", "slice"])
def test_no_budget_is_ever_exceeded_and_the_receiver_shows_what_was_measured(count: str, search: Search) -> None:
    images = np.concatenate([photos(8), noise(4)])
    codec = BpgCodec(count, "pyav")  # type: ignore[arg-type]
    control = RateController(codec, StreamCache(None), search)
    for budget in (40, 62, 64, 126, 128, 1000):
        encodings = control.fit(images, budget)
        assert all(encoding.n_bytes <= budget for encoding in sent(encodings))
        received = control.decode([e and e.stream + bytes(budget - e.n_bytes) for e in encodings], (32, 32))
        for image, encoding, shown in zip(images, encodings, received, strict=True):
            assert (encoding is None) == (shown is None)
            if encoding is not None and shown is not None:
                assert shown.shape == image.shape
                assert np.mean((shown.astype(float) - image) ** 2) == pytest.approx(encoding.mse)


def test_each_image_may_have_its_own_budget() -> None:
    images = photos(6)
    budgets = np.array([50, 60, 70, 100, 200, 400])
    control = RateController(BpgCodec("slice"), StreamCache(None))
    encodings = control.fit(images, budgets)
    assert all(e.n_bytes <= budget for e, budget in zip(sent(encodings), budgets, strict=True))
    fresh = RateController(BpgCodec("slice"), StreamCache(None))
    assert encodings == [fresh.fit(image[None], int(n))[0] for image, n in zip(images, budgets, strict=True)]


def test_the_same_image_twice_in_a_batch_is_encoded_once() -> None:
    image = photos(1)
    codec = CountingCodec()
    encodings = RateController(codec, StreamCache(None), "ladder").fit(np.repeat(image, 5, 0), 100)
    assert encodings == [encodings[0]] * 5
    assert codec.encoded == 52


def test_the_ladder_takes_the_least_error_that_fits() -> None:
    (image,) = photos(1)
    codec = BpgCodec("slice")
    control = RateController(codec, StreamCache(None), "ladder")
    streams = [codec.encode(image, quality) for quality in codec.qualities]
    sizes = np.array([len(stream) for stream in streams])
    errors = np.array([np.mean((codec.decode(stream, (32, 32)).astype(float) - image) ** 2) for stream in streams])
    assert len(sizes) == 52
    for budget in (int(sizes[-1]), 62, 126, 500):
        (encoding,) = control.fit(image[None], budget)
        assert encoding is not None
        assert encoding.mse == pytest.approx(errors[sizes <= budget].min())


def test_bisection_agrees_with_the_ladder_on_nearly_all_images() -> None:
    images = photos(24)
    cache = StreamCache(None)
    codec = BpgCodec("slice")
    for budget in (62, 126):
        ladder = sent(RateController(codec, cache, "ladder").fit(images, budget))
        bisect = sent(RateController(codec, StreamCache(None), "bisect").fit(images, budget))
        assert len(ladder) == len(bisect) == 24
        assert sum(a == b for a, b in zip(ladder, bisect, strict=True)) >= 19
        loss = [10 * np.log10(b.mse / a.mse) for a, b in zip(ladder, bisect, strict=True)]
        assert min(loss) >= 0
        assert np.mean(loss) < 0.05


def test_bisection_chooses_the_same_whatever_the_cache_holds() -> None:
    images = photos(12)
    codec = BpgCodec("slice")
    empty = RateController(codec, StreamCache(None)).fit(images, 62)
    cache = StreamCache(None)
    RateController(codec, cache, "ladder").fit(images, 90)
    assert RateController(codec, cache).fit(images, 62) == empty
    other = RateController(codec, StreamCache(None))
    other.fit(images[:5], 90)
    assert other.fit(images, 62) == empty


def test_bisection_makes_at_most_six_encodings_a_budget() -> None:
    codec = CountingCodec()
    RateController(codec, StreamCache(None)).fit(photos(10), 100)
    assert codec.encoded <= 60


@pytest.mark.parametrize("search", ["bisect", "ladder"])
def test_an_image_that_fits_at_no_quality_is_sent_at_half_size(search: Search) -> None:
    (image,) = photos(1, 128)
    codec = BpgCodec("slice")
    control = RateController(codec, StreamCache(None), search)
    smallest = len(codec.encode(image, 51))
    (full,) = control.fit(image[None], smallest)
    assert full is not None
    assert (full.quality, full.scale) == (51, 1)
    (half,) = control.fit(image[None], smallest - 1)
    assert half is not None
    assert half.scale == 2
    assert half.n_bytes < smallest
    (shown,) = control.decode([half.stream], (128, 128))
    assert shown is not None
    assert shown.shape == (128, 128, 3)
    assert np.mean((shown.astype(float) - image) ** 2) == pytest.approx(half.mse)
    (quarter,) = control.fit(image[None], len(codec.encode(image[::2, ::2], 51)) // 3)
    assert quarter is not None
    assert quarter.scale >= 4


def test_an_image_that_fits_nowhere_is_not_sent() -> None:
    control = RateController(BpgCodec("file", "pyav"), StreamCache(None))
    assert control.fit(np.concatenate([photos(1), noise(1)]), 20) == [None, None]
    jpeg = RateController(JpegCodec(), StreamCache(None), "ladder")
    assert jpeg.fit(photos(2), 128) == [None, None]


def test_a_budget_of_next_to_nothing_costs_no_ladder_of_the_small_sizes() -> None:
    codec = CountingCodec()
    control = RateController(codec, StreamCache(None), "ladder")
    assert control.fit(photos(1, 64), 10) == [None]
    assert codec.encoded == 52 + 2


def test_jpeg_is_fitted_as_bpg_is() -> None:
    images = photos(4, 64)
    control = RateController(JpegCodec(), StreamCache(None), "ladder")
    for budget in (700, 900, 1500):
        encodings = sent(control.fit(images, budget))
        assert len(encodings) == 4
        assert all(e.n_bytes <= budget for e in encodings)
        shown = control.decode([e.stream + bytes(3) for e in encodings], (64, 64))
        assert [np.mean((a.astype(float) - b) ** 2) for a, b in zip(images, shown, strict=True) if b is not None] == [
            pytest.approx(e.mse) for e in encodings
        ]


def test_a_256x256_image_fits_the_ffhq_block() -> None:
    control = RateController(BpgCodec("file", "pyav"), StreamCache(None))
    (encoding,) = sent(control.fit(photos(1, 256), 509))
    assert encoding.n_bytes <= 509
    assert encoding.mse < 1500


def test_a_second_controller_reads_from_disk_and_encodes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "streams.sqlite"
    images = np.concatenate([photos(5), noise(2)])
    first = RateController(CountingCodec(), StreamCache(path)).fit(images, 62)
    codec = CountingCodec()
    assert RateController(codec, StreamCache(path)).fit(images, 62) == first
    assert codec.encoded == 0


def test_another_process_reuses_what_was_built(tmp_path: Path) -> None:
    path = tmp_path / "streams.sqlite"
    RateController(BpgCodec("file", "pyav"), StreamCache(path), "ladder").fit(photos(3), 100)
    code = (
        "import sys; from pathlib import Path; from tests.baselines.test_rate_control import *;"
        "codec = CountingCodec(); control = RateController(codec, StreamCache(Path(sys.argv[1])), 'ladder');"
        "control.fit(photos(3), 100); control.fit(photos(3), 64); print(codec.encoded)"
    )
    command = [sys.executable, "-c", code, str(path)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert ran.stdout.split() == ["0"]


def test_codecs_of_other_settings_share_a_file_and_no_row(tmp_path: Path) -> None:
    cache = StreamCache(tmp_path / "streams.sqlite")
    images = photos(2)
    a = sent(RateController(BpgCodec("slice"), cache).fit(images, 100))
    b = sent(RateController(BpgCodec("file", "pyav"), cache).fit(images, 100))
    assert all(x.stream[:4] != b"BPG\xfb" and y.stream[:4] == b"BPG\xfb" for x, y in zip(a, b, strict=True))
    assert all(x.mse < y.mse for x, y in zip(a, b, strict=True))


def test_an_encoding_that_was_altered_on_the_disk_is_made_again(tmp_path: Path) -> None:
    import sqlite3

    path, images = tmp_path / "streams.sqlite", photos(2)
    cache = StreamCache(path)
    first = sent(RateController(CountingCodec(), cache).fit(images, 80))
    cache.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE streams SET stream = zeroblob(length(stream))")
    codec = CountingCodec()
    again = sent(RateController(codec, StreamCache(path)).fit(images, 80))
    assert again == first
    assert codec.encoded > 0
    codec = CountingCodec()
    assert sent(RateController(codec, StreamCache(path)).fit(images, 80)) == first
    assert codec.encoded == 0


def test_a_cache_that_cannot_be_written_does_not_stop_a_fit(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    images = photos(3)
    control = RateController(BpgCodec("slice"), StreamCache(tmp_path / "file" / "streams.sqlite"))
    with pytest.warns(RuntimeWarning, match="LINKSIM_CACHE"):
        encodings = control.fit(images, 80)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        control.fit(images, 90)
    assert encodings == RateController(BpgCodec("slice"), StreamCache(None)).fit(images, 80)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_controller_works_on_both_sides_of_a_fork(tmp_path: Path) -> None:
    import multiprocessing

    control = RateController(BpgCodec("slice"), StreamCache(tmp_path / "streams.sqlite"))
    images = photos(6)
    here = control.fit(images[:2], 80)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            there = pool.starmap(control.fit, [(images[:4], 80), (images[2:], 80)])
            # Leaving it ends them by a signal, which a process that was forked may be told to put off.
            pool.close()
            pool.join()
    assert there[0][:2] == here
    assert control.fit(images, 80) == there[0][:2] + there[1]


def test_lost_and_undecodable_streams_are_none() -> None:
    control = RateController(BpgCodec("slice"), StreamCache(None))
    (encoding,) = sent(control.fit(photos(1), 80))
    shown = control.decode([None, encoding.stream, b"", b"\x01\xff\xff\xff"], (32, 32))
    assert [image is None for image in shown] == [True, False, True, True]


def test_what_was_fitted_and_decoded_before_is_a_look_up() -> None:
    images = photos(50)
    control = RateController(BpgCodec("slice"), StreamCache(None))
    streams = [e.stream for e in sent(control.fit(images, 62))]
    control.decode(streams, (32, 32))
    fastest = 1.0
    for _ in range(5):
        start = time.perf_counter()
        control.fit(images, 62)
        control.decode(streams, (32, 32))
        fastest = min(fastest, time.perf_counter() - start)
    assert fastest / 50 < 100e-6


def test_unknown_searches_and_images_of_floats_are_refused() -> None:
    with pytest.raises(LinksimError, match="did you mean 'ladder'"):
        RateController(JpegCodec(), StreamCache(None), "laddr")  # type: ignore[arg-type]
    control = RateController(JpegCodec(), StreamCache(None))
    with pytest.raises(LinksimError, match="uint8 images"):
        control.fit(photos(2).astype(np.float32), 100)  # type: ignore[arg-type]
    with pytest.raises(LinksimError, match="uint8 images"):
        control.fit(photos(2)[0], 100)
