"""JPEG's scan alone: bytes, sizes, and the digital baseline that counts them."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import linksim
from baselines.codecs.codec import CodecError
from baselines.codecs.jpeg import JpegCodec, JpegScanCodec
from baselines.codecs.rate_control import RateController
from baselines.codecs.select import controller
from linksim.data.datasets import embedded_images
from linksim.engine.variants import parse
from linksim.errors import LinksimError


def photos(count: int, shape: tuple[int, int, int] = (3, 32, 32)) -> np.ndarray:
    return embedded_images(512, shape)[:count].transpose(0, 2, 3, 1)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (31, 17), (256, 256)])
def test_a_scan_and_its_quality_are_the_image_of_the_whole_file(height: int, width: int) -> None:
    image = np.tile(photos(1)[0], (8, 8, 1))[:height, :width]
    whole, scan = JpegCodec(), JpegScanCodec()
    for quality in (1, 10, 50, 100):
        stream = scan.encode(image, quality)
        assert stream[-1] == quality
        shown = scan.decode(stream + bytes(7), (height, width))
        # Optimised tables change bytes and no pixel.
        np.testing.assert_array_equal(shown, whole.decode(whole.encode(image, quality), (height, width)))
    if height == 32:
        assert len(scan.encode(image, 10)) < len(whole.encode(image, 10)) - 200


def test_scans_of_cifar10_have_the_sizes_that_the_paper_leaves_room_for() -> None:
    sizes = np.array([len(JpegScanCodec().encode(image, 1)) for image in photos(256)])
    # Measured elsewhere: 59% of 400 test images fit into 30 bytes, 98.5% into 46.
    assert (sizes <= 30).mean() == pytest.approx(0.59, abs=0.1)
    assert (sizes <= 46).mean() > 0.95


def test_no_scale_is_tried_where_a_stream_cannot_say_so() -> None:
    from baselines.codecs.cache import StreamCache

    noise = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    assert RateController(JpegScanCodec(), StreamCache(None), "bisect").fit(noise, 20) == [None]


@pytest.mark.parametrize("stream", [b"", b"\xff\x00", bytes([200]), b"\x12\x34\x00\x32"])
def test_what_is_no_scan_is_told(stream: bytes) -> None:
    try:
        shown = JpegScanCodec().decode(stream, (32, 32))
    except CodecError:
        return
    assert shown.shape == (32, 32, 3)


def test_bytes_that_a_codec_does_not_have_are_refused() -> None:
    with pytest.raises(LinksimError, match="codec=jpeg has no slice: count=file or scan"):
        controller("jpeg", "slice", "bisect")
    setting = linksim.Setting(linksim.LinkConfig("awgn", 1), (3, 32, 32), Fraction(1, 6))
    for text in ("bpg-ldpc-qam-sic:codec=jpeg,count=slice", "bpg-ldpc-qam-sic:count=scan", "jpeg-ldpc-qam:count=slice"):
        with pytest.raises(LinksimError, match="has no"):
            parse(text).build(setting)


def test_the_baseline_shows_images_where_its_code_decodes(tmp_path: Path) -> None:
    table = linksim.sweep(
        tmp_path / "x", scheme="jpeg-ldpc-qam,jpeg-ldpc-qam:mcs=envelope", users=1, rho="1/6", snr="0,10", groups=64,
        metrics="psnr", progress=False,
    )  # fmt: skip
    low, high = table[table["variant"] == "jpeg-ldpc-qam"]["psnr_db"]
    # 94 bytes an image at rate 3/4: 24.2 dB on 400 test images.
    assert high == pytest.approx(24.2, abs=1.0)
    assert low < 16
    envelope = table[table["variant"] == "jpeg-ldpc-qam:mcs=envelope"]["psnr_db"].to_numpy()
    assert (envelope >= [low, high]).all()
