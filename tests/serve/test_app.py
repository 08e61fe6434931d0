"""The service over HTTP, without a socket."""

import asyncio
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from PIL import Image

from linksim.data import load_dataset
from linksim.data.images import decoded
from linksim.serve.app import Accepts, _image, make_app
from linksim.serve.service import Limits, Service, Turned
from linksim.serve.work import as_png
from tests.serve.test_service import served

PIXELS = np.asarray(load_dataset("cifar10-mini").images[0])
PNG = as_png(PIXELS.transpose(1, 2, 0))


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    service = Service(served(), ThreadPoolExecutor(1), 1, 0, Limits())
    with TestClient(make_app(service, Accepts(most_bytes=100_000, most_pixels=10_000))) as found:
        yield found


def encoded(image: Image.Image, kind: str = "PNG", **more: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def test_an_answer_says_what_was_sent_how_and_what_came(client: TestClient) -> None:
    answer = client.post("/v1/send?snr=10&channel=rayleigh&seed=7&group=3", content=PNG).json()
    assert (answer["scheme"], answer["channel"], answer["snr_db"]) == ("klt", "rayleigh", 10.0)
    assert (answer["seed"], answer["group"], answer["user"], answer["channel_uses"]) == (7, 3, 0, 512)
    (stage,) = answer["stages"]
    assert stage["stage"] == "first"
    assert 5 < stage["metrics"]["psnr_db"] < 50
    again = client.post("/v1/send?snr=10&channel=rayleigh&seed=7&group=3", content=PNG).json()
    assert again["stages"] == answer["stages"]


def test_images_as_they_are_and_as_a_file(client: TestClient) -> None:
    query = "/v1/send?seed=1&group=2&format="
    npy, png, said = (client.post(query + kind, content=PNG) for kind in ("npy", "png", "json"))
    shown = np.load(io.BytesIO(npy.content))
    assert shown.shape == (1, 3, 32, 32)
    assert shown.dtype == np.float32
    assert (decoded(png.content, "x") == np.round(shown[0] * 255)).all()
    psnr = -10 * np.log10(((shown[0] - PIXELS / 255) ** 2).mean())
    assert psnr == pytest.approx(said.json()["stages"][0]["metrics"]["psnr_db"], abs=1e-3)
    assert float(png.headers["x-linksim-psnr-db"]) == pytest.approx(psnr, abs=1e-3)
    assert png.headers["x-linksim-draws"] == "seed=1,group=2,user=0"


def test_a_larger_image_is_cut_and_scaled_like_those_of_a_folder(client: TestClient) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    answer = client.post("/v1/send", content=encoded(image, "JPEG")).json()
    assert (answer["width"], answer["height"]) == (32, 32)


GREY = Image.new("RGB", (40, 40), "grey")
BAD = [
    ("/v1/send", b"", 415),
    ("/v1/send", b"no image", 415),
    ("/v1/send", b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
    ("/v1/send", encoded(GREY, "GIF"), 415),
    ("/v1/send", encoded(GREY, "TIFF"), 415),
    ("/v1/send", PNG[:300], 422),
    ("/v1/send", encoded(Image.new("I;16", (40, 40))), 422),
    ("/v1/send", encoded(Image.new("RGBA", (40, 40), (1, 2, 3, 4))), 422),
    ("/v1/send", encoded(Image.new("RGB", (16, 16))), 422),
    ("/v1/send", encoded(Image.new("RGB", (200, 200))), 413),
    ("/v1/send", b"x" * 100_001, 413),
    ("/v1/send?snr=loud", PNG, 400),
    ("/v1/send?snr=nan", PNG, 400),
    ("/v1/send?snr=inf", PNG, 400),
    ("/v1/send?snr=1000", PNG, 400),
    ("/v1/send?seed=-1", PNG, 400),
    ("/v1/send?seed=9223372036854775808", PNG, 400),
    ("/v1/send?group=x", PNG, 400),
    ("/v1/send?group=4611686018427387905", PNG, 400),
    ("/v1/send?user=1", PNG, 422),
    ("/v1/send?user=-1", PNG, 400),
    ("/v1/send?format=gif", PNG, 400),
    ("/v1/send?scheme=kd", PNG, 404),
    ("/v1/send?scheme=" + "x" * 5000, PNG, 404),
    ("/v1/send?channel=rician", PNG, 404),
    ("/v1/send?channel=%00", PNG, 404),
    ("/v1/send?sheme=klt", PNG, 400),
    ("/v1/send?snr=1&snr=2", PNG, 400),
    ("/v1/nothing", PNG, 404),
    ("/health", PNG, 405),
]


@pytest.mark.parametrize(("path", "body", "status"), BAD)
def test_bad_requests_get_one_line(client: TestClient, path: str, body: bytes, status: int) -> None:
    response = client.post(path, content=body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert 5 < len(error) <= 500
    assert "\n" not in error
    assert "Traceback" not in error


def test_too_much_is_refused_before_it_is_read(client: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 10_000

    assert client.post("/v1/send", content=endless()).status_code == 413
    refused = client.post("/v1/send", content=PNG, headers={"content-length": "999999999"})
    assert refused.status_code == 413


@pytest.mark.parametrize(("headers", "read"), [([], 21), ([(b"expect", b"100-continue")], 11)])
def test_no_more_than_twice_an_image_is_thrown_away(headers: list[tuple[bytes, bytes]], read: int) -> None:
    """Who sends all before it reads has its answer; who asks first is told before it sends."""
    parts = 0

    async def receive() -> dict[str, Any]:
        nonlocal parts
        parts += 1
        return {"type": "http.request", "body": b"x" * 10_000, "more_body": parts < 40}

    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    with pytest.raises(Turned, match="send a smaller image"):
        asyncio.run(_image(request, Accepts(most_bytes=100_000)))
    assert parts == read


def test_more_than_the_queue_holds_says_when_to_come_back() -> None:
    service = Service(served(), ThreadPoolExecutor(1), 1, 0, Limits(queue=1))
    service._inside = 1
    with TestClient(make_app(service, Accepts())) as client:
        response = client.post("/v1/send", content=PNG)
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1


def test_pages_beside(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ready"}
    page = client.get("/")
    assert "<title>linksim</title>" in page.text
    assert "http" not in page.text
    text = client.get("/metrics").text
    assert 'linksim_requests_total{channel="awgn",outcome="answered",scheme="klt"}' in text
    assert client.get("/v1/examples/0.png").content == PNG
    assert client.get("/v1/examples/999.png").status_code == 400
    assert client.get("/v1/served").json()["schemes"] == ["klt"]
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/send", "/v1/served", "/health", "/metrics"} <= set(paths)
    docs = client.get("/docs").text
    assert "cdn" not in docs


def test_on_this_machine_it_answers_to_its_names_alone(client: TestClient) -> None:
    assert client.get("/health", headers={"host": "elsewhere.example"}).status_code == 400
    assert client.get("/health", headers={"host": "127.0.0.1:8000"}).status_code == 200
