"""`linksim serve` as a process: load, lost processes, a stop, a browser, Ray; and `linksim bench serve`."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import psutil
import pytest

from linksim.cli import main
from linksim.data import load_dataset
from linksim.serve.on_ray import _until_it_answers
from linksim.serve.work import as_png
from tests.conftest import Cli

IMAGES = load_dataset("cifar10-mini").images
PNGS = [as_png(np.asarray(IMAGES[number]).transpose(1, 2, 0)) for number in range(32)]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Running:
    """A server in a process of its own.

    Attributes:
        process: it.
        url: where it listens.
    """

    def __init__(self, env: dict[str, str], folder: Path, *words: str) -> None:
        command = [sys.executable, "-m", "linksim", "serve", "--scheme", "klt", "--port", "0", *words]
        self.process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        self.told = False
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.match(r"serving on (\S+)", line):
                self.url = found[1]
                return
        raise AssertionError("".join(self.lines))

    def tell(self) -> None:
        """Tells it once to stop: who tells it again wants it to end at once."""
        if not self.told and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.told = True

    def stop(self) -> tuple[int, str]:
        """Its exit code and what it said."""
        self.tell()
        rest, _ = self.process.communicate(timeout=300)
        return self.process.returncode, "".join(self.lines) + rest


@pytest.fixture(scope="module")
def running(cli_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server for several tests; whatever they do to it, it goes on."""
    found = Running(cli_env, tmp_path_factory.mktemp("serve"), "--channel", "awgn,rayleigh", "--workers", "2")
    yield found
    found.process.kill()
    found.process.wait()


async def post(
    client: httpx.AsyncClient, url: str, number: int, trace: Callable[[str, Any], Awaitable[None]] | None = None
) -> httpx.Response:
    more = {"trace": trace} if trace is not None else {}
    where = f"{url}/v1/send?seed=1&group={number}"
    return await client.post(where, content=PNGS[number % len(PNGS)], extensions=more)


async def posted(client: httpx.AsyncClient, url: str, count: int) -> "list[asyncio.Task[httpx.Response]]":
    """Requests of which the last byte has left, however busy this machine is."""
    left = 0

    async def trace(name: str, facts: Any) -> None:
        nonlocal left
        left += name == "http11.send_request_body.complete"

    asked = [asyncio.create_task(post(client, url, number, trace)) for number in range(count)]
    while left < count:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)
    return asked


def shown(response: httpx.Response) -> str:
    found: str = response.json()["stages"][0]["png"]
    return found


def test_under_load_no_answer_is_lost_or_wrong_and_memory_stays(running: Running) -> None:
    async def load(seconds: float, at_once: int) -> tuple[Counter[int], dict[int, str]]:
        codes: Counter[int] = Counter()
        answers: dict[int, str] = {}
        until = time.monotonic() + seconds
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=at_once)) as client:

            async def user(first: int) -> None:
                number = first
                while time.monotonic() < until:
                    response = await post(client, running.url, number)
                    codes[response.status_code] += 1
                    answers[number] = shown(response)
                    number = (number + at_once) % 256

            await asyncio.gather(*map(user, range(at_once)))
        return codes, answers

    def memory() -> int:
        server = psutil.Process(running.process.pid)
        return sum(process.memory_info().rss for process in [server, *server.children(recursive=True)])

    asyncio.run(load(1, 64))
    before = memory()
    codes, answers = asyncio.run(load(4, 64))
    assert set(codes) == {200}
    assert len(answers) >= 64
    for number in list(answers)[:32]:
        alone = httpx.post(f"{running.url}/v1/send?seed=1&group={number}", content=PNGS[number % len(PNGS)])
        assert shown(alone) == answers[number]
    assert memory() - before < 100e6


def test_a_lost_process_costs_nobody_an_answer(running: Running) -> None:
    async def main() -> Counter[int]:
        async with httpx.AsyncClient(timeout=60) as client:
            asked = [asyncio.create_task(post(client, running.url, number)) for number in range(100)]
            await asyncio.sleep(0.1)
            children = psutil.Process(running.process.pid).children(recursive=True)
            at_work = max(children, key=lambda child: child.cpu_times().user)
            at_work.kill()
            return Counter(response.status_code for response in await asyncio.gather(*asked))

    assert asyncio.run(main()) == {200: 100}
    assert httpx.get(f"{running.url}/health").status_code == 200


