"""What made a result: conventions, versions, hashes, command; and whether a folder belongs to a sweep."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from linksim.engine import journal
from linksim.engine.config import RESULTS_VERSION, SweepConfig
from linksim.errors import LinksimError
from linksim.files import write_atomic
from linksim.link.channels import channel_class
from linksim.metrics import METRICS, SetMetric
from linksim.metrics import conventions as metric_conventions
from linksim.version import code_version, numeric_versions, package_versions

RUN_FILE = "run.json"

#: What sweeps of before had all, and do not name: identities leave it out, tables of then have no columns of it.
USUAL: dict[str, Any] = {"antennas": 1, "detector": "lmmse"}


def versions_of(folder: Path, sweep: str) -> list[dict[str, str]]:
    """The versions of all processes that worked on a sweep, each once.

    What was begun before the journal knew them goes by the packages in `run.json`.

    Args:
        sweep: hash of the sweep's identity.
    """
    found: list[dict[str, str]] = []
    worked = False
    for record in journal.read_folder(folder / journal.FOLDER):
        versions = record.get("versions")
        if record.get("sweep") != sweep:
            continue
        worked |= "point" in record
        if isinstance(versions, dict) and versions not in found:
            found.append(versions)
    run = read_run(folder)
    packages = run.get("packages") if run is not None else None
    if not found and worked and isinstance(packages, dict):
        found.append({name: packages[name] for name in numeric_versions() if name in packages})
    return found


def conventions(config: SweepConfig) -> dict[str, str]:
    """The convention behind every number, in words."""
    power = {
        "sum": "sum: all users together P_avg a channel use (code released with the KDD paper)",
        "per-ue": "per-ue: every user P_avg where all send at once (KDD paper, eq. 2)",
    }
    csi = "perfect" if config.csi_error_var == 0 else f"h + CN(0, {config.csi_error_var:g}), the same at both ends"
    return {
        "power": power[config.power],
        "snr": "gamma = 10 log10(P_avg / sigma^2), sigma^2 per complex symbol and receive antenna",
        "noise": "added once, at each antenna, in the multiple-access channel",
        "rho": "k / m: complex channel uses of the system over C*H*W",
        "fading": "; ".join(f"{name}: {channel_class(name).summary}" for name in config.channel) + "; E|h|^2 = 1",
        "csi_transmitter": csi,
        "csi_receiver": csi,
        "pixels": {"float": "clamped to [0, 1], not rounded", "uint8": "clamped to [0, 1], rounded to 8 bits"}[
            config.pixels
        ],
        "groups": "the data set cut into N contiguous parts, zipped",
        "interval": "95%, Student's t over image groups; block errors Korn-Graubard over image groups",
        **metric_conventions(config.metrics),
    }


def estimates(config: SweepConfig) -> dict[str, str]:
    """What metrics of a whole set take that has changed since there were results, by its key in a sweep's identity."""
    kinds = {name: METRICS[name] for name in config.metrics}
    found = {f"{name} estimate": kind.estimate for name, kind in kinds.items() if issubclass(kind, SetMetric)}
    return {key: words for key, words in found.items() if words}


def identity(config: SweepConfig, data_hash: str, systems: Mapping[str, str]) -> dict[str, Any]:
    """All that the numbers depend on, as flat keys; two folders with one identity hold the same sweep."""
    flat = config.model_dump(mode="json")
    flat.pop("data_dir")
    # Every system with networks says its own; it is nothing to the others.
    flat.pop("precision")
    # One antenna is what sweeps of before had; and K, now Rician fading's own parameter, was a setting of each.
    if all(flat[key] == value for key, value in USUAL.items()):
        flat = {key: value for key, value in flat.items() if key not in USUAL}
    flat["rician_k_db"] = 6.0
    flat |= estimates(config)
    flat["data_hash"] = data_hash
    flat["results_version"] = RESULTS_VERSION
    return {**flat, **systems}


def identity_hash(facts: Mapping[str, Any]) -> str:
    """Short hash of an identity, for a folder's name."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def read_run(folder: Path) -> dict[str, Any] | None:
    """`run.json` of a results folder; None where there is none. Raises LinksimError where it cannot be read."""
    try:
        run = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LinksimError(f"{folder / RUN_FILE}: {error.strerror}: put it right or take it away") from None
    except (ValueError, RecursionError):
        run = None
    kinds = {"identity": dict, "config": dict, "parts": dict, "lacking": dict}
    if not isinstance(run, dict) or not all(isinstance(run.get(key, {}), kind) for key, kind in kinds.items()):
        run = None
    if run is None or not {"identity", "config"} <= set(run) or not isinstance(run["config"].get("scheme", []), list):
        raise LinksimError(f"{folder / RUN_FILE} is damaged: put it right or take it away")
    run["config"] = _of_today(run["config"])
    found: dict[str, Any] | None = run
    return found


def _of_today(config: Mapping[str, Any]) -> dict[str, Any]:
    """A sweep's settings as they would be written today: those that there were not yet have their defaults."""
    k_db = config.get("rician_k_db", 6.0)
    fields = SweepConfig.model_fields
    found = {key: field.get_default() for key, field in fields.items() if key not in config and not field.is_required()}
    found |= {key: value for key, value in config.items() if key != "rician_k_db"}
    if k_db != 6.0 and isinstance(found.get("channel"), list):
        found["channel"] = [f"rician:k_db={k_db}" if name == "rician" else name for name in found["channel"]]
    return found


def difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """What sets two identities apart, named; None when nothing does."""
    keys = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    if not keys:
        return None
    shown = [f"{key}: {_short(there.get(key))} there, {_short(here.get(key))} here" for key in keys[:3]]
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return "; ".join(shown) + more


def _short(value: Any) -> str:
    text = "none" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"


def make_run(config: SweepConfig, facts: Mapping[str, Any], command: str, **more: Any) -> dict[str, Any]:
    """The contents of `run.json`."""
    return {
        "linksim": code_version(),
        "results_version": RESULTS_VERSION,
        "command": command,
        "config": config.model_dump(mode="json"),
        "identity": dict(facts),
        "conventions": conventions(config),
        "packages": package_versions(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "finished": None,
        **more,
    }


def write_run(folder: Path, run: Mapping[str, Any]) -> None:
    """Writes `run.json`."""
    write_atomic(folder / RUN_FILE, (json.dumps(run, indent=2) + "\n").encode())


def command_line() -> str:
    """The command as typed, with the program's bare name."""
    import shlex

    program = Path(sys.argv[0])
    # Of `python -m linksim`.
    name = "linksim" if program.name == "__main__.py" and program.parent.name == "linksim" else program.name
    return shlex.join([name or "python", *sys.argv[1:]])
