"""The service over HTTP: a FastAPI application and the server that runs it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import re
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from importlib import resources
from types import FrameType
from typing import Annotated, Any, Literal

import numpy as np
import uvicorn
from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from linksim.data import load_dataset
from linksim.data.images import ImageSize, decoded
from linksim.engine.variants import Variant
from linksim.errors import LinksimError, shown, unknown
from linksim.link.channels import channel_label
from linksim.metrics import METRICS
from linksim.serve.service import Answer, Asked, Service, Turned
from linksim.serve.work import EMBEDDED, as_png
from linksim.version import __version__

#: Formats that are decoded, by Pillow's names.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")

#: What `/v1/send` can be told.
_QUERY = ("scheme", "channel", "snr", "seed", "group", "user", "format")

#: Names of this machine; "testserver" is that of a test without a socket.
_NAMES = ("localhost", "127.0.0.1", "[::1]", "testserver")

#: From here on an image is decoded beside the event loop.
_LARGE_BYTES = 1 << 16

#: Seconds that connections have for requests that are on their way when the server is told to stop.
_GRACE_SECONDS = 0.5

#: Largest number of a group that has draws.
_LAST_GROUP = 2**62


@dataclass(frozen=True)
class Accepts:
    """What the door lets in.

    Args:
        image_size: that images are cut and scaled to, as those of a folder; None takes them as they are.
        most_bytes: of an image's file.
        most_pixels: of an image.
        seconds: for the whole of a request's body to come.
        local: whether the server listens on this machine alone; then it answers to this machine's names alone.
    """

    image_size: ImageSize | None = 32
    most_bytes: int = 8 << 20
    most_pixels: int = 1 << 20
    seconds: float = 20.0
    local: bool = True


class StageOut(BaseModel):
    """What one stage shows.

    Args:
        stage: `first`, or the refiner's name.
        metrics: column -> value, against what was sent.
        lost: whether the receiver knows that the image did not arrive.
        png: the image, a PNG file in base64.
    """

    stage: str
    metrics: dict[str, float]
    lost: bool
    png: str


class AnswerOut(BaseModel):
    """One image's way over the link; see `linksim.serve.service.Answer`.

    Args:
        width, height: of the image that was sent.
        original: what was sent, a PNG file in base64.
    """

    scheme: str
    channel: str
    snr_db: float
    width: int
    height: int
    channel_uses: int
    users: int
    user: int
    seed: int
    group: int
    stand_ins: int
    batch: int
    symbols_cached: bool
    delivered_cached: bool
    waited_s: float
    worked_s: float
    original: str
    stages: list[StageOut]


class ServedOut(BaseModel):
    """What is served."""

    version: str
    schemes: list[str]
    channels: list[str]
    users: int
    antennas: int
    power: str
    metrics: dict[str, bool]
    image_size: str | int | None


class ErrorOut(BaseModel):
    """What is wrong, and the way out, in one line."""

    error: str


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorOut, "description": text}
    for status, text in {
        400: "no number where one is wanted, or out of range",
        404: "no such scheme, channel or page",
        408: "the image did not come in time",
        413: "too many bytes or pixels",
        415: "no PNG, JPEG, WebP or BMP file",
        422: "images that the scheme does not take",
        429: "too many requests: Retry-After says when to ask again",
        503: "the server stops, or a process of it ended",
        504: "not done in time",
    }.items()
}

_BODY = {
    "requestBody": {
        "required": True,
        "description": "the image's file: PNG, JPEG, WebP or BMP",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def make_app(start: Callable[[], AsyncIterator[Service]] | Service, accepts: Accepts) -> FastAPI:
    """The application.

    Args:
        start: the service, or what makes one: an asynchronous generator that yields it once and then ends it.
        accepts: what is let in.
    """
    made: dict[str, Any] = {
        "service": start if isinstance(start, Service) else None,
        "stopping": False,
        "arriving": 0,
        "error": None,
    }

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if isinstance(start, Service):
            yield
            return
        try:
            async with contextlib.asynccontextmanager(start)() as service:
                made["service"] = service
                yield
                made["stopping"] = True
                await service.drain()
        except LinksimError as error:
            made["error"] = error
            raise

    # The page of the API brings its own scripts: it works without a connection.
    app = FastAPIOffline(
        title="linksim",
        version=__version__,
        summary="Images of many users over one simulated link.",
        lifespan=lifespan,
        responses=_ERRORS,
    )
    app.state.made = made

    @app.middleware("http")
    async def named(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        # A page of elsewhere, whose name was made to lead here, is not answered.
        host = request.headers.get("host", "")
        if accepts.local and re.sub(r":[0-9]*$", "", host) not in _NAMES:
            return _error(400, f"host {shown(host)}: this server answers to {', '.join(_NAMES)}")
        return await go_on(request)

    def service() -> Service:
        if made["service"] is None:
            raise Turned("the server is not ready", 503, 1)
        found: Service = made["service"]
        return found

    @app.exception_handler(Turned)
    async def turned(request: Request, error: Turned) -> JSONResponse:
        headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else {}
        return _error(error.status, str(error), headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:])) or str(first["loc"][0])
        given = f" = {shown(first['input'])}" if first.get("input") is not None else ""
        return _error(400, f"{where}{given}: {str(first['msg']).lower()}")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, f"{error.detail}: see /docs".lower(), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return _error(500, f"{type(error).__name__}: {error}")

    @app.post("/v1/send", response_model=AnswerOut, openapi_extra=_BODY)
    async def send(
        request: Request,
        scheme: Annotated[str | None, Query(description="of those served; the first by default")] = None,
        channel: Annotated[str | None, Query(description="of those served; the first by default")] = None,
        snr: Annotated[float, Query(ge=-60, le=60, allow_inf_nan=False, description="gamma in dB")] = 10.0,
        seed: Annotated[int | None, Query(ge=0, lt=2**63, description="of the draws")] = None,
        group: Annotated[int | None, Query(ge=0, le=_LAST_GROUP, description="image group of the draws")] = None,
        user: Annotated[int | None, Query(ge=0, description="seat in the group; a free one by default")] = None,
        format: Annotated[
            Literal["json", "png", "npy"],
            Query(description="json; png: what the last stage shows; npy: float32 [stages, C, H, W]"),
        ] = "json",
    ) -> Any:
        """Sends one user's image over the link and shows what every stage of the receiver makes of it."""
        at_work = service()
        _check_query(request)
        # Anything else is turned away before its image is read.
        variant, where = _served(at_work, scheme, channel)
        at_work.check_room(made["arriving"])
        made["arriving"] += 1
        try:
            image = await _image(request, accepts)
        finally:
            made["arriving"] -= 1
        asked = Asked(image, variant, where, snr, seed, group, user, floats=format == "npy")
        answer = await at_work.answer(asked)
        if format == "png":
            return Response(answer.stages[-1].png, media_type="image/png", headers=_headers(answer))
        if format == "npy":
            file = io.BytesIO()
            np.save(file, np.stack([stage.pixels for stage in answer.stages if stage.pixels is not None]))
            return Response(file.getvalue(), media_type="application/octet-stream", headers=_headers(answer))
        return _answer(asked, answer)

    @app.get("/v1/served", response_model=ServedOut)
    async def served() -> ServedOut:
        """Schemes, channels and the link that they share; of each metric whether more is better."""
        config = service().served.config
        return ServedOut(
            version=__version__,
            schemes=list(config.scheme),
            channels=list(config.channel),
            users=config.users,
            antennas=config.antennas,
            power=config.power,
            metrics={METRICS.find(name).column: METRICS.find(name).higher_is_better for name in config.metrics},
            image_size=accepts.image_size,
        )

    @app.get("/v1/examples/{number}.png", response_class=Response)
    async def example(number: Annotated[int, Path(ge=0, lt=256)]) -> Response:
        """One of the embedded images."""
        images = load_dataset(EMBEDDED).images
        pixels = np.asarray(images[number % len(images)]).transpose(1, 2, 0)
        return Response(as_png(pixels), media_type="image/png")

    @app.get("/health")
    async def health() -> Response:
        """200 while requests are taken."""
        ready = made["service"] is not None and not made["stopping"]
        return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counts and times for Prometheus."""
        return Response(generate_latest(service().counts.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        text = resources.files("linksim.serve").joinpath("page.html").read_text(encoding="utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY})

    return app


#: The page is whole in itself and speaks with this server alone.
_POLICY = "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data: blob:"


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": " ".join(text.split())[:500]}, status, headers)


def _served(service: Service, scheme: str | None, channel: str | None) -> tuple[Variant, str]:
    config = service.served.config
    variants = {variant.label: variant for variant in config.variants}
    label = scheme or next(iter(variants))
    if label not in variants:
        raise Turned(f"scheme {shown(label)} is not served: {', '.join(variants)}", 404)
    try:
        where = channel_label(channel) if channel else config.channel[0]
    except LinksimError as error:
        raise Turned(str(error), 404) from None
    if where not in config.channel:
        raise Turned(f"channel {shown(where)} is not served: {', '.join(config.channel)}", 404)
    return variants[label], where


def _check_query(request: Request) -> None:
    """Raises Turned for a parameter that is none, or that comes twice: a slip of the pen would take the default."""
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in _QUERY:
            raise Turned(str(unknown("parameter", name, _QUERY)), 400)
        if given.count(name) > 1:
            raise Turned(f"parameter {name} is given twice: leave one out", 400)


#: How many times the bytes of the largest image are read, and thrown away, before a larger one is turned away.
_READ_ANYWAY = 2


async def _image(request: Request, accepts: Accepts) -> Any:
    """The image of a request's body, uint8 [C, H, W]."""
    too_large = Turned(f"more than {accepts.most_bytes} bytes: send a smaller image", 413)
    length = request.headers.get("content-length", "0")
    # Who reads no answer before all is sent finds a broken connection where the rest is not taken. `Expect` asks first.
    most_read = accepts.most_bytes * (1 if "expect" in request.headers else _READ_ANYWAY)
    if length.isdecimal() and int(length) > most_read:
        raise too_large
    content, read = bytearray(), 0
    try:
        async with asyncio.timeout(accepts.seconds):
            async for part in request.stream():
                read += len(part)
                if read <= accepts.most_bytes:
                    content += part
                if read > most_read:
                    break
    except ClientDisconnect:
        raise Turned("the client went away before its image had come", 400) from None
    except TimeoutError:
        raise Turned(f"the image did not come within {accepts.seconds:g} s", 408) from None
    if read > accepts.most_bytes:
        raise too_large
    if not content:
        raise Turned("no image: send its file as the body, like curl --data-binary @image.png", 415)
    if len(content) < _LARGE_BYTES:
        return _decoded(bytes(content), accepts)
    return await asyncio.to_thread(_decoded, bytes(content), accepts)


