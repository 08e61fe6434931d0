"""The error that networks are trained for, against what tables report."""

import math

import pytest
import torch

from linksim.metrics.fidelity import psnr_from_mse
from linksim.models.fidelity import fidelity


def test_the_logarithms_are_the_two_psnrs_of_tables() -> None:
    images = torch.zeros(3, 2, 3, 8, 8)
    shown = images + torch.tensor([[0.1, 0.3], [0.02, 0.5], [0.2, 0.2]]).reshape(3, 2, 1, 1, 1)
    squared = torch.tensor([[0.01, 0.09], [0.0004, 0.25], [0.04, 0.04]])
    # An e-fold of error is 4.34 dB; 1e-5 is nothing beside these.
    decibels = -100 / math.log(10)
    for loss, error in (("log-mse", squared), ("log-pooled-mse", squared.mean(1))):
        found = decibels * fidelity(loss, shown, images)  # type: ignore[arg-type]
        assert float(found) == pytest.approx(float(psnr_from_mse(error).mean()), abs=0.05)
