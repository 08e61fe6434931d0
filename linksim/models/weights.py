"""Trained weights: a card each, found through one manifest, hashed before use.

Two folders are looked at: the user's own (`$LINKSIM_WEIGHTS`, else the user's data folder), where `linksim train`
leaves what it trained, and then `linksim/weights/`, what the package ships.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from linksim.errors import LinksimError, NoWeights
from linksim.files import digest, write_atomic
from linksim.models.checkpoint import BEST, damaged, load_checkpoint
from linksim.models.owner import Model
from linksim.models.spec import NO_ABLATION, ModelSpec, Spec, lineage_pairs, size_words, spec_from_json
from linksim.paths import here, weights_dir

if TYPE_CHECKING:
    from torch import Tensor, nn

MANIFEST = "manifest.json"
SHIPPED = Path(__file__).parent.parent / "weights"

#: Bytes of one file at the most; larger models are cut into several.
SHARD = 16 * 2**20

Card = Mapping[str, Any]


#: Of a file of weights: a bare name, so that no card reaches out of its folder.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


#: Types as JSON has them: what is read as another would be another to its readers.
_STRICT = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

_Pairs = Annotated[int, Field(ge=0, le=10**15)]


class _Settings(BaseModel):
    """Of a recipe, what rows tell of it."""

    model_config = _STRICT

    snr_db: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None


class _Run(BaseModel):
    """A training that other weights went on from; `command` is None where it is not known."""

    model_config = _STRICT

    model: str
    pairs: _Pairs
    command: str | None
    code: str | None
    files: list[str]


class _Card(BaseModel):
    """What every card holds; what else it holds is for its readers."""

    model_config = _STRICT

    files: dict[FileName, str] = Field(min_length=1)
    model: dict[str, Any]
    pairs: _Pairs
    lineage: list[_Run]
    golden_psnr_db: float
    validation: dict[str, float]
    score: float
    settings: _Settings = _Settings()
    parts: dict[str, list[str]] = {}
    dataset: str | None = None
    data: str | None = None
    citation: str | None = None
    recipe: str | None = None
    command: str | None = None
    code: str | None = None


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / MANIFEST
    try:
        cards = json.loads(path.read_text(encoding="utf-8"))
        for card in TypeAdapter(dict[str, _Card]).validate_python(cards).values():
            spec_from_json(card.model)
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        raise LinksimError(f"{folder} is no folder: set LINKSIM_WEIGHTS to one") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise LinksimError(f"{path} is no list of cards ({where}: {first['msg']}): repair it or take it away") from None
    except (OSError, ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        raise LinksimError(f"{path} cannot be read ({error}): repair it or take it away") from None
    return {name: {**card, "folder": str(folder)} for name, card in cards.items()}


def cards() -> dict[str, dict[str, Any]]:
    """Every card by the name of its model; the user's own go before those shipped."""
    return {**_read(SHIPPED), **_read(weights_dir())}


def transceivers() -> dict[str, tuple[ModelSpec, dict[str, Any]]]:
    """Model and card of every transceiver, by name."""
    found = ((name, spec_from_json(card["model"]), card) for name, card in cards().items())
    return {name: (spec, card) for name, spec, card in found if isinstance(spec, ModelSpec)}


def card(model: Model) -> dict[str, Any]:
    """The card of a model whose weights are there and whole.

    Raises:
        NoWeights: they are not: which are there, and how to train it.
        LinksimError: a model that no network fits, or a card of another model.
    """
    known = cards()
    if model.name not in known:
        model.build()
        family = model.name.partition("_")[0]
        near = sorted(name for name in known if name.startswith(f"{family}_"))
        there = f"there are {', '.join(near)}" if near else f"there are none for {family}"
        raise NoWeights(f"no weights {model.name}: {there}; train them", model)
    found = known[model.name]
    if spec_from_json(found["model"]) != model.spec:
        raise LinksimError(f"{Path(found['folder']) / MANIFEST}: the card {model.name} is of another model: repair it")
    if not present(found):
        gone = (
            "" if is_shipped(found) else f"put them back, take the card out of {Path(found['folder']) / MANIFEST}, or "
        )
        raise NoWeights(f"{model.name}: {place(found)}, their card alone is there; {gone}train them", model)
    for _ in contents(model, found):
        pass
    if model.owner.bound:
        _check_parts(model, found)
    return found


