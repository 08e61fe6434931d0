"""Training on a cluster, in slices: a worker goes on with a run for some minutes and gives it back.

A slice takes the run's folder, checkpoint and logs, and returns it as it is then. No worker is bound to a model, no
disk is shared, and a job that ends takes a slice with it at the most. The process that asked keeps the folders in their
usual place, decides what is trained when, and installs what has ended.
"""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from linksim.data.cifar10 import TRAIN_BATCHES, read_batch
from linksim.data.datasets import DATASETS, kind_of
from linksim.data.images import FolderImages
from linksim.data.training import CIFAR10, TrainingData, name_of
from linksim.engine.away import MOST_BYTES, delivery_of, own_weights, received
from linksim.engine.cluster import Place, open_cluster
from linksim.engine.workers import LOOKS_S, Pool, result_of
from linksim.errors import LinksimError
from linksim.files import write_atomic
from linksim.models import weights
from linksim.models.checkpoint import CHECKPOINT
from linksim.models.owner import EMBEDDED, FROM_SCRATCH, Model
from linksim.models.spec import ModelSpec
from linksim.paths import assets_dir, weights_dir
from linksim.train.parallel import launch, stop
from linksim.train.run import find_start, go_on_from, set_aside

#: Seconds of a slice.
SLICE_S = 600.0

_DATA = "data"


@dataclass(frozen=True)
class Slice:
    """A run as it is after a slice.

    Args:
        files: of its folder, by name.
        code: exit code of the training; None where its time was over first.
        said: the last line that it printed, with `{weights}` and `{runs}` for the folders of them.
        anew: whether it began after the end of the run that was sent.
        weights: that it installed, by the names of their files.
        card: of these weights.
    """

    files: Mapping[str, bytes]
    code: int | None
    said: str
    anew: bool = False
    weights: Mapping[str, bytes] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)


def train_slice(
    delivery: str, words: Sequence[str], data: Sequence[str], name: str, files: Mapping[str, bytes],
    own: Mapping[str, bytes], seconds: float,
) -> Slice:  # fmt: skip
    """Goes on with a run, on a worker.

    Args:
        delivery: name of what was delivered: the training data.
        words: of `linksim`, without the places of data and runs.
        data: words that name the data, with `{data}` for the place where it was delivered.
        name: of the model, and so of the run's folder.
        files: of the run's folder.
        own: the weights that it starts from and learns from, and their cards, as files of a folder of weights.
        seconds: at the most.
    """
    there_is = received(delivery)[1] / _DATA
    with tempfile.TemporaryDirectory(prefix="linksim-slice-") as there:
        run, folder = Path(there) / "runs" / name, Path(there) / "weights"
        # A run that was set aside, and nothing since: it is gone on with from there.
        sent = run if "--more" not in words or CHECKPOINT in files else run.with_name(f"{name}.1")
        for place, content in ((sent, files), (folder, own)):
            place.mkdir(parents=True)
            for inside, data_of in content.items():
                (place / inside).write_bytes(data_of)
        output = Path(there) / "output"
        places = ["--out", str(run.parent), *(word.replace("{data}", str(there_is)) for word in data)]
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
        lines = output.read_text(errors="replace").strip().splitlines() or [""]
        told = lines[-1].replace(str(folder), "{weights}").replace(str(run.parent), "{runs}")
        card: dict[str, Any] = {}
        if code == 0 and (folder / weights.MANIFEST).exists():
            card = json.loads((folder / weights.MANIFEST).read_text()).get(name, {})
        made = {file: (folder / file).read_bytes() for file in card.get("files", {}) if file not in own}
        return Slice(_files(run), code, told, bool(set_aside(run)), made, card if made else {})


def _files(folder: Path) -> dict[str, bytes]:
    """What a run's folder holds, its locks apart."""
    if not folder.is_dir():
        return {}
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


@dataclass
class Slices:
    """A cluster that trains, a slice of a model's training at a time.

    Args:
        pool: the cluster.
        delivery: name of what its workers received.
        options: of `linksim train`, the same for all.
        out: folder of the runs.
        data: words that name the data, with `{data}` for the place where it was delivered.
    """

    pool: Pool
    delivery: str
    options: Sequence[str]
    out: Path
    data: Sequence[str]
    _told: str = ""
    _looked: float = -math.inf

    @property
    def places(self) -> int:
        """Trainings on their way at the most."""
        return self.pool.at_once

    def begin(self, model: Model, words: Sequence[str]) -> Turn:
        """Sends a slice of a model's training; `words` say which it is."""
        folder = self.out / model.name
        start = find_start(model, dict(itertools.pairwise(words)).get("--warm"), folder)
        # Where a model starts is settled here: a worker knows only those weights that travel with it.
        if isinstance(model.spec, ModelSpec) and "--warm" in words:
            place = list(words).index("--warm")
            word = EMBEDDED if start.embedded else start.model or FROM_SCRATCH
            words = [*words[:place], "--warm", word, *words[place + 2 :]]
        source = [model.begins_as.name] if model.begins_as is not None else []
        own = own_weights([model.name, start.model, *source, *(part.name for part in model.parts.values())])
        files = _files(folder)
        if "--more" in words and CHECKPOINT not in files and (before := set_aside(folder)):
            files = _files(before[-1])
        sent = [*words, *self.options]
        future = self.pool.executor.submit(train_slice, self.delivery, sent, self.data, model.name, files, own, SLICE_S)
        return Turn(self, model, future)

    def tell(self) -> None:
        """Says, once, what the cluster is waiting for."""
        if self.pool.waiting is None or time.monotonic() < self._looked + LOOKS_S:
            return
        self._looked = time.monotonic()
        if (words := self.pool.waiting() or "") != self._told:
            print(words or "a worker is there", flush=True)
        self._told = words

    def stop(self, turns: Iterable[Turn]) -> None:
        """Takes back what nobody has begun; what workers are at is lost, back to the slice before."""
        for turn in turns:
            turn.future.cancel()


@dataclass
class Turn:
    """A slice on its way."""

    slices: Slices
    model: Model
    future: Future[Slice]
    goes_on: bool = False

    def poll(self) -> int | None:
        """Exit code; None until the slice is over. 0 where it ended well, whether the training has or not.

        What came back lies in the run's folder then, and weights that are ready are installed.

        Raises:
            LinksimError: the cluster lost it.
        """
        if not self.future.done():
            self.slices.tell()
            return None
        found = result_of(self.future, "a slice of a training")
        folder = self.slices.out / self.model.name
        if found.anew and CHECKPOINT in found.files:
            go_on_from(self.model, folder)[0].begun(moves=True)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in found.files.items():
            write_atomic(folder / name, content)
        if found.weights:
            weights.put(self.model.name, found.weights, found.card)
        told = found.said.replace("{weights}", str(weights_dir())).replace("{runs}", str(self.slices.out))
        print(told if self.model.name in told else f"{self.model.name}: {told}", flush=True)
        self.goes_on = found.code is None
        return found.code or 0


@contextmanager
def on_cluster(place: Place, data: TrainingData, options: Sequence[str], out: Path) -> Iterator[Slices]:
    """A cluster whose workers have the training data.

    Args:
        place: the cluster.
        data: what is trained on.
        options: of `linksim train`, the same for all.
        out: folder of the runs.

    Raises:
        LinksimError: no data, or too much to travel; no cluster; no place for weights.
    """
    weights.ready_to_install()
    files, words = _travelling(data)
    delivery = delivery_of(files)
    with open_cluster(place, delivery) as pool:
        yield Slices(pool, delivery.name, options, out, words)


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
