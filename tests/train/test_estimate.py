"""What a training is told to cost: counts by hand, what it grows with, and that it needs and leaves nothing."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from linksim import LinksimError
from linksim.cli import main
from linksim.link.power import _targets
from linksim.models.recipe import BaseRecipe
from linksim.models.spec import ModelSpec
from linksim.models.task import Task
from linksim.nets.optimizers import matrices
from linksim.schemes.learned import transceiver
from linksim.train.estimate import CORE, GPUS, Cost, cost_of, count
from linksim.train.models import behind, priors

COMPACT = transceiver(ModelSpec("deepjscc-noma", "compact", "rayleigh", Fraction(1, 12)))
LARGE = ModelSpec("semoma", "compact", "awgn", Fraction(1, 48), image_shape=(3, 128, 128))


def cost(model: Any, devices: int = 1, **changes: str) -> Cost:
    return cost_of(model, model.make_recipe("paper", changes, warm=False), devices)


class Known(Task):
    """A depthwise convolution, one of stride 2 and a linear layer, of which all is known."""

    def network(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.Conv2d(8, 16, 3, 2, 1), nn.Flatten(), nn.Linear(16 * 64, 10)
        )

    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        return {"total": model(torch.ones(4, 8, 16, 16, device=self.device)).square().mean()}

    def identity(self) -> dict[str, Any]:
        return {}

    def validate(self, model: nn.Module) -> dict[str, float]:
        return {}

    @property
    def validated(self) -> int:
        return 0


def test_operations_are_those_counted_by_hand() -> None:
    task = Known(BaseRecipe(), device="meta")
    flops, saved = count(task, task.network().to("meta"))
    depthwise, convolution, linear = 8 * 49 * 256, 8 * 16 * 9 * 64, 16 * 64 * 10
    # Forward, and each gradient as much again; the first layer's input needs none.
    assert flops == 4 * 2 * (2 * depthwise + 3 * convolution + 3 * linear)
    assert saved == 4 * 4 * (8 * 256 + 8 * 256 + 16 * 64 + 10)


def test_memory_grows_with_what_is_worked_on_at_once() -> None:
    small, large, huge = (cost(COMPACT, batch=batch) for batch in ("16", "32", "64"))
    parts = cost(COMPACT, batch="32", accumulate="2")
    assert huge.memory - large.memory == pytest.approx(2 * (large.memory - small.memory), rel=0.01)
    assert parts.memory == pytest.approx(small.memory)
    assert parts.flops == pytest.approx(large.flops) == pytest.approx(2 * small.flops)
    together = cost(COMPACT, 2, batch="32")
    assert together.memory == pytest.approx(small.memory)
    assert together.flops / together.devices == pytest.approx(large.flops / 2)
    # What is launched is launched on each.
    assert together.seconds("A100") == max(together.flops / 2 / (312e12 * 0.02), 0.01)
    muon = cost(COMPACT, batch="32", optimizer="muon")
    assert large.memory - muon.memory == 4 * sum(value.numel() for value in matrices(COMPACT.build()))
    with pytest.raises(LinksimError, match="does not divide among 3"):
        cost(COMPACT, 3)


def test_parts_of_images_take_their_share() -> None:
    whole, part = cost(transceiver(LARGE)), cost(transceiver(LARGE), crop="64")
    assert part.flops == pytest.approx(whole.flops / 4, rel=0.03)
    with pytest.raises(LinksimError, match="crop=256"):
        cost(transceiver(LARGE), crop="256")


def test_refiners_and_priors_are_told_of_without_weights_and_assets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "none"))
    before = torch.get_rng_state()
    first = transceiver(ModelSpec("semnoma", "compact", "awgn", Fraction(1, 96)))
    assert all(cost(behind(name, first)).flops > 1e9 for name in ("cgan", "diffbir-mini"))
    assert torch.equal(torch.get_rng_state(), before)
    assert not (tmp_path / "none").exists()
    if "small" in (known := priors((3, 64, 64))):
        assert cost(known["small"]).parameters == pytest.approx(4.3e6, rel=0.02)
    # Nothing without values is left in what later steps use.
    assert not _targets((0.5, 0.5), torch.float32, torch.device("cpu")).is_meta


def test_the_command_line_tells_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("WEIGHTS", "CACHE"):
        monkeypatch.setenv(f"LINKSIM_{name}", str(tmp_path / name))
    words = ["train", "--dry-run", "--scheme", "semnoma", "--rho", "1/48"]
    assert main([*words, "--steps", "1000"]) == 0
    out = capsys.readouterr().out
    assert "lacks  semoma_awgn_1-96" in out
    assert "time for 1,000 steps a model, an estimate: a core is taken to do 50 GFLOP/s, a GPU 2% of" in out
    assert all(device in out for device in (CORE, *GPUS))
    assert "all 1" not in out
    assert main([*words, "--budget", "2h"]) == 0
    assert "steps in 2.00 h a model" in capsys.readouterr().out
    Path("mine.yaml").write_text("scheme: [deepjscc-noma, semoma]\nchannel: awgn\nrho: 1/24\n")
    assert main(["train", "--dry-run", "--for", "mine.yaml", "--set", "batch=12"]) == 0
    out = capsys.readouterr().out
    assert "all 2 models" in out
    assert "time for 10,000 steps" in out
    Path("list.yaml").write_text("models: []\n")
    assert main(["train", "--dry-run", "--for", "list.yaml"]) == 2
    assert "give a sweep file" in capsys.readouterr().err
    assert main([*words, "--more", "1m"]) == 2
    assert "leave --more out" in capsys.readouterr().err
    assert main([*words, "--set", "accumulate=3"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.yaml", "mine.yaml"]
