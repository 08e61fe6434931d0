"""Checkpoints: whatever is damaged in one, or no checkpoint at all, is told before anything is done with it."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from linksim.errors import LinksimError
from linksim.models import weights
from linksim.models.checkpoint import State, load_checkpoint, save_atomic
from tests.models.build import build
from tests.schemes.test_learned import MODEL, SPEC


@pytest.fixture
def content() -> dict[str, Any]:
    """As a training leaves it."""
    state = vars(State(step=3, steps=3, best=20.0))
    identity = {"spec": SPEC.to_json(), "recipe": {"batch": 2, "snr_db": [0.0, 20.0]}, "seed": 0}
    return {"identity": identity, "model": build(SPEC).state_dict(), "state": state}


def test_a_bit_that_has_changed_is_seen(content: dict[str, Any], tmp_path: Path) -> None:
    """PyTorch reads on as if nothing had happened."""
    save_atomic(tmp_path / "best.pt", content)
    whole = (tmp_path / "best.pt").read_bytes()
    assert load_checkpoint(tmp_path / "best.pt")["state"] == content["state"]
    random, unread = np.random.default_rng(0), 0
    for at in [*random.integers(0, len(whole), 20), *random.integers(0, 5_000, 20)]:
        cut = bytearray(whole)
        cut[at] ^= 1 << int(random.integers(8))
        (tmp_path / "best.pt").write_bytes(cut)
        found = None
        with contextlib.suppress(LinksimError):
            found = load_checkpoint(tmp_path / "best.pt")
        if found is not None:
            # A bit that nothing reads, of the file's list of its parts.
            for name, value in content["model"].items():
                assert torch.equal(found["model"][name], value)
            unread += 1
    assert unread <= 5


@pytest.mark.parametrize("what", ["empty", "text", "cut", "folder"])
def test_what_is_no_checkpoint_is_told(content: dict[str, Any], tmp_path: Path, what: str) -> None:
    path = tmp_path / "best.pt"
    save_atomic(path, content)
    whole = path.read_bytes()
    path.unlink()
    if what == "folder":
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "text": b"hello", "cut": whole[: len(whole) // 2]}[what])
    with pytest.raises(LinksimError, match=r"is no checkpoint of linksim train, or damaged: take it away, or take"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("part", "value", "hint"),
    [
        ("identity", {}, "is damaged (KeyError: 'spec'): give another file"),
        ("model", None, "is damaged (AttributeError: 'NoneType'"),
        ("model", {}, "they lack"),
        ("recipe", {"batch": 2, "snr_db": [1, 2, 3]}, "is damaged (ValueError: too many values"),
        ("recipe", {}, "is damaged (KeyError: 'batch')"),
        ("lineage", [{}], "is damaged (KeyError: 'pairs')"),
        ("channel", 7, "channel"),
        ("nan", None, "has weights that are not finite, encoder.layers"),
    ],
)
def test_weights_in_a_file_that_is_no_run_are_told(
    content: dict[str, Any], tmp_path: Path, part: str, value: object, hint: str
) -> None:
    if part == "recipe":
        content["identity"]["recipe"] = value
    elif part == "channel":
        content["identity"]["spec"] = {**SPEC.to_json(), "channel": value}
    elif part == "lineage":
        content["state"]["lineage"] = value
    elif part == "nan":
        name = next(name for name in content["model"] if name.startswith("encoder"))
        content["model"][name] = content["model"][name] * float("nan")
    else:
        content[part] = value
    save_atomic(tmp_path / "best.pt", content)
    with pytest.raises(LinksimError) as raised:
        chosen(tmp_path / "best.pt")
    assert hint in str(raised.value)


def test_a_device_is_no_file_of_weights() -> None:
    with pytest.raises(LinksimError, match="weights=/dev/null is no file"):
        chosen(Path("/dev/null"))


def chosen(path: Path) -> object:
    return weights.choose(MODEL, str(path))
