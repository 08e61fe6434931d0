"""Where a refinement starts: the T' that validated best for a prior behind a first stage.

The tables are found as weights are: the user's own (`linksim tune`) before those of the package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from filelock import FileLock
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from linksim.errors import LinksimError, NoWeights
from linksim.paths import weights_dir

if TYPE_CHECKING:
    from linksim.schemes.base import Scheme
    from linksim.train.spec import Spec

FILE = "starts.json"
SHIPPED = Path(__file__).parent / FILE


class _Entry(BaseModel):
    one: int = Field(ge=1)
    by_snr: dict[Annotated[float, Field(allow_inf_nan=False)], Annotated[int, Field(ge=1)]] = Field(min_length=1)
    images: int
    metric: str


@dataclass(frozen=True)
class Starts:
    """T' of a prior behind a first stage.

    Args:
        one: the best one for all SNRs together.
        by_snr: the best one at each SNR in dB.
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


def stage_name(first: Scheme) -> str:
    """What a table calls a first stage: the model behind it, whatever its weights, or scheme, parameters and link."""
    from linksim.schemes.learned import Learned

    if isinstance(first, Learned):
        return first.spec.name
    link, params = first.setting.link, ",".join(f"{key}={value}" for key, value in first.params)
    return f"{first.name}:{params}_{link.channel}_{first.setting.rho}_n{link.users}_{link.power}"


def validated_starts(prior: Spec, first: Scheme) -> Starts:
    """The table's entry. Raises LinksimError where there is none."""
    stage = stage_name(first)
    for path in (own_table(), SHIPPED):
        entry = _read(path).get(prior.name, {}).get(stage)
        if entry is not None:
            return Starts(entry.one, entry.by_snr)
    link = first.setting.link
    raise NoWeights(
        f"no T' was validated for {prior.name} behind {stage}: give start=T' (like start=40), or find it: linksim tune "
        f"--scheme {first.name}+ddim --channel {link.channel} --rho {first.setting.rho}"
    )


def own_table() -> Path:
    """The user's own table of starts."""
    return weights_dir() / FILE


def known(prior: str, stage: str) -> bool:
    """Whether a table has an entry already, the user's own or the package's."""
    return any(stage in _read(path).get(prior, {}) for path in (own_table(), SHIPPED))


def keep_starts(prior: str, stage: str, starts: Starts, images: int, metric: str) -> None:
    """Writes an entry into the user's own table, which goes before the package's."""
    from linksim.engine.provenance import write_atomic

    path = own_table()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{FILE}.lock")):
        table = {name: {s: e.model_dump() for s, e in stages.items()} for name, stages in _read(path).items()}
        entry = {"one": starts.one, "by_snr": dict(starts.by_snr), "images": images, "metric": metric}
        table.setdefault(prior, {})[stage] = entry
        write_atomic(path, (json.dumps(table, indent=1, sort_keys=True) + "\n").encode())