def _check_parts(model: Model, found: Card) -> None:
    """Raises NoWeights where a model that works with others was trained with other weights of theirs."""
    for name, hashes in part_hashes(model).items():
        if found.get("parts", {}).get(name) != hashes:
            raise NoWeights(
                f"{model.name} was trained with other weights of {model.parts[name].name} than those that are there: "
                "train it again",
                model,
            )


def part_hashes(model: Model) -> dict[str, list[str]]:
    """SHA-256 of the weights of every other model that a model works with, as its card holds them."""
    return {name: list(card(part)["files"].values()) for name, part in model.parts.items()}


def serving(model: Model) -> str | None:
    """Name of the model whose weights serve for images of another size (`Owner.serves`); None where there are none.

    Of several the one whose images are nearest in size, and then the one that has seen most.
    """
    ranks = {}
    for name, found in cards().items():
        spec = spec_from_json(found["model"])
        if type(spec) is type(model.spec) and present(found) and model.owner.serves(spec, model.spec):
            ratio = math.prod(spec.image_shape) / math.prod(model.spec.image_shape)
            ranks[name] = -abs(math.log(ratio)), lineage_pairs(found)
    return max(ranks, key=lambda name: ranks[name], default=None)


def unserved(models: Iterable[Model]) -> list[Model]:
    """The models for which those of no other size serve; see `serving`."""
    return [model for model in models if serving(model) is None]


def present(found: Card) -> bool:
    """Whether a card's weights are there, and not the card alone."""
    return all((Path(found["folder"]) / name).is_file() for name in found["files"])


def ships(name: str) -> bool:
    """Whether the package has weights of this name, whatever the user's own are."""
    found = _read(SHIPPED).get(name)
    return found is not None and present(found)


def is_shipped(found: Card) -> bool:
    """Whether a card is of the package, and not the user's own."""
    return bool(found["folder"] == str(SHIPPED))


def place(found: Card) -> str:
    """Where a card's weights lie; those of the package may be left out on purpose, the user's own are not."""
    if not present(found):
        return "weights not shipped" if is_shipped(found) else f"weights gone from {found['folder']}"
    return "shipped" if is_shipped(found) else found["folder"]


def history(name: str, found: Card) -> list[dict[str, Any]]:
    """The trainings that led to a card's weights, oldest first, its own last.

    Returns:
        Of each its `model`, `pairs`, `command`, `code` (version) and `files` (SHA-256 of what came out).
    """
    own = {key: found.get(key) for key in ("pairs", "command", "code")}
    return [*found["lineage"], {"model": name, **own, "files": list(found["files"].values())}]


def contents(model: Model, found: Card) -> Iterator[bytes]:
    """The bytes of each of a card's files, of a model. Raises NoWeights for a file that is not what the card says."""
    for name, sha256 in found["files"].items():
        path = Path(found["folder"]) / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise NoWeights(f"{path}: {error.strerror}: {_again(found)}", model) from None
        if digest(data) != sha256:
            raise NoWeights(f"{path} is damaged (its SHA-256 is not its card's): {_again(found)}", model)
        yield data


def _again(found: Card) -> str:
    return "install linksim again, or train" if is_shipped(found) else "train"


def load(model: Model, found: Card | None = None) -> nn.Module:
    """The trained network, ready to evaluate.

    Args:
        found: its card, where it was read before.

    Raises:
        NoWeights: no such weights.
        LinksimError: not what their card says.
    """
    found = found or card(model)
    tensors: dict[str, Tensor] = {}
    for data in contents(model, found):
        tensors |= read_tensors(data, found["folder"])
    return fitted(model, tensors, spec_from_json(found["model"]).name)


def load_all(parts: Mapping[str, Model]) -> dict[str, nn.Module]:
    """The trained networks of models that another one is trained with; see `load`."""
    return {name: load(part) for name, part in parts.items()}


