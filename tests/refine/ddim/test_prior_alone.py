"""`benchmarks/prior.py`: images of a prior alone."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from benchmarks.prior import drawn
from linksim.errors import LinksimError
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
