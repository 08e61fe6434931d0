"""Priors and refiners are trained by the same command, with the same cards, and run in the harness."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

import linksim
from linksim import LinksimError
from linksim.cli import main
from linksim.data.training import training_set_of
from linksim.engine.config import make_config
from linksim.models import weights
from linksim.models.owner import Model
from linksim.models.recipe import make_recipe
from linksim.models.spec import CIFAR10_SHAPE, ModelSpec, PriorSpec, RefinerSpec, Spec, spec_from_json
from linksim.refine.cgan.network import Discriminator, Generator
from linksim.refine.cgan.recipe import CganRecipe
from linksim.refine.cgan.refiner import Cgan
from linksim.refine.cgan.training import CganTask, Pair
from linksim.refine.ddim.model import OwnPrior, prior
from linksim.refine.ddim.recipe import PriorRecipe
from linksim.refine.ddim.training import PriorTask, min_snr
from linksim.refine.diffbir.mini import DiffBirMini
from linksim.refine.diffbir.network import MiniDenoiser
from linksim.refine.diffbir.recipe import LatentRecipe
from linksim.refine.diffbir.training import ControlTask
from linksim.refine.diffusion import OWN_SCHEDULE, make_scheduler
from linksim.schemes.learned import transceiver
from linksim.schemes.semnoma.recipe import Recipe
from linksim.train.models import model_of, models_for, priors, waves
from tests.models.build import build
from tests.train.test_command import BASE, folder, train

__all__ = ["folder"]

FIRST = replace(BASE, method="semnoma")
CGAN = RefinerSpec("cgan", first=FIRST)
CONTROL = RefinerSpec("diffbir-mini", "control", FIRST)


def count(module: torch.nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


def test_the_sizes_are_those_on_the_card() -> None:
    assert count(prior("small").build()) == 4_299_139
    assert count(prior("large").build()) <= 35e6
    assert count(Generator(32)) == count(Cgan.network(RefinerSpec("cgan", first=BASE)))


@pytest.mark.parametrize("spec", [PriorSpec("large"), CGAN, RefinerSpec("diffbir-mini", "vae"), CONTROL, FIRST])
def test_a_card_gives_its_spec_back(spec: Spec) -> None:
    assert spec_from_json(spec.to_json()) == spec
    assert model_of(spec).command.startswith("linksim train ")


def test_every_kind_is_trained_and_its_card_verifies_and_the_harness_runs_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ("--scheme", "semnoma", "--rho", "1/24")
    lpips = ("--set", "lpips=alex")
    assert train(folder, "--refiner", "cgan", *first, *lpips, "--steps", "1") == 2
    assert "no weights semnoma_awgn_1-24" in capsys.readouterr().err
    assert train(folder, *first, "--steps", "1", "--warm", "none") == 0
    assert train(folder, "--refiner", "cgan", *first, *lpips, "--steps", "2") == 0
    assert train(folder, "--prior", "--steps", "2", "--set", "early_steps=100", "--replace") == 0
    assert train(folder, "--prior", "diffbir-mini-vae", "--steps", "1", "--replace") == 0
    assert train(folder, "--prior", "diffbir-mini-denoiser", "--steps", "1", "--replace") == 0
    assert train(folder, "--refiner", "diffbir-mini", *first, "--steps", "1") == 0
    own = {name: card for name, card in weights.cards().items() if card["folder"] == str(folder / "weights")}
    kinds = [card["model"].get("kind", "transceiver") for card in own.values()]
    assert sorted(kinds) == ["cgan", "diffbir-mini", "diffbir-mini", "diffbir-mini", "prior", "transceiver"]
    prior = own["prior_cifar10_32px_small"]
    assert prior["recipe"] == "fast batch=2 early_steps=100"
    assert set(prior["validation"]) == {f"denoised_psnr_t{t}_db" for t in (50, 100, 200)}
    generator = own[CGAN.name]
    assert generator["score"] < 0
    assert generator["parts"] == {"first": list(own[FIRST.name]["files"].values())}
    capsys.readouterr()
    # What the package ships behind its own autoencoder does not go with this one, and says so.
    shipped = next(name for name in weights.cards() if name.startswith("diffbir-mini_control") and name not in own)
    assert main(["verify", *own, shipped]) == 2
    verified = capsys.readouterr().out
    assert all(f"ok   {name}: " in verified for name in own)
    assert f"BAD  {shipped}: " in verified
    assert main(["list", "weights"]) == 0
    listed = capsys.readouterr().out
    assert re.search(rf"  4 images  .*{re.escape(str(folder / 'weights'))}", listed), listed
    table = linksim.sweep(
        folder / "sweep", scheme="semnoma+ddim:start=8,semnoma+cgan,semnoma+diffbir-mini:steps=2", rho="1/24",
        snr="10", groups=2, metrics="psnr", progress=False,
    )  # fmt: skip
    assert list(table["stage"]) == ["first", "ddim", "first", "cgan", "first", "diffbir-mini"]
    assert table["refine_steps"].dropna().tolist() == [2, 1, 2]
    with pytest.raises(LinksimError, match=r"no T' was validated .*linksim tune --scheme semnoma\+ddim"):
        linksim.sweep(folder / "other", scheme="semnoma+ddim", rho="1/24", snr="10", groups=2, progress=False)
    # Behind other weights of its first stage a generator is refused, and one to start from.
    assert train(folder, *first, "--steps", "2", "--warm", "none", "--out", str(folder / "again"), "--replace") == 0
    with pytest.raises(LinksimError, match="was trained with other weights of semnoma_awgn_1-24"):
        linksim.sweep(folder / "behind", scheme="semnoma+cgan", rho="1/24", snr="10", groups=2, progress=False)
    again = ("--steps", "1", "--warm", CGAN.name, "--out", str(folder / "cgan"))
    assert train(folder, "--refiner", "cgan", *first, *lpips, *again) == 0
    capsys.readouterr()
    assert main(["card", CGAN.name]) == 0
    assert f"from weights of {CGAN.name} that are no longer there" in capsys.readouterr().out
    linksim.sweep(folder / "behind", scheme="semnoma+cgan", rho="1/24", snr="10", groups=2, progress=False)


@pytest.mark.whole
def test_what_cannot_be_trained_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, hint in [
        (("--prior", "smal"), "did you mean 'small'"),
        (("--prior", "--rho", "1/6"), "--rho is nothing to a prior"),
        (("--refiner", "cgan", "--prior"), "give one of --scheme NAME, --refiner NAME, --prior and --for FILE"),
        (("--refiner", "cgan"), "cgan is trained behind one scheme: name it: --scheme kd"),
        (("--refiner", "cgan", "--rho", "1/6"), "cgan is trained behind one scheme: name it: --scheme kd"),
        (("--refiner", "flow", "--rho", "1/6"), "--rho is nothing to flow, which is trained behind all schemes"),
        (("--refiner", "flow", "--scheme", "kd"), "--scheme is nothing to flow, which is trained behind all schemes"),
        (("--refiner", "ddim", "--scheme", "kd"), "unknown refiner to train 'ddim'"),
        (("--prior", "--set", "loss=mse"), "unknown recipe value"),
        (("--refiner", "cgan", "--scheme", "kd", "--steps", "1"), "vgg16 is not installed"),
        (
            ("--refiner", "cgan", "--scheme", "kd", "--rho", "1/24", "--steps", "1"),
            "train them: linksim train",
        ),
        (("--prior", "--steps", "1", "--warm", "nothing"), "unknown model 'nothing'"),
    ]:
        assert train(folder, *words) == 2
        assert hint in capsys.readouterr().err


def test_a_sweep_knows_the_refiners_that_it_needs_after_their_first_stages() -> None:
    config = make_config(
        {"scheme": "kdd,kd+cgan,semnoma+diffbir-mini", "dataset": "cifar10", "rho": "1/24", "channel": "rayleigh"}
    )
    names = [spec.name for spec in models_for(config, CIFAR10_SHAPE)]
    assert [name.partition("_")[0] for name in names] == [
        "semnoma", "kd", "cgan", "diffbir-mini", "prior", "diffbir-mini", "diffbir-mini"
    ]  # fmt: skip
    parts, control, first = DiffBirMini.priors(), Model(CONTROL, DiffBirMini), transceiver(FIRST)
    order = [model for wave in waves([control, *parts.values(), first]) for model in wave]
    assert order == [first, *parts.values(), control]
    assert list(priors()) == ["small", "large", "diffbir-mini-vae", "diffbir-mini-denoiser"]


def images(number: int = 24) -> "torch.Tensor":
    torch.manual_seed(0)
    return torch.randint(0, 256, (number, 3, 32, 32), dtype=torch.uint8)


def test_each_loss_of_the_gan_reaches_its_own_network_alone() -> None:
    recipe = CganRecipe(batch=2, lpips="alex", weights=(0.0, 0.0, 1.0))
    torch.manual_seed(0)
    task = CganTask(Cgan, CGAN, recipe, training_set_of(images().numpy(), 8), frozen={"first": build(FIRST).eval()})
    pair = task.network()
    assert isinstance(pair, Pair)
    for value in pair.generator.tail.parameters():
        torch.nn.init.normal_(value, 0, 0.1)
    generator, discriminator = list(pair.generator.parameters()), list(pair.discriminator.parameters())

    def gradients(name: str) -> tuple[bool, bool]:
        pair.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            losses = task.losses(pair)
        losses[name].backward()
        return tuple(  # type: ignore[return-value]
            any(value.grad is not None and bool(value.grad.abs().sum() > 0) for value in values)
            for values in (generator, discriminator)
        )

    assert gradients("mae") == gradients("lpips") == gradients("adversarial") == (True, False)
    assert gradients("discriminator") == (False, True)
    with torch.autocast("cpu", torch.bfloat16):
        losses = task.losses(pair)
    torch.testing.assert_close(losses["total"], losses["adversarial"] + losses["discriminator"] / 2)


def test_the_generator_begins_by_changing_nothing_and_the_discriminator_sees_patches() -> None:
    shown = torch.rand(2, 3, 32, 32)
    assert torch.equal(Generator()(shown), shown)
    assert Discriminator()(shown, shown).shape == (2, 1, 2, 2)
    assert Generator()(torch.rand(1, 3, 256, 256)).shape == (1, 3, 256, 256)


@pytest.mark.usefixtures("small_networks")
def test_a_prior_learns_to_tell_the_noise() -> None:
    from linksim.refine.ddim.training import denoising_psnr
    from linksim.train.loop import train as run

    pool = (127 + 100 * torch.sin(torch.arange(24 * 3072).view(24, 3, 32, 32) / 40)).byte().numpy()
    recipe = PriorRecipe(batch=8, learning_rate=2e-3)
    task = PriorTask(PriorSpec("small"), OwnPrior.network, recipe, training_set_of(pool, 8))
    torch.manual_seed(0)
    before = denoising_psnr(prior("small").build().eval(), pool[-8:], "cpu")
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        state = run(task, Path(place), steps=25)
    assert all(state.validation[f"denoised_psnr_t{t}_db"] > value + 1 for t, value in before.items())


def test_min_snr_makes_less_of_early_steps_and_nothing_of_late_ones() -> None:
    pool = training_set_of(images().numpy(), 8)
    tasks = [
        PriorTask(PriorSpec("small"), OwnPrior.network, PriorRecipe(batch=8, early_share=share, early_steps=20,
                  weighting=weighting), pool)
        for share, weighting in ((1.0, "none"), (1.0, "min-snr"))
    ]  # fmt: skip
    network = tasks[0].network()
    found = []
    for task in tasks:
        torch.manual_seed(1)
        found.append(task.losses(network))
    plain, weighted = found
    assert plain["mse"].item() == plain["total"].item() == pytest.approx(weighted["mse"].item())
    # Step 20 of the cosine schedule has an SNR of some 500, step 0 one of more.
    assert 0 < weighted["total"].item() < 0.02 * weighted["mse"].item()
    weights = min_snr(make_scheduler(OWN_SCHEDULE).alphas_cumprod)
    assert weights.diff().min() >= 0
    assert weights[-300:].eq(1).all()


def test_ir_control_net_begins_without_a_say() -> None:
    from linksim.refine.diffbir.network import MiniVae, denoise

    torch.manual_seed(0)
    parts = {"vae": MiniVae(), "denoiser": MiniDenoiser(), "first": build(FIRST)}
    pool = training_set_of(images().numpy(), 8)
    task = ControlTask(DiffBirMini, CONTROL, LatentRecipe(batch=2), pool, 0, "cpu", None, parts)
    control, denoiser = task.network(), parts["denoiser"]
    assert isinstance(denoiser, MiniDenoiser)
    noisy, hint, times = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16), torch.tensor([3, 700])
    prompt = denoiser.prompt.expand(2, -1, -1)
    with torch.no_grad():
        alone = denoise(denoiser.unet, None, noisy, times, prompt)
        torch.testing.assert_close(denoise(denoiser.unet, control, noisy, times, prompt, hint), alone)  # type: ignore[arg-type]
        here = control.conv_in(torch.cat([noisy, hint], 1))  # type: ignore[operator]
        torch.testing.assert_close(here, denoiser.unet.conv_in(noisy))
    with torch.autocast("cpu", torch.bfloat16):
        losses = task.losses(control)
    losses["total"].backward()
    assert all(value.grad is None for value in denoiser.parameters())


def test_refiners_have_the_papers_recipe_too() -> None:
    for kind in (Recipe, PriorRecipe, CganRecipe, LatentRecipe):
        recipe = make_recipe("paper", {"ema": "0.9"}, kind)
        assert (recipe.learning_rate, recipe.schedule, recipe.words) == (1e-4, "constant", "paper ema=0.9")
    assert CganRecipe().weights == (1.0, 0.1, 1e-4)


def test_models_of_one_kind_alone_are_starts(folder: Path) -> None:
    assert isinstance(spec_from_json({**BASE.to_json()}), ModelSpec)
    with pytest.raises(ValueError, match="is one of its parts, or stands behind one first stage or many"):
        spec_from_json({"kind": "unknown"})
    # What a plug-in trained stays in the list of cards where the plug-in has gone, and says so when it is asked for.
    with pytest.raises(LinksimError, match="of the refiner 'gone', which is not there"):
        model_of(spec_from_json({"kind": "gone", "part": "all"}))


@pytest.mark.whole
def test_a_tuned_start_is_kept_where_none_was_known_or_when_told_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tune", "--channel", "awgn", "--snr", "0,10", "--starts", "4,8", "--groups", "2", "--workers", "1",
             "--metrics", "lpips-alex", "--data-dir", str(folder / "data")]  # fmt: skip
    tried = [*words, "--scheme", "kd+ddim", "--out", str(folder / "tuned")]
    assert main(tried) == 0
    said = capsys.readouterr().out
    assert "not kept: a T' is known for it" in said
    own = folder / "weights" / "starts.json"
    assert not own.exists()
    assert main([*tried, "--replace"]) == 0
    assert f"kept in {own}" in capsys.readouterr().out
    table = pd.read_csv(folder / "tuned" / "table.csv")
    table = table[table["snr_db"] == 0]
    means = table.groupby(table["start"].where(table["stage"] == "ddim", 0))["lpips_alex"].first()
    row = linksim.sweep(folder / "x", scheme="kdd", snr="0", groups=2, metrics="psnr", progress=False).iloc[-1]
    assert row["refine_start"] == int(means.idxmin())
    for scheme, hint in [
        ("kd+ddim,semnoma+ddim", "one scheme at a time"),
        ("kd+ddim:start=8", "leave start out"),
        ("kd+cgan", "one with a diffusion behind it"),
    ]:
        assert main([*words, "--scheme", scheme, "--out", str(folder / "no")]) == 2
        assert hint in capsys.readouterr().err