def read_tensors(data: bytes, source: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file's bytes. Raises LinksimError, which names their source."""
    from safetensors import SafetensorError
    from safetensors.torch import load as load_tensors

    try:
        return load_tensors(data)
    # KeyError is of a type that PyTorch does not have.
    except (SafetensorError, KeyError) as error:
        raise LinksimError(f"{source}: no safetensors file ({' '.join(str(error).split())[:100]})") from None


@dataclass(frozen=True)
class Chosen:
    """Weights that a scheme was told to run on, wherever they lie.

    Args:
        sha256: of their files.
        pairs: image groups of their training and of all before it; None where nothing says so.
        network: builds the network with them.
        channel: that they were trained over; None where nothing says so.
        snr_db: range that they were trained at, in dB; None where nothing says so.
        images: size of the images that they are for, "256", where the model's are others; None where they are the same.
        data: the data set that they were trained on, where that is not CIFAR-10 and a card says so.
    """

    sha256: str
    pairs: int | None
    network: Callable[[], nn.Module]
    channel: str | None = None
    snr_db: tuple[float, float] | None = None
    images: str | None = None
    data: str | None = None


def choose(model: Model, text: str) -> Chosen:
    """The weights that `weights=TEXT` means for a model.

    Args:
        model: a transceiver's.
        text: "auto", the user's own, else those shipped; "shipped"; the name of any model with a card, whatever it was
            trained for; the folder of a run of `linksim train`, or of its runs (--out), this model's among them; or a
            file of tensors, .safetensors or a run's best.pt.

    Raises:
        NoWeights: there are none.
        LinksimError: no such model or file, of another scheme or ablation, or it does not hold this network's tensors.
    """
    if text == "auto":
        other = None if model.name in cards() else serving(model)
        found: Card = card(model) if other is None else cards()[other]
    elif text == "shipped":
        there = _read(SHIPPED)
        if model.name not in there or not present(there[model.name]):
            raise NoWeights(f"{model.name}: none are shipped: leave weights=shipped out")
        found = there[model.name]
    elif text in cards():
        found = cards()[text]
        _check_method(model, spec_from_json(found["model"]), text)
    else:
        return _in_file(model, here(Path(text)))
    snr_db, shape = found.get("settings", {}).get("snr_db"), spec_from_json(found["model"]).image_shape
    chosen = Chosen(
        " ".join(found["files"].values()), lineage_pairs(found), lambda: load(model, found),
        found["model"].get("channel"), (snr_db[0], snr_db[1]) if snr_db else None,
        None if shape == model.spec.image_shape else size_words(shape), found.get("dataset"),
    )  # fmt: skip
    if text != "auto" or chosen.images is not None:
        chosen.network()
    return chosen


def _check_method(model: Model, there: Spec, text: object) -> None:
    """Raises LinksimError for weights of another scheme: their networks may be alike, and no table would tell."""

    def asked(spec: Spec) -> str:
        if not isinstance(spec, ModelSpec):
            return spec.name
        return spec.method if spec.ablation == NO_ABLATION else f"{spec.method}:ablation={spec.ablation}"

    if (other := asked(there)) != (own := asked(model.spec)):
        raise LinksimError(f"weights={text}: these are of {other}, not of {own}: name them under their own scheme")


def _in_file(model: Model, path: Path) -> Chosen:
    """Weights of a run's folder, of a folder of runs, or of a file."""
    runs = path / model.name / BEST
    file = (runs if runs.exists() else path / BEST) if path.is_dir() else path
    try:
        if file.exists() and not file.is_file():
            raise NoWeights(f"weights={path} is no file: give one, the folder of a run of linksim train, or auto")
        data = file.read_bytes()
    except OSError as error:
        near = difflib.get_close_matches(str(path), transceivers(), n=1)
        if not isinstance(error, FileNotFoundError):
            why = f"{error.strerror}: give another file, or auto"
        elif near:
            why = f"there is no such model, folder or file: did you mean {near[0]}?"
        elif path.suffix in (".pt", ".safetensors"):
            why = "there is no such file: give one that is there, the folder of a run of linksim train, or auto"
        else:
            why = f"no run of {model.name} is there: {model.command} --out {shlex.quote(str(path))}"
        raise NoWeights(f"weights={path}: {why}") from None
    facts: dict[str, Any] = {"pairs": None}
    if file.suffix == ".safetensors":
        tensors = read_tensors(data, f"weights={path}")
    else:
        way_out = "give another file, the folder of a run of linksim train, or auto"
        content = load_checkpoint(file, way_out=way_out)
        state = content["state"]
        try:
            tensors = {name: value.float() for name, value in content["model"].items()}
            spec, recipe = spec_from_json(content["identity"]["spec"]), content["identity"]["recipe"]
            before = sum(run["pairs"] for run in state["lineage"]) + state["prepared"]
            facts["pairs"] = int(before + state["step"] * recipe["batch"])
            low, high = map(float, recipe.get("snr_db", (-math.inf, math.inf)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged(file, error, way_out) from None
        _check_method(model, spec, path)
        assert isinstance(spec, ModelSpec)
        facts |= {"channel": spec.channel, "snr_db": (low, high)}
        facts["images"] = None if spec.image_shape == model.spec.image_shape else size_words(spec.image_shape)
    chosen = Chosen(digest(data), network=lambda: fitted(model, tensors, f"weights={path}"), **facts)
    chosen.network()
    return chosen


def fitted(model: Model, tensors: Mapping[str, Tensor], source: str) -> nn.Module:
    """The network with these weights, ready to evaluate. Raises LinksimError for those of another, or not finite."""
    network = model.build()
    for name, value in tensors.items():
        if not bool(value.isfinite().all()):
            raise LinksimError(f"{source} has weights that are not finite, {name}: give others")
    try:
        network.load_state_dict({name: value.float() for name, value in tensors.items()})
    except RuntimeError as error:
        own = network.state_dict()
        # Of PyTorch's list the first entry: some differ in shape and fit nevertheless.
        if found := re.search(r"size mismatch for ([\w.]+):", str(error)):
            name = found[1]
            why = f"{name} is {tuple(tensors[name].shape)} and not {tuple(own[name].shape)}"
        else:
            lacks = [name for name in own if name not in tensors]
            why = f"they lack {lacks[0]}" if lacks else f"that has no {next(n for n in tensors if n not in own)}"
        raise LinksimError(f"{source}: these weights are not of the network of {model.name}: {why}") from None
    return network.eval().requires_grad_(False)


def checked_facts(facts: Card) -> Card:
    """A card, all but its files and its model. Raises pydantic's ValidationError where something lacks in it."""
    _Card.model_validate({**facts, "files": {"any": ""}, "model": {}})
    return {key: value for key, value in facts.items() if key not in ("files", "model", "folder")}


def ready_to_install() -> None:
    """Makes the user's folder of weights. Raises LinksimError where nothing can be written, before hours are spent."""
    from linksim.files import remove_stale_parts

    folder = weights_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale_parts(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise LinksimError(
            f"{folder} cannot hold weights ({error.strerror}): set LINKSIM_WEIGHTS to another folder"
        ) from None
    _read(folder)


def halved(network: nn.Module) -> dict[str, Tensor]:
    """A network's weights in half precision, as they are kept."""
    import torch

    return {n: v.detach().to("cpu", torch.float16).contiguous() for n, v in network.state_dict().items()}


def files(model: Model, network: nn.Module) -> dict[str, bytes]:
    """A model's weights in half precision, as files by name.

    A name holds a piece of the file's hash: what is there stays whole until the manifest names the new files.
    """
    from safetensors.torch import save

    shards = list(_shards(halved(network)))
    found: dict[str, bytes] = {}
    for number, tensors in enumerate(shards, 1):
        part = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        data = save(tensors)
        found[f"{model.name}{part}.{digest(data)[:8]}.safetensors"] = data
    return found


def install(model: Model, network: nn.Module, facts: Card) -> list[Path]:
    """Writes a model's weights in half precision with their card into the user's own folder.

    Args:
        facts: the card, all but its files and its model.
    """
    content = files(model, network)
    hashes = {name: digest(data) for name, data in content.items()}
    return put(model.name, content, {"files": hashes, "model": model.spec.to_json(), **facts})


def put(name: str, content: Mapping[str, bytes], card: Card) -> list[Path]:
    """Puts a model's files and card into the user's own folder, in the place of those that are there."""
    folder = weights_dir()
    folder.mkdir(parents=True, exist_ok=True)
    # Several models are trained side by side and end when they like.
    with FileLock(folder / f".{MANIFEST}.lock"):
        known = {name: {k: v for k, v in card.items() if k != "folder"} for name, card in _read(folder).items()}
        before = known.get(name, {"files": {}})["files"]
        for file, data in content.items():
            write_atomic(folder / file, data)
        known[name] = dict(card)
        write_atomic(folder / MANIFEST, (json.dumps(dict(sorted(known.items())), indent=1) + "\n").encode())
        for file in before:
            if file not in content:
                (folder / file).unlink(missing_ok=True)
    return [folder / file for file in content]


def _shards(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    part: dict[str, Tensor] = {}
    # Each tensor has some bytes of header.
    sizes = {name: value.numel() * value.element_size() + 256 for name, value in tensors.items()}
    for name, value in tensors.items():
        if part and sum(sizes[n] for n in part) + sizes[name] > SHARD:
            yield part
            part = {}
        part[name] = value
    yield part