def _decoded(content: bytes, accepts: Accepts) -> Any:
    try:
        image = decoded(
            content,
            "the image",
            accepts.image_size,
            formats=FORMATS,
            most_pixels=accepts.most_pixels,
            otherwise="send another",
        )
    except LinksimError as error:
        text = str(error)
        status = 415 if "it is no image" in text else 413 if "more than" in text and "pixels" in text else 422
        raise Turned(text, status) from None
    return np.ascontiguousarray(image)


def _answer(asked: Asked, answer: Answer) -> AnswerOut:
    return AnswerOut(
        scheme=asked.variant.label,
        channel=asked.channel,
        snr_db=asked.snr_db,
        width=asked.image.shape[2],
        height=asked.image.shape[1],
        channel_uses=answer.channel_uses,
        users=answer.users,
        user=answer.user,
        seed=answer.seed,
        group=answer.group,
        stand_ins=answer.stand_ins,
        batch=answer.batch,
        symbols_cached=answer.symbols_cached,
        delivered_cached=answer.delivered_cached,
        waited_s=answer.waited,
        worked_s=answer.worked,
        original=_base64(as_png(asked.image.transpose(1, 2, 0))),
        stages=[
            StageOut(stage=stage.stage, metrics=stage.values, lost=stage.lost, png=_base64(stage.png))
            for stage in answer.stages
        ],
    )


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _headers(answer: Answer) -> dict[str, str]:
    last = answer.stages[-1]
    return {
        "X-Linksim-Draws": f"seed={answer.seed},group={answer.group},user={answer.user}",
        "X-Linksim-Stages": ",".join(stage.stage for stage in answer.stages),
        **{f"X-Linksim-{column.replace('_', '-')}": f"{value:.6g}" for column, value in last.values.items()},
    }


