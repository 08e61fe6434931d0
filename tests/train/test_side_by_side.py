"""Trainings side by side, by the clock: who embeds for whom, and weights with the cards that `linksim train` writes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from linksim.engine.config import read_sweep_file
from linksim.train.campaign import goals_of

ROOT = Path(__file__).parents[2]
FILE = ROOT / "benchmarks" / "side_by_side.py"
OFFICIAL = os.environ.get("LINKSIM_TEST_CIFAR10")
LIST = """models:
  - {scheme: semoma, rho: 1/3, recipe: scratch, set: {batch: 1}, bar: 0, warm: semoma_awgn_1-6_n2_own_sum_32px_compact}
  - {scheme: semnoma, rho: 1/3, set: {batch: 1}, bar: 0}
"""


def test_models_that_start_alike_share_an_embedding() -> None:
    spec = importlib.util.spec_from_file_location("side_by_side", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    firsts = module._firsts(goals_of(read_sweep_file(ROOT / "sweeps" / "train" / "gpu.yaml")))
    assert [name for name, first in firsts.items() if not first] == [name for name in firsts if "semoma" in name]
    for name, first in firsts.items():
        if first:
            channel, rho, size = name.split("_")[1], name.split("_")[2], name.split("_")[7]
            assert first == f"semnoma_{channel}_{rho}_n2_own_sum_32px_{size}"


@pytest.mark.skipif(not OFFICIAL, reason="LINKSIM_TEST_CIFAR10 is not set")
def test_bases_and_what_starts_from_them_are_trained_by_the_clock(tmp_path: Path, few_held_out: str) -> None:
    (tmp_path / "list.yaml").write_text(LIST)
    command = [sys.executable, FILE, tmp_path / "list.yaml", "--seconds", "2", "--device", "cpu"]
    environment = {**os.environ, "LINKSIM_WEIGHTS": str(tmp_path / "weights"), "PYTHONPATH": f"{few_held_out}:{ROOT}"}
    subprocess.run([*command, "--data-dir", str(OFFICIAL)], env=environment, check=True, timeout=300)
    cards = json.loads((tmp_path / "weights" / "manifest.json").read_text())
    base, student = (cards[f"{name}_n2_own_sum_32px_compact"] for name in ("semoma_awgn_1-6", "semnoma_awgn_1-3"))
    # The base goes on from the shipped one; the student starts from what that came to.
    assert base["validation"]["psnr_10db"] > 28
    assert student["lineage"][-1]["files"] == list(base["files"].values())
    assert student["pairs"] == student["steps"] + student["settings"]["embed_steps"]
    words = f"--set batch=1 --set embed_steps={student['settings']['embed_steps']} --warm embedded"
    assert student["command"].endswith(words)
