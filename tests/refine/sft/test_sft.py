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

#: No such weights are shipped.
FIRST = ModelSpec("ngf", "paper", "awgn", Fraction(1, 24), users=1, csi="none")


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


def test_at_the_start_z_tells_images_apart_and_hardly_changes_what_n2_does() -> None:
    """PyTorch's own start makes Z the same small number for all images, and N2's branches next to nothing."""
    network = SftNetwork("compact")
    with torch.no_grad():
        z = network.teacher(torch.rand(64, 3, 32, 32), torch.rand(64, 3, 32, 32))
        kernel = next(part.kernel for part in network.restorer.modules() if hasattr(part, "kernel"))
        scale, shift = kernel(z).chunk(2, dim=1)
    assert 0.5 < float(z.mean()) < 2
    assert float(z.std(0).mean()) > 0.02
    assert float((scale - z.mean()).abs().mean()) < 0.5
    assert float(shift.abs().mean()) < 0.5


def test_sizes_and_ablations_are_models_of_their_own() -> None:
    spec = Sft.behind(FIRST, SftParams(sft="paper", sft_ablation="no-prior"))
    assert spec == RefinerSpec("sft", "paper-no-prior", FIRST)
    model = model_of(spec)
    assert model.command.startswith("linksim train --refiner sft:sft=paper,sft_ablation=no-prior --scheme ngf")
    assert model_of(Sft.behind(FIRST)).name == "sft_ngf_awgn_1-24_n1_none_sum_32px_paper"
    network = Sft.network(replace(spec, part="no-prior"))
    assert not network.prior
    assert network.latent_size == 128


def test_two_parts_of_training_and_gsc_in_the_harness(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = ("--scheme", "ngf", "--users", "1", "--rho", "1/24")
    assert train(folder, "--refiner", "sft", *first, "--steps", "1") == 2
    assert "no weights ngf_awgn_1-24_n1_none" in capsys.readouterr().err
    assert train(folder, *first, "--steps", "2") == 0
    assert train(folder, "--refiner", "sft", *first, "--steps", "10") == 0
    assert train(folder, "--refiner", "sft:sft_ablation=no-prior", *first, "--steps", "2") == 0
    rows = np.genfromtxt(folder / "runs" / Sft.behind(FIRST).name / "train.csv", delimiter=",", names=True)
    # Three steps on images with the original at hand, one of the latent alone, then both.
    assert rows["step"][-1] == 10
    images, latent = rows["logmse"], rows["latent"]
    assert images[0] != 0 == latent[0]
    assert images[2] != 0 == latent[2]
    assert images[3] == 0 < latent[3]
    assert images[4] != 0 < latent[4]
    assert images[-1] != 0 < latent[-1]
    card = weights.cards()[Sft.behind(FIRST).name]
    assert {"z_spread", "own_z_db", "taught_z_db"} < set(card["validation"])
    assert main(["verify", card["files"] and Sft.behind(FIRST).name]) == 0
    table = linksim.sweep(
        folder / "x", scheme="gsc,ngf,gsc:sft_ablation=no-prior,ngf+sft", users=1, rho="1/24", snr="10", groups=4,
        metrics="psnr", progress=False,
    )  # fmt: skip
    assert list(table["stage"]) == ["first", "sft", "first", "first", "sft", "first", "sft"]
    by = table.set_index(["variant", "stage"])["psnr_db"]
    assert by["gsc", "sft"] == by["ngf+sft", "sft"] != by["gsc", "first"]
    many = linksim.sweep(
        folder / "y", scheme="mu-gsc:detector=zf", users=3, antennas=3, power="per-ue", rho="1/24", snr="10", groups=4,
        metrics="psnr", progress=False,
    )  # fmt: skip
    assert list(many["stage"]) == ["first", "sft"]


def test_a_joint_training_brings_its_own_transceiver(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = ("--scheme", "ngf", "--users", "1", "--rho", "1/24")
    assert train(folder, *first, "--steps", "2") == 0
    assert train(folder, "--refiner", "sft", *first, "--steps", "10") == 0
    apart = Sft.behind(FIRST)
    assert train(folder, "--refiner", "sft", *first, "--set", "joint=true", "--warm", apart.name, "--steps", "4") == 0
    joint = replace(apart, part="joint")
    card = weights.cards()[joint.name]
    assert "--refiner sft:joint=true" in card["command"]
    rows = np.genfromtxt(folder / "runs" / joint.name / "train.csv", delimiter=",", names=True)
    assert (rows["first"] != 0).all()
    network = weights.load(model_of(joint))
    alone = weights.load(model_of(FIRST))
    moved = [not torch.equal(value, alone.state_dict()[name]) for name, value in network.first.state_dict().items()]
    assert any(moved)
    assert main(["verify", joint.name]) == 0
    table = linksim.sweep(
        folder / "x", scheme="gsc,gsc:joint=true", users=1, rho="1/24", snr="10", groups=4, metrics="psnr",
        progress=False,
    )  # fmt: skip
    by = table.set_index(["variant", "stage"])
    assert by.psnr_db["gsc", "first"] != by.psnr_db["gsc:joint=true", "first"]
    assert by.trained_pairs["gsc:joint=true", "first"] > by.trained_pairs["gsc", "first"]


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
    paper = SftRecipe.presets()["paper"]
    assert (paper.learning_rate, paper.loss) == (2e-4, "mae")
    assert os.environ["LINKSIM_WEIGHTS"] == str(folder / "weights")
