"""Semantic fine-tuning: counts of the paper, the latent diffusion, its training in two parts, and GSC's rows."""

import math
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import linksim
from linksim.cli import main
from linksim.errors import LinksimError
from linksim.models import weights
from linksim.models.spec import ModelSpec, RefinerSpec
from linksim.refine.sft.network import STEPS, Diffusion, LatentEncoder, SftNetwork
from linksim.refine.sft.recipe import SftRecipe
from linksim.refine.sft.refiner import Sft, SftParams
from linksim.train.models import model_of
from tests.train.test_command import folder, train

__all__ = ["folder"]

FIRST = ModelSpec("ngf", "paper", "awgn", Fraction(1, 6), users=1, csi="none")


def millions(network: torch.nn.Module) -> float:
    return sum(value.numel() for value in network.parameters()) / 1e6


def test_networks_have_the_parameters_of_the_paper() -> None:
    paper, compact = SftNetwork("paper"), SftNetwork("compact")
    assert (millions(paper.teacher), millions(paper.restorer)) == pytest.approx((2.5, 28.9), rel=0.02)
    assert (millions(compact.teacher), millions(compact.restorer)) == pytest.approx((0.30, 2.83), rel=0.01)


@pytest.mark.parametrize("betas", ["linear", "sqrt"])
@pytest.mark.parametrize("predict", ["x0", "eps"])
def test_a_denoiser_that_knows_leads_back_to_what_was_noisy(betas: str, predict: str) -> None:
    diffusion = Diffusion(betas, predict)  # type: ignore[arg-type]
    z, noise = torch.randn(2, 5, 8).double()
    begun = diffusion.noisy(z, noise)

    class Knows:
        def __call__(self, told: torch.Tensor, step: int, now: torch.Tensor) -> torch.Tensor:
            kept = float(diffusion.kept[step - 1])
            return z if predict == "x0" else (now - kept**0.5 * z) / (1 - kept) ** 0.5

    assert diffusion.kept[-1] == pytest.approx(math.prod(1 - float(beta) for beta in diffusion.betas))
    torch.testing.assert_close(diffusion.back(Knows(), z, begun), z, atol=1e-5, rtol=1e-5)  # type: ignore[arg-type]
    assert len(diffusion.betas) == STEPS


def test_the_second_encoder_begins_as_the_first_but_for_one_layer() -> None:
    network = SftNetwork("compact")
    network.hand_over()
    features = torch.rand(2, 32, 8, 8)
    for part in ("body", "tail"):
        for mine, theirs in zip(
            getattr(network.encoder, part).parameters(), getattr(network.teacher, part).parameters(), strict=True
        ):
            assert torch.equal(mine, theirs)
    assert network.encoder.head.weight.shape[1] * 2 == network.teacher.head.weight.shape[1]
    assert torch.equal(network.encoder.body(features), network.teacher.body(features))
    assert LatentEncoder(2, 32)(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)).shape == (1, 128)


def test_sizes_and_ablations_are_models_of_their_own() -> None:
    spec = Sft.behind(FIRST, SftParams(sft="paper", sft_ablation="no-prior"))
    assert spec == RefinerSpec("sft", "paper-no-prior", FIRST)
    model = model_of(spec)
    assert model.command.startswith("linksim train --refiner sft:sft=paper,sft_ablation=no-prior --scheme ngf")
    assert model_of(Sft.behind(FIRST)).name == "sft_ngf_awgn_1-6_n1_none_sum_32px_paper"
    network = Sft.network(replace(spec, part="no-prior"))
    assert not network.prior
    assert network.latent_size == 128


def test_two_parts_of_training_and_gsc_in_the_harness(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = ("--scheme", "ngf", "--users", "1")
    assert train(folder, "--refiner", "sft", *first, "--steps", "1") == 2
    assert "no weights ngf_awgn_1-6_n1_none" in capsys.readouterr().err
    assert train(folder, *first, "--steps", "2") == 0
    assert train(folder, "--refiner", "sft", *first, "--steps", "10") == 0
    assert train(folder, "--refiner", "sft:sft_ablation=no-prior", *first, "--steps", "2") == 0
    rows = np.genfromtxt(folder / "runs" / Sft.behind(FIRST).name / "train.csv", delimiter=",", names=True)
    # Four steps on images with the original at hand, one or two of the latent alone, then both.
    assert rows["step"][-1] == 10
    assert rows["mae"][0] > 0
    assert rows["latent"][0] == 0
    assert rows["mae"][4] == 0 < rows["latent"][4]
    assert min(rows["mae"][-1], rows["latent"][-1]) > 0
    card = weights.cards()[Sft.behind(FIRST).name]
    assert {"z_spread", "own_z_db"} < set(card["validation"])
    assert main(["verify", card["files"] and Sft.behind(FIRST).name]) == 0
    table = linksim.sweep(
        folder / "x", scheme="gsc,ngf,gsc:sft_ablation=no-prior,ngf+sft", users=1, rho="1/6", snr="10", groups=4,
        metrics="psnr", progress=False,
    )  # fmt: skip
    assert list(table["stage"]) == ["first", "sft", "first", "first", "sft", "first", "sft"]
    by = table.set_index(["variant", "stage"])["psnr_db"]
    assert by["gsc", "sft"] == by["ngf+sft", "sft"] != by["gsc", "first"]
    many = linksim.sweep(
        folder / "y", scheme="mu-gsc:detector=zf", users=3, antennas=3, power="per-ue", rho="1/6", snr="10", groups=4,
        metrics="psnr", progress=False,
    )  # fmt: skip
    assert list(many["stage"]) == ["first", "sft"]


def test_what_cannot_be_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, hint in [
        ("sft:sft=huge", "sft: Input should be 'compact' or 'paper'"),
        ("sft:size=paper", "unknown parameter of sft 'size'"),
        ("stf", "did you mean 'sft'"),
    ]:
        assert train(folder, "--refiner", text, "--scheme", "ngf", "--steps", "1") == 2
        assert hint in capsys.readouterr().err
    with pytest.raises(LinksimError, match="multiples of 16"):
        Sft.check_images(Sft.behind(FIRST), (3, 40, 40))
    assert SftRecipe.presets()["paper"].learning_rate == 2e-4
    assert os.environ["LINKSIM_WEIGHTS"] == str(folder / "weights")