class Server(uvicorn.Server):
    """Stops as nobody minds: what has come is answered first, and what is on its way over a connection too."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        # What waits to be accepted is, in this round of the loop.
        await asyncio.sleep(0.05)
        for server in self.servers:
            server.close()
        await asyncio.sleep(_GRACE_SECONDS)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn; told once more it goes on stopping, and while it loads it stops at once."""
        if not self.started:
            raise KeyboardInterrupt
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """See uvicorn; the process goes on afterwards, and ends as a command that is done."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises LinksimError where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(2048)
    except (OSError, OverflowError, ValueError, TypeError) as error:
        found.close()
        why = getattr(error, "strerror", None) or str(error)
        raise LinksimError(f"cannot listen on {host}:{port} ({why}): give another --host or --port") from None
    found.setblocking(False)
    return found


def serve(app: FastAPI, where: socket.socket, timeout: float, ready: Callable[[], None]) -> None:
    """Runs the application until the process is told to stop, and all that came is answered.

    Args:
        app: see `make_app`.
        where: see `listen`.
        timeout: seconds that a request may take.
        ready: called when requests are taken.
    """

    class Told(Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

    config = uvicorn.Config(
        app, log_level="critical", access_log=False, timeout_graceful_shutdown=int(timeout) + 5, backlog=2048,
        server_header=False, ws="none",
    )  # fmt: skip
    try:
        Told(config).run([where])
    except SystemExit:
        raise app.state.made["error"] or LinksimError("the server could not begin") from None