def test_a_stop_answers_what_has_come(cli_env: dict[str, str], tmp_path: Path) -> None:
    running = Running(cli_env, tmp_path, "--workers", "1")

    async def main() -> Counter[int]:
        async with httpx.AsyncClient(timeout=60) as client:
            asked = await posted(client, running.url, 100)
            running.tell()
            return Counter(response.status_code for response in await asyncio.gather(*asked))

    assert asyncio.run(main()) == {200: 100}
    code, said = running.stop()
    assert code == 0, said
    assert said.rstrip().endswith("stopped: all that came was answered")
    with pytest.raises(httpx.ConnectError):
        httpx.get(running.url)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--scheme", "nothing"], "unknown scheme"),
        (["--scheme", "kd", "--users", "5"], "weights"),
        (["--scheme", "klt", "--port", "70000"], "--port '70000'"),
        (["--scheme", "klt", "--host", "no.such.host.example"], "cannot listen"),
        (["--scheme", "klt", "--host", ""], "--host is empty"),
        (["--scheme", "klt", "--host", "é.x..y"], "cannot listen"),
        (["--scheme", "klt", "--image-size", "100000"], "more than --max-pixels"),
        (["--scheme", "klt", "--ray", "ray://127.0.0.1:1"], "nobody listens there"),
        (["--scheme", "klt", "--replicas", "2"], "--replicas are of --ray"),
        (["--scheme", "klt", "--batch", "0"], "--batch '0'"),
        (["--scheme", "klt", "--wait", "nan"], "--wait 'nan'"),
        (["--scheme", "klt", "--rho", "1/6,1/3"], "one is served"),
        (["--scheme", "klt", "--image-size", "-3"], "image size"),
        (["--scheme", "klt", "--metrics", "fid"], "set of images"),
        (["--scheme", "klt", "--seed", "x"], "--seed 'x'"),
        ([], "no scheme given"),
    ],
)
def test_bad_options_are_one_line(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *words]) == 2
    said = capsys.readouterr()
    assert text in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_clients_that_go_away_leave_no_trace(cli_env: dict[str, str], tmp_path: Path) -> None:
    running = Running(cli_env, tmp_path, "--workers", "1")
    host, port = running.url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST /v1/send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\nabc")
    assert httpx.post(f"{running.url}/v1/send", content=PNGS[0]).status_code == 200
    for _ in range(2):
        running.process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    code, said = running.stop()
    assert code == 0
    assert "Traceback" not in said


def test_what_cannot_be_loaded_ends_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """One line of all processes: the one that loads lets another say it."""
    assert main(["serve", "--scheme", "klt", "--port", "0", "--image-size", "12"]) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "blocks of 8x8" in said
    assert main(["bench", "serve", "--scheme", "klt,kd"]) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_who_reads_no_answer_before_all_is_sent_reads_why(running: Running) -> None:
    too_large = urllib.request.Request(f"{running.url}/v1/send", data=b"x" * (9 << 20))
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(too_large)
    assert refused.value.code == 413
    assert "send a smaller image" in refused.value.read().decode()


def test_a_port_that_is_taken_is_said(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    port = running.url.rpartition(":")[2]
    assert main(["serve", "--scheme", "klt", "--port", port]) == 2
    assert "Address already in use" in capsys.readouterr().err


def test_the_bench_sends_the_same_through_every_row(here: Cli, tmp_path: Path) -> None:
    done = here("bench", "serve", "--scheme", "klt", "--clients", "6", "--requests", "3", "--workers", "2",
               "--out", "found")  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "found" / "serve.csv").set_index("mechanism")
    assert list(table.index) == [
        "sequential", "+ async", "+ batching", "+ pool", "+ cache of symbols", "reused answers (no channel)"
    ]  # fmt: skip
    assert (table.images == 18).all()
    assert table.difference_db.iloc[:-1].max() < 1e-3
    assert table.batch["sequential"] == 1
    assert table.batch["+ batching"] > 1
    assert table.cached.iloc[-1] > 0
    assert json.loads((tmp_path / "found" / "run.json").read_text())["bench"]["clients"] == 6


@pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")
def test_the_page_shows_what_came_of_a_dropped_image(running: Running, tmp_path: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    (tmp_path / "own.png").write_bytes(PNGS[3])
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.goto(running.url)
        expect(page.locator("#said")).to_have_text("Choose an image.")
        assert page.locator("#channel option").all_text_contents() == ["awgn", "rayleigh"]
        page.select_option("#channel", "rayleigh")
        page.set_input_files("#file", tmp_path / "own.png")
        expect(page.locator("figure")).to_have_count(2)
        expect(page.locator("figcaption").nth(1)).to_contain_text("psnr_db")
        assert page.evaluate("document.querySelectorAll('figure img')[1].naturalWidth") == 32
        page.locator("#snr").fill("20")
        page.click("#send")
        expect(page.locator("#snr-shown")).to_have_text("20")
        page.click("#example")
        expect(page.locator("figure")).to_have_count(2)
        # Dropped as with a mouse: a file that is no image.
        page.evaluate(
            """() => {
                const data = new DataTransfer();
                data.items.add(new File(["no image"], "x.png", {type: "image/png"}));
                document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: data}));
            }"""
        )
        expect(page.locator("#said")).to_contain_text("it is no image")
        assert [text for text in wrong if "415" not in text] == []
        browser.close()


def test_a_proxy_that_begins_late_is_waited_for(unused_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens, then the application is not known there yet, then it answers."""
    said = [404, 404, 200]

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(said.pop(0))

    def begin() -> None:
        time.sleep(0.5)
        with HTTPServer(("127.0.0.1", unused_port), Proxy) as server:
            while said:
                server.handle_request()

    thread = threading.Thread(target=begin)
    thread.start()
    _until_it_answers("127.0.0.1", unused_port)
    thread.join()
    assert said == []
    monkeypatch.setattr("linksim.serve.on_ray._ANSWERS_S", 0.3)
    with pytest.raises(TimeoutError, match="nothing answers at"):
        _until_it_answers("127.0.0.1", unused_port)


@pytest.mark.slow
def test_two_replicas_on_ray_answer_and_stop_as_one_server_does(
    running: Running, cli_env: dict[str, str], tmp_path: Path, unused_port: int
) -> None:
    pytest.importorskip("ray")
    env = {**cli_env, "RAY_TMPDIR": "/tmp", "RAY_USAGE_STATS_ENABLED": "0"}
    replicas = Running(env, tmp_path, "--ray", "local", "--replicas", "2", "--port", str(unused_port))
    # Ray's own default is nice 15: on a busy machine nobody would be served.
    theirs = [process.nice() for process in psutil.process_iter() if process.name().startswith("ray::ServeRepl")]
    assert len(theirs) == 2
    assert max(theirs) <= os.nice(0)
    try:

        async def main() -> tuple[Counter[int], list[httpx.Response]]:
            async with httpx.AsyncClient(timeout=60) as client:
                first = await asyncio.gather(*(post(client, replicas.url, number) for number in range(20)))
                free = await asyncio.gather(
                    *(client.post(f"{replicas.url}/v1/send", content=PNGS[0]) for _ in range(20))
                )
                asked = await posted(client, replicas.url, 60)
                replicas.tell()
                last = await asyncio.gather(*asked)
            groups = {response.json()["group"] for response in free}
            assert len(groups) == 20
            # Numbers of two replicas lie far apart.
            assert max(groups) - min(groups) > 20
            return Counter(response.status_code for response in [*first, *free, *last]), first

        codes, first = asyncio.run(main())
        assert codes == {200: 100}
        code, said = replicas.stop()
        assert code == 0, said
        for number, response in enumerate(first[:5]):
            alone = httpx.post(f"{running.url}/v1/send?seed=1&group={number}", content=PNGS[number])
            assert shown(alone) == shown(response)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(replicas.process.pid, signal.SIGKILL)


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        number: int = found.getsockname()[1]
        return number
