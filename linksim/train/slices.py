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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
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
from linksim.models.checkpoint import CHECKPOINT, load_checkpoint
from linksim.models.owner import EMBEDDED, FROM_SCRATCH, Model
from linksim.models.spec import ModelSpec
from linksim.paths import assets_dir, weights_dir
from linksim.train.parallel import launch, stop
from linksim.train.run import alone_in, find_start, go_on_from, set_aside

#: Seconds of a slice, and between two looks for a checkpoint where there is none yet.
SLICE_S = 600.0
_LOOK_S = 1.0

#: Slices running that bring nothing new, after which a training is given up.
_EMPTY = 2

#: Exit code of a training that was told to stop.
_STOPPED = 130

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

    It comes back with a checkpoint that goes further than the one that was sent, or after its end. What comes before a
    checkpoint is lost with the process: where it takes longer than a slice, it would begin anew for ever.

    Args:
        delivery: name of what was delivered: the training data.
        words: of `linksim`, without the places of data and runs.
        data: words that name the data, with `{data}` for the place where it was delivered.
        name: of the model, and so of the run's folder.
        files: of the run's folder.
        own: the weights that it starts from and learns from, and their cards, as files of a folder of weights.
        seconds: at the most, where there is such a checkpoint by then; else until there is.
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
        before = _stamp(run / CHECKPOINT)
        output = Path(there) / "output"
        places = ["--out", str(run.parent), *(word.replace("{data}", str(there_is)) for word in data)]
        with output.open("wb") as file:
            process = launch(
                [*words, *places], one_thread=True, environment={"LINKSIM_WEIGHTS": str(folder)}, output=file
            )
            try:
                code = _waited(process, seconds)
                while code is None and _stamp(run / CHECKPOINT) in (None, before):
                    code = _waited(process, _LOOK_S)
            finally:
                stop([process])
        lines = output.read_text(errors="replace").strip().splitlines() or [""]
        told = lines[-1].replace(str(folder), "{weights}").replace(str(run.parent), "{runs}")
        card: dict[str, Any] = {}
        if code == 0 and (folder / weights.MANIFEST).exists():
            card = json.loads((folder / weights.MANIFEST).read_text()).get(name, {})
        made = {file: (folder / file).read_bytes() for file in card.get("files", {}) if file not in own}
        return Slice(_files(run), code, told, bool(set_aside(run)), made, card if made else {})


def _waited(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Exit code of a process; None where it has not ended by then."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _stamp(path: Path) -> tuple[int, int] | None:
    """What tells a file from the one that takes its place; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _reached(folder: Path) -> tuple[int, int]:
    """How far the run in a folder is: trainings that it goes on from, and its steps; (0, -1) without a checkpoint."""
    if not (folder / CHECKPOINT).exists():
        return 0, -1
    state = load_checkpoint(folder / CHECKPOINT)["state"]
    return len(state["lineage"]), state["step"]


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
    #: Slices running that brought nothing new, by their model.
    empty: Counter[str] = field(default_factory=Counter)
    _told: str = ""
    _looked: float = -math.inf

    @property
    def places(self) -> int:
        """Trainings on their way at the most."""
        return self.pool.at_once

    def begin(self, model: Model, words: Sequence[str]) -> Turn:
        """Sends a slice of a model's training; `words` say which it is.

        Raises:
            LinksimError: another process works in the run's folder, or the run cannot be gone on with.
        """
        folder = self.out / model.name
        self.out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as ours:
            ours.enter_context(alone_in(folder))
            before = _reached(folder)
            return Turn(self, model, self._send(model, words, folder), before, ours.pop_all())

    def _send(self, model: Model, words: Sequence[str], folder: Path) -> Future[Slice]:
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
        return self.pool.executor.submit(train_slice, self.delivery, sent, self.data, model.name, files, own, SLICE_S)

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
            turn.ours.close()


@dataclass
class Turn:
    """A slice on its way.

    Args:
        slices: that it is one of.
        model: that is trained.
        future: what comes back.
        before: how far the run was when it was sent.
        ours: holds the run's folder until the slice is over.
    """

    slices: Slices
    model: Model
    future: Future[Slice]
    before: tuple[int, int]
    ours: ExitStack
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
        with self.ours:
            return self._over(result_of(self.future, "a slice of a training"))

    def _over(self, found: Slice) -> int:
        folder, name = self.slices.out / self.model.name, self.model.name
        if found.anew and CHECKPOINT in found.files:
            go_on_from(self.model, folder)[0].begun(moves=True)
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in found.files.items():
            write_atomic(folder / file, content)
        if found.weights:
            weights.put(name, found.weights, found.card)
        told = found.said.replace("{weights}", str(weights_dir())).replace("{runs}", str(self.slices.out))
        print(told if name in told else f"{name}: {told}", flush=True)
        # A job that ends tells its training first.
        self.goes_on = found.code in (None, _STOPPED)
        if not self.goes_on:
            return found.code or 0
        self.slices.empty[name] = 0 if _reached(folder) > self.before else self.slices.empty[name] + 1
        if self.slices.empty[name] < _EMPTY:
            return 0
        self.goes_on = False
        print(
            f"{name}: {_EMPTY} slices running brought nothing new: they were told to stop before they could save "
            "anything: ask for longer jobs, or train it on one machine",
            flush=True,
        )
        return _STOPPED


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
