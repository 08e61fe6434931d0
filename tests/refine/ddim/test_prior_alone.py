"""Images of a prior alone."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from linksim.data.training import training_set_of
from linksim.errors import LinksimError
from linksim.metrics import Fid
from linksim.models.spec import PriorSpec
from linksim.refine.ddim import training
from linksim.refine.ddim.model import OwnPrior
from linksim.refine.ddim.recipe import PriorRecipe
from linksim.refine.ddim.training import PriorTask, drawn, drawn_quality
from linksim.refine.diffusion import OWN_SCHEDULE, Prior, make_scheduler

MEAN, SPREAD = 0.25, 0.1


class Gaussian(nn.Module):
    """Knows images whose pixels are independent, N(MEAN, SPREAD^2) on [-1, 1], and tells the noise that is expected."""

    def forward(self, x: Tensor, times: Tensor) -> SimpleNamespace:
        a = make_scheduler(OWN_SCHEDULE).alphas_cumprod[times.long()][:, None, None, None]
        return SimpleNamespace(sample=(1 - a).sqrt() * (x - a.sqrt() * MEAN) / (a * SPREAD**2 + 1 - a))


def test_a_prior_that_knows_its_images_draws_them() -> None:
    prior = Prior(Gaussian(), OWN_SCHEDULE)
    images = 2 * drawn(prior, 60, 250, (3, 8, 8)) - 1
    assert float(images.mean()) == pytest.approx(MEAN, abs=0.005)
    assert float(images.std()) == pytest.approx(SPREAD, rel=0.05)
    assert torch.equal(2 * drawn(prior, 3, 250, (3, 8, 8)) - 1, images[:3])


def test_steps_that_do_not_divide_the_process_are_refused() -> None:
    with pytest.raises(LinksimError, match="must divide"):
        drawn(Prior(Gaussian(), OWN_SCHEDULE), 1, 7, (3, 8, 8))


def test_the_card_of_a_long_training_tells_how_far_its_images_are(
    install: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(training, "_DRAWN", 4)
    monkeypatch.setattr(training, "_SEEN_FOR_ONE", 10)
    # Eigenvalues of 2048 features take seconds each.
    distance = Fid.distance
    monkeypatch.setattr(Fid, "distance", lambda self, *sets: distance(self, *(part[:, :64] for part in sets)))
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), np.uint8)
    task = PriorTask(PriorSpec("small"), lambda _: Gaussian(), PriorRecipe(), training_set_of(images, 8))
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("LINKSIM_ASSETS", str(tmp_path))
        assert task.measured(Gaussian(), 40) == {}
    install("inception-fid")
    assert task.measured(Gaussian(), 39) == {}
    said = task.measured(Gaussian(), 40)["drawn"]
    prior, held_out = Prior(Gaussian(), OWN_SCHEDULE), training_set_of(images, 8).held_out[:4]
    found = drawn_quality(prior, held_out)
    assert said == {"images": 4, "ddim_steps": 50, **{name: round(value, 4) for name, value in found.items()}}
    # Grey images are far from noise of all colours, and no image is far from itself.
    assert found["fid"] > 20
    monkeypatch.setattr(training, "drawn", lambda *_: torch.tensor(held_out).float() / 255)
    assert drawn_quality(prior, held_out)["fid"] < 1


def test_a_training_without_averages_has_none() -> None:
    images = training_set_of(np.zeros((4, 3, 32, 32), np.uint8), 2)
    kept = [
        PriorTask(PriorSpec("small"), OwnPrior.network, PriorRecipe(ema=ema), images).decays for ema in (0.999, 0.0)
    ]
    assert kept == [(0.999, 0.9995, 0.9999), (0.0,)]
