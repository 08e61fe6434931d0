"""Where a refinement starts: the T' that validated best for a prior behind a first stage.

The tables are found as weights are: the user's own (`linksim tune`) before those of the package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from filelock import FileLock
from pydantic import AliasChoices, BaseModel, Field, TypeAdapter, ValidationError

from linksim.errors import LinksimError, NoWeights
from linksim.files import digest, write_atomic
from linksim.models.spec import CIFAR10_SHAPE, size_words
from linksim.paths import weights_dir
from linksim.schemes.learned import Learned

if TYPE_CHECKING:
    from linksim.refine.ddim.priors import Found
    from linksim.schemes.base import Scheme

FILE = "starts.json"
_DIGITS = 16
SHIPPED = Path(__file__).parent / FILE


class _Entry(BaseModel):
    weights: dict[str, str] = Field(default_factory=dict)
    one: int = Field(ge=0)
    by_snr: dict[Annotated[float, Field(allow_inf_nan=False)], Annotated[int, Field(ge=0)]] = Field(min_length=1)
    images: int
    criterion: str = Field(validation_alias=AliasChoices("criterion", "metric"))


@dataclass(frozen=True)
class Starts:
    """T' of a prior behind a first stage; 0 where no refinement is better.

    Args:
        one: the best one for all SNRs together.
        by_snr: the best one at each SNR in dB, SNRs rising.
    """

    one: int
    by_snr: Mapping[float, int]


def _read(path: Path) -> dict[str, dict[str, _Entry]]:
    try:
        return TypeAdapter(dict[str, dict[str, _Entry]]).validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError, ValueError) as error:
        said = " ".join(str(error).split())[:120]
        raise LinksimError(f"{path} is no table of starts ({said}): repair it or take it away") from None


@dataclass(frozen=True)
class Stages:
    """A prior behind a first stage: what a T' is of.

    Args:
        prior, first: what a table calls them.
        weights: of each, digests of the weights that T' was validated with.
        like: what a table calls the first stage over the link of its training, whose T' serves where there is no other.
    """

    prior: str
    first: str
    weights: Mapping[str, str]
    like: str


def stages(prior: Found, first: Scheme) -> Stages:
    """What a table of starts calls a prior behind a first stage; one that was not trained here goes by its hash."""
    hashes = {"prior": prior.identity, "first": first.provenance().get("weights", "")}
    weights = {part: digest(text.encode())[:_DIGITS] for part, text in hashes.items()}
    name = prior.spec.name if prior.spec is not None else f"prior_{weights['prior']}"
    own, like = _stage_names(first)
    return Stages(name, own, weights, like)


def _stage_names(first: Scheme) -> tuple[str, str]:
    """What a table calls a first stage, and the same over the link of its training.

    That is the model behind it, whatever its weights, or scheme, parameters and link.
    """
    link = first.setting.link
    more = [f"m{link.antennas}_{link.detector}"] if link.antennas > 1 else []
    more += [f"e{link.csi_error_var:g}"] if link.csi_error_var else []
    if isinstance(first, Learned):
        elsewhere = [] if link.channel == first.spec.channel else [link.channel]
        return "_".join([first.spec.name, *elsewhere, *more]), first.spec.name
    params = ",".join(f"{key}={value}" for key, value in first.params)
    name = f"{first.name}:{params}_{link.channel}_{first.setting.rho}_n{link.users}_{link.power}"
    return ("_".join([name, *more]),) * 2


def validated_starts(wanted: Stages, first: Scheme, prior: str) -> Starts:
    """The table's entry; `prior` is what a user calls it. Raises NoWeights where there is none for these weights."""
    entries = _entries(wanted)
    for entry in entries:
        if entry.weights == wanted.weights:
            return Starts(entry.one, dict(sorted(entry.by_snr.items())))
    why = "the one that is known is of other weights" if entries else "there is none"
    link = first.setting.link
    own = ",".join(
        f"{key}={value}" for key, value in first.params if str(first.Params.model_fields[key].default) != str(value)
    )
    own = ",".join(filter(None, (own, f"prior={prior}" if prior != "small" else "")))
    scheme = f"{first.name}+ddim" + (f":{own}" if own else "")
    words = [f"--scheme {scheme}", f"--channel {link.channel}", f"--rho {first.setting.rho}"]
    if first.setting.image_shape != CIFAR10_SHAPE:
        words += [f"--dataset folder:DIR --image-size {size_words(first.setting.image_shape)}"]
    words += [f"--users {link.users}"] * (link.users != 2) + [f"--power {link.power}"] * (link.power != "sum")
    words += [f"--antennas {link.antennas} --detector {link.detector}"] * (link.antennas > 1)
    words += [f"--csi-error {link.csi_error_var:g}"] * (link.csi_error_var > 0)
    raise NoWeights(
        f"no T' was validated for {wanted.prior} behind {wanted.first} ({why}): give start=T' (like start=40; "
        f"start=paper is 200 on 256x256), or find it: linksim tune {' '.join(words)}"
    )


def _entries(wanted: Stages) -> list[_Entry]:
    """Entries whatever their weights: those of its own link first, the user's own before the package's."""
    names = dict.fromkeys((wanted.first, wanted.like))
    found = (_read(path).get(wanted.prior, {}).get(name) for name in names for path in (own_table(), SHIPPED))
    return [entry for entry in found if entry is not None]


def own_table() -> Path:
    """The user's own table of starts."""
    return weights_dir() / FILE


def known(wanted: Stages) -> bool:
    """Whether a table has an entry for these weights over this link already, the user's own or the package's."""
    return any(entry.weights == wanted.weights for entry in _entries(replace(wanted, like=wanted.first)))


def keep_starts(of: Stages, starts: Starts, images: int, criterion: str) -> None:
    """Writes an entry into the user's own table, which goes before the package's; `criterion`: chosen by what."""
    path = own_table()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{FILE}.lock")):
        table = {name: {s: e.model_dump() for s, e in stages.items()} for name, stages in _read(path).items()}
        entry = {"weights": dict(of.weights), "one": starts.one, "by_snr": dict(starts.by_snr), "images": images,
                 "criterion": criterion}  # fmt: skip
        table.setdefault(of.prior, {})[of.first] = entry
        write_atomic(path, (json.dumps(table, indent=1, sort_keys=True) + "\n").encode())
