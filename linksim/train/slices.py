"""Training on a cluster, in slices: a worker goes on with a run for some minutes and gives it back.

A slice takes the run's folder, checkpoint and logs, and returns it as it is then. No worker is bound to a model, no
disk is shared, and a job that ends takes a slice with it at the most. The process that asked keeps the folders in their
usual place, decides what is trained when, and installs what has ended.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path

from linksim.data.cifar10 import TRAIN_BATCHES, read_batch
from linksim.data.datasets import DATASETS, kind_of
from linksim.data.images import FolderImages
from linksim.data.training import CIFAR10, TrainingData, name_of
from linksim.engine.away import MOST_BYTES, delivery_of, own_weights, received
from linksim.engine.cluster import Place, open_cluster
from linksim.engine.workers import LOOKS_S, Pool
from linksim.errors import LinksimError
from linksim.files import write_atomic
from linksim.models.owner import EMBEDDED, FROM_SCRATCH, Model
from linksim.models.spec import ModelSpec
from linksim.paths import assets_dir
from linksim.stopping import stop_if_told
from linksim.train.parallel import launch, stop
from linksim.train.run import find_start

#: Seconds of a slice.
SLICE_S = 600.0

_DATA = "data"


@dataclass(frozen=True)
class Slice:
    """A run as it is after a slice.

    Args:
        files: of its folder, by name.
        code: exit code of the training; None where its time was over first.
        said: the last line that it printed.
    """

    files: Mapping[str, bytes]
    code: int | None
    said: str


def train_slice(
    delivery: str, words: Sequence[str], data: Sequence[str], name: str, files: Mapping[str, bytes],
    own: Mapping[str, bytes], seconds: float,
) -> Slice:  # fmt: skip
    """Goes on with a run, on a worker.

    Args:
        delivery: name of what was delivered: the training data.
        words: of `linksim`, without the places of data and run.
        data: words that name the data, with `{data}` for the place where it was delivered.
        name: of the model, and so of the run's folder.
        files: of the run's folder.
        own: the weights that it starts from and learns from, and their cards, as files of a folder of weights.
        seconds: at the most.
    """
    there_is = received(delivery)[1] / _DATA
    with tempfile.TemporaryDirectory(prefix="linksim-slice-") as there:
        run, folder = Path(there) / "runs" / name, Path(there) / "weights"
        for place, content in ((run, files), (folder, own)):
            place.mkdir(parents=True)
            for inside, data_of in content.items():
                (place / inside).write_bytes(data_of)
        output = Path(there) / "output"
        places = ["--resume", "--out", str(run.parent), *(word.replace("{data}", str(there_is)) for word in data)]
        with output.open("wb") as file:
            process = launch(
                [*words, *places], one_thread=True, environment={"LINKSIM_WEIGHTS": str(folder)}, output=file
            )
            try:
                code: int | None = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                stop([process])
        lines = output.read_text(errors="replace").strip().splitlines()
        return Slice(_files(run), code, lines[-1] if lines else "")


def _files(folder: Path) -> dict[str, bytes]:
    """What a run's folder holds, its locks apart."""
    if not folder.is_dir():
        return {}
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


def train_on(
    place: Place, waves: Sequence[Sequence[Model]], options: Sequence[str], out: Path, warm: str | None,
    data: TrainingData,
) -> None:  # fmt: skip
    """Trains models wave by wave on a cluster.

    Args:
        place: the cluster.
        waves: models that wait for those of the waves before.
        options: of `linksim train`, the same for all: recipe, length, device.
        out: folder of the runs.
        warm: start of the transceivers.
        data: what is trained on.

    Raises:
        LinksimError: no data, or too much to travel; no cluster; a model that failed, after those beside it ended.
    """
    files, there = _travelling(data)
    delivery = delivery_of(files)
    with open_cluster(place, delivery) as pool:
        for wave in waves:
            _train_wave(pool, delivery.name, wave, options, out, warm, data.words, there)


def _travelling(data: TrainingData) -> tuple[dict[str, bytes], list[str]]:
    """The files of what is trained on, and the words that name it where they have arrived."""
    if data.dataset == CIFAR10:
        source = data.data_dir if data.data_dir is not None else assets_dir() / "cifar10"
        return {f"{_DATA}/{batch}.bin": read_batch(source, batch) for batch in TRAIN_BATCHES}, ["--data-dir", "{data}"]
    files: dict[str, bytes] = {}
    words = list(data.words)
    for option in ("--dataset", "--validation"):
        if option not in words:
            continue
        spec = words[words.index(option) + 1]
        folder = DATASETS.find(kind_of(spec)).training_images(spec, None, data.image_size)
        if not isinstance(folder, FolderImages):
            raise LinksimError(f"{option} {spec}: a cluster is given cifar10 or folder:DIR alone")
        if sum(path.stat().st_size for path in folder.paths) + sum(map(len, files.values())) > MOST_BYTES:
            raise LinksimError(
                f"{option} {spec} is larger than the {MOST_BYTES / 2**30:g} GiB that travel to workers: train inside a "
                "job, with the folder on a disk of the cluster"
            )
        # The folder's own name is what cards tell.
        place = f"{_DATA}/{option.strip('-')}/{name_of(spec).partition(':')[2]}"
        files |= {f"{place}/{path.name}": path.read_bytes() for path in folder.paths}
        words[words.index(option) + 1] = f"folder:{{data}}{place.removeprefix(_DATA)}"
    return files, words


def _train_wave(
    pool: Pool, delivery: str, wave: Sequence[Model], options: Sequence[str], out: Path, warm: str | None,
    here: Sequence[str], there: Sequence[str],
) -> None:  # fmt: skip
    def begin(model: Model) -> Future[Slice]:
        folder = out / model.name
        start = find_start(model, warm if isinstance(model.spec, ModelSpec) else None, folder)
        word = EMBEDDED if start.embedded else start.model or FROM_SCRATCH
        words = [*model.words, *options, *(["--warm", word] if isinstance(model.spec, ModelSpec) else [])]
        source_name = [model.begins_as.name] if model.begins_as is not None else []
        own = own_weights([start.model, *source_name, *(part.name for part in model.parts.values())])
        return pool.executor.submit(train_slice, delivery, words, there, model.name, _files(folder), own, SLICE_S)

    on_the_way = {begin(model): model for model in wave}
    failed: list[str] = []
    try:
        while on_the_way:
            stop_if_told()
            for future in wait(on_the_way, LOOKS_S, FIRST_COMPLETED).done:
                model = on_the_way.pop(future)
                found = future.result()
                folder = out / model.name
                folder.mkdir(parents=True, exist_ok=True)
                for name, content in found.files.items():
                    write_atomic(folder / name, content)
                print(f"{model.name}: {found.said}" if model.name not in found.said else found.said, flush=True)
                if found.code is None:
                    on_the_way[begin(model)] = model
                elif found.code or not _install(model, options, out, here):
                    failed.append(model.name)
    finally:
        for future in on_the_way:
            future.cancel()
    if failed:
        raise LinksimError(
            f"{failed[0]} could not be trained (its own line is above); the same command goes on from here"
        )


def _install(model: Model, options: Sequence[str], out: Path, data: Sequence[str]) -> bool:
    """Installs the weights of a run that has ended, by the command that would go on with it."""
    process = launch([*model.words, *options, *data, "--resume", "--out", str(out)], one_thread=False)
    try:
        return process.wait() == 0
    finally:
        stop([process])
