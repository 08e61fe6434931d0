"""`flow`: straight lines from a first stage's images, in units of how far off they are."""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import linksim
from linksim import LinksimError
from linksim.cli import main
from linksim.data import cifar10
from linksim.data.datasets import embedded_images
from linksim.data.training import training_set_of
from linksim.link.config import LinkConfig, Setting
from linksim.metrics import LpipsAlex
from linksim.models import weights
from linksim.models.spec import RefinerSpec, spec_from_json
from linksim.refine.flow.network import Critic, FlowNetwork, flow, strengths_of
from linksim.refine.flow.recipe import STEPS, FlowRecipe
from linksim.refine.flow.refiner import Flow, FlowParams
from linksim.refine.flow.training import Contest, FlowTask, _judged
from linksim.train import loop
from linksim.train.models import behind_all, model_of


class Told(FlowNetwork):
    """Tells what a test says, and believes that every image is off by 0.1."""

    def __init__(self, velocity: Callable[[Tensor, float], Tensor]) -> None:
        super().__init__()
        self.velocity = velocity

    def level(self, shown: Tensor) -> Tensor:
        return torch.full((len(shown),), math.log(0.1))

    def forward(self, x: Tensor, shown: Tensor, time: Tensor, level: Tensor) -> Tensor:
        return self.velocity(x, float(time[0]))


def test_the_right_straight_line_ends_at_the_image_whatever_the_steps() -> None:
    sent, shown, noise = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    line = (sent - (shown + 0.5 * 0.1 * noise)) / 0.1
    for steps in (1, 3, 10):
        told: list[tuple[int, int]] = []
        ended = flow(Told(lambda x, time: line), shown, noise, steps, 0.5, lambda *at, told=told: told.append(at))
        torch.testing.assert_close(ended, sent)
        assert told == [(done + 1, steps) for done in range(steps)]


def test_euler_steps_are_those_of_the_equation() -> None:
    """dx/dt = -0.1 x, in units of 0.1: K steps give (1 - 0.1 / K)^K."""
    shown = torch.ones(1, 3, 8, 8)
    for steps in (1, 4):
        ended = flow(Told(lambda x, time: -x), shown, torch.zeros_like(shown), steps, 0.0)
        torch.testing.assert_close(ended, torch.full_like(shown, (1 - 0.1 / steps) ** steps))


def test_a_fresh_network_moves_nothing_and_takes_any_size_of_its_strides() -> None:
    network = FlowNetwork().eval()
    for height, width in ((32, 32), (36, 64)):
        shown = torch.rand(2, 3, height, width)
        with torch.inference_mode():
            assert torch.equal(flow(network, shown, torch.randn_like(shown), 2, 0.0), shown)
            assert (network.level(shown).exp() > 1e-3).all()
    with pytest.raises(LinksimError, match="multiples of 4"):
        Flow.apart((3, 30, 32)).check_images((3, 30, 32))


def test_its_model_is_of_images_and_stands_behind_all_that_have_weights() -> None:
    model = behind_all("flow", (3, 64, 64))
    assert model.name == "flow_64px"
    assert model.spec.image_shape == (3, 64, 64)
    assert spec_from_json(model.spec.to_json()) == model.spec
    assert model_of(RefinerSpec("flow", images=(3, 32, 32))) == Flow.apart()
    first_stages = Flow.apart().parts
    assert {"kd_awgn_1-6_n2_own_sum_32px_compact", "deepjscc-noma_rayleigh_1-3_n2_snr_sum_32px_compact"} <= set(
        first_stages
    )
    assert not any(name.endswith(("scratch", "fa", "crosskd")) for name in first_stages)
    with pytest.raises(LinksimError, match="unknown refiner to train without --scheme 'flo': did you mean 'flow'"):
        behind_all("flo")


@pytest.fixture
def few_first_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two first stages in place of all."""
    real = Flow.parts.__func__  # type: ignore[attr-defined]

    def two(cls: type[Flow], spec: RefinerSpec) -> object:
        return {name: model for name, model in real(cls, spec).items() if name.startswith("semoma_awgn_1-1")}

    monkeypatch.setattr(Flow, "parts", classmethod(two))


@pytest.mark.usefixtures("few_first_stages")
def test_it_is_trained_and_refines_behind_learned_schemes_and_the_digital_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(cifar10, "VALIDATION", 8)
    model = Flow.apart()
    images = training_set_of(embedded_images(64, (3, 32, 32)), 8)
    task = model.task(FlowRecipe(batch=2, lpips="alex"), images, 0, "cpu", None)
    state = loop.train(task, tmp_path / "run", steps=3)
    assert set(state.validation) == {f"{what}_{snr}db" for what in ("fit", "lpips", "psnr") for snr in (0, 10, 20)}
    network = model.build()
    facts = {"settings": task.settings(), "recipe": task.recipe.words, "steps": 3, "pairs": 6, "lineage": [],
             "seconds": 1, "parts": weights.part_hashes(model), "score": state.best, "validation": state.validation,
             "seed": 0, "golden_psnr_db": round(model.golden_psnr(network), 4), "device": "cpu", "code": "",
             "data": "", "command": ""}  # fmt: skip
    with torch.no_grad():
        network.tail[2].bias.fill_(0.3)
    weights.install(model, network, facts)
    words = {"snr": "10", "groups": 4, "workers": 1, "progress": False, "metrics": "psnr"}
    with pytest.raises(LinksimError, match="its card knows no strengths: give strength=1"):
        linksim.sweep(tmp_path / "x", scheme="semoma+flow", **words)  # type: ignore[arg-type]
    # At this error and more all of the way, at half of it and less none.
    weights.install(model, network, facts | {"strengths": [[0.05, 0.0], [0.1, 1.0]]})
    table = linksim.sweep(
        tmp_path / "x",
        scheme=["semoma+flow:steps=2,strength=1", "bpg-ldpc-qam-sic+flow:strength=0"],
        **words,  # type: ignore[arg-type]
    )
    by_stage = table.set_index(["scheme", "stage"])
    assert by_stage.loc[("semoma+flow", "flow"), "psnr_db"] != by_stage.loc[("semoma+flow", "first"), "psnr_db"]
    assert by_stage.loc[("semoma+flow", "flow"), "refine_steps"] == 2
    # No strength leaves the first stage's images as they are.
    digital = by_stage.loc["bpg-ldpc-qam-sic+flow"]
    assert digital.loc["flow", "psnr_db"] == digital.loc["first", "psnr_db"]
    assert digital.loc["flow", "refine_steps"] == 0


@pytest.mark.usefixtures("few_first_stages")
def test_it_goes_on_behind_first_stages_that_were_trained_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LINKSIM_WEIGHTS", str(tmp_path / "weights"))
    first = next(iter(Flow.apart().parts.values()))
    card = weights.cards()[first.name]
    facts = {key: value for key, value in card.items() if key not in ("files", "folder", "model")}
    torch.manual_seed(1)
    weights.install(first, first.build(), facts)
    table = linksim.sweep(
        tmp_path / "x", scheme="semoma+flow", rho="1/6", snr="10", groups=2, workers=1, progress=False,
        metrics="psnr",
    )  # fmt: skip
    assert list(table["stage"]) == ["first", "flow"]
    assert main(["verify", "flow_32px"]) == 0
    assert main(["list", "weights"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("flow_32px"))
    assert first.name in line
    assert "that are no longer there" in line
    assert main(["card", "flow_32px"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("strengths"))
    error, share = weights.cards()["flow_32px"]["strengths"][0]
    assert f" {share:g} at {10 * math.log10(1 / error**2):.1f} dB," in line


def test_each_image_goes_as_far_as_its_own_error_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Knows(FlowNetwork):
        """Knows how far off an image is by its colour, and turns every image white."""

        def level(self, shown: Tensor) -> Tensor:
            return shown.mean((1, 2, 3)).log()

        def forward(self, x: Tensor, shown: Tensor, time: Tensor, level: Tensor) -> Tensor:
            return (1 - shown) / level.exp()[:, None, None, None]

    card = {"files": {}, "settings": {"noise_level": 0.0}, "strengths": [[0.1, 0.0], [0.4, 1.0]]}
    monkeypatch.setattr("linksim.refine.flow.refiner.weights.card", lambda model: card)
    monkeypatch.setattr(Flow, "_network", Knows())
    setting = Setting(LinkConfig("awgn", 2), (3, 32, 32), Fraction(1, 6))
    shown = torch.tensor([0.05, 0.1, 0.2, 0.4, 0.8])[:, None, None, None].expand(5, 3, 32, 32)
    draws = [np.random.default_rng(0)] * 5
    for text, shares in (("auto", [0.0, 0.0, 0.5, 1.0, 1.0]), (0.25, [0.25] * 5)):
        refiner = Flow(setting, FlowParams(strength=text), None)  # type: ignore[arg-type]
        refined = refiner.refine(shown, 10.0, draws, lambda done, steps: None)
        way = (refined - shown)[:, 0, 0, 0] / (1 - shown)[:, 0, 0, 0]
        np.testing.assert_allclose(way, shares, atol=1e-5)
    assert refiner.provenance() == {"weights": ""}
    assert Flow(setting, FlowParams(), None).provenance()["strengths"] == "0.1:0/0.4:1"  # type: ignore[arg-type]
    # What is received 10 dB better is off by half, if the card says so, and is taken so.
    card["told"] = [math.log(0.2), 0.0, math.log(0.5) / 10]
    told = Flow(setting, FlowParams(), None)  # type: ignore[arg-type]
    refined = told.refine_each(shown, 10.0, [-10.0, -5.0, 0.0, 5.0, 10.0], draws, lambda done, steps: None)
    way = (refined - shown)[:, 0, 0, 0] / (1 - shown)[:, 0, 0, 0]
    np.testing.assert_allclose(way, [1.0, 0.75, 0.5, 0.25, 0.0], atol=1e-5)
    assert told.provenance()["told"] == "-1.6094379124341003/0.0/-0.06931471805599453"


def test_of_a_level_the_better_images_go_no_further_than_raises_no_distance() -> None:
    """The worse half gains by what the better half loses by: together they would go to the end."""
    levels = torch.linspace(math.log(0.01), math.log(0.02), 240)
    better = torch.tensor([1.0, 0.9, 1.1]).expand(120, 3)
    worse = torch.tensor([1.0, 0.8, 0.6]).expand(120, 3)
    sent = torch.randn(240, 4, generator=torch.Generator().manual_seed(0))
    gone = sent[:, None] + torch.tensor([0.9, 0.5, 0.1])[:, None]
    found = strengths_of(levels, torch.cat([better, worse]), sent, gone, (0.0, 0.5, 1.0))
    assert [share for _, share in found] == [0.5, 1.0]
    assert 0.01 < found[0][0] < found[1][0] < 0.02


@pytest.mark.usefixtures("few_first_stages")
def test_strengths_are_those_whose_images_are_most_like_real_ones() -> None:
    """Lines that end at what was sent are gone to the end and no further, those that end halfway twice as far.

    Those that lead away are not gone at all.
    """
    images = training_set_of(embedded_images(128, (3, 32, 32)), 96)
    task = Flow.apart().task(FlowRecipe(noise_level=0.0, lpips="alex"), images, 0, "cpu", None)
    assert isinstance(task, FlowTask)
    pairs = [pair for snr_db in (-5.0, 0.0, 5.0, 10.0, 15.0, 20.0) for pair in task.shown_at(snr_db, apart=True)]
    for part, wanted in ((1.0, 1.0), (0.5, 2.0), (-1.0, 0.0)):
        left = iter([part * (sent - shown) / 0.1 for sent, shown, _ in pairs for _ in range(STEPS)])
        measured = task.measured(Told(lambda x, time, left=left: next(left)), 0)  # type: ignore[misc]
        assert {share for _, share in measured["strengths"]} == {wanted}


@pytest.mark.usefixtures("few_first_stages")
def test_each_first_stage_shows_other_images_where_they_are_asked_for() -> None:
    images = training_set_of(embedded_images(64, (3, 32, 32)), 24)
    task = Flow.apart().task(FlowRecipe(lpips="alex"), images, 0, "cpu", None)
    assert isinstance(task, FlowTask)
    task._firsts *= 2
    alike, others = ([sent for sent, *_ in task.shown_at(10.0, apart)] for apart in (False, True))
    assert torch.equal(alike[0], alike[1])
    assert torch.equal(alike[0], others[0])
    assert not torch.equal(others[0], others[1])


@pytest.mark.usefixtures("few_first_stages")
def test_the_loss_is_least_for_the_mean_of_the_lines() -> None:
    """Behind a stage without error but for a constant, the line is that constant and the noise."""
    images = training_set_of(np.zeros((24, 3, 32, 32), np.uint8), 8)
    task = Flow.apart().task(FlowRecipe(noise_level=0.0, lpips="alex"), images, 0, "cpu", None)
    sent = torch.rand(4, 3, 32, 32)
    shown = (sent + 0.1).clamp(0, 1)
    right = Told(lambda x, time: (sent - shown) / 0.1)
    losses = task._losses(right, sent, shown)  # type: ignore[attr-defined]
    assert float(losses["velocity"]) == pytest.approx(0, abs=1e-8)
    assert float(losses["level"]) < 0.1
    assert float(losses["lpips"]) == pytest.approx(0, abs=1e-6)


@pytest.mark.usefixtures("few_first_stages")
def test_lpips_is_of_where_the_velocity_points_to() -> None:
    """From anywhere on the way a velocity off by a constant points past what was sent, by what is left of it."""
    images = training_set_of(np.zeros((24, 3, 32, 32), np.uint8), 8)
    sent = torch.rand(4, 3, 32, 32)
    shown = (sent + 0.1).clamp(0, 1)
    found = {}
    for weight in (0.0, 2.0):
        recipe = FlowRecipe(perceptual=weight, adversarial=0, lpips="alex", noise_level=0.0)
        task = Flow.apart().task(recipe, images, 0, "cpu", None)
        wrong = Told(lambda x, time: (sent - shown) / 0.1 + 1)
        torch.manual_seed(0)
        found[weight] = task._losses(wrong, sent, shown)  # type: ignore[attr-defined]
    torch.manual_seed(0)
    torch.randn(shown.shape)
    ends = sent + 0.1 * (1 - (2 * torch.rand(4) - 1).clamp_min(0))[:, None, None, None]
    assert float(found[2.0]["lpips"]) == pytest.approx(float(LpipsAlex().loss(sent, ends)[:2].mean()), rel=1e-4)
    assert float(found[2.0]["total"]) == pytest.approx(float(found[0.0]["total"] + 2 * found[2.0]["lpips"]), rel=1e-5)
    assert "lpips" not in found[0.0]


@pytest.mark.usefixtures("few_first_stages")
def test_each_loss_of_the_contest_reaches_its_own_network_alone() -> None:
    images = training_set_of(embedded_images(24, (3, 32, 32)), 8)
    task = Flow.apart().task(FlowRecipe(batch=2, perceptual=0, adversarial=3.0, lpips="alex"), images, 0, "cpu", None)
    contest = task.network()
    assert isinstance(contest, Contest)
    for value in contest.flow.tail[2].parameters():
        torch.nn.init.normal_(value, 0, 0.1)

    def gradients(name: str) -> tuple[bool, bool]:
        contest.zero_grad(set_to_none=True)
        task.losses(contest)[name].backward()
        return tuple(  # type: ignore[return-value]
            any(value.grad is not None and bool(value.grad.abs().sum() > 0) for value in part.parameters())
            for part in (contest.flow, contest.critic)
        )

    assert gradients("velocity") == gradients("adversarial") == (True, False)
    assert gradients("critic") == (False, True)
    losses = task.losses(contest)
    parts = losses["velocity"] + 0.1 * losses["level"] + 3 * losses["adversarial"] + losses["critic"] / 2
    torch.testing.assert_close(losses["total"], parts)
    assert task.shipped(contest.state_dict()).keys() == Flow.apart().build().state_dict().keys()


def test_the_critic_learns_to_tell_images_from_what_a_first_stage_shows() -> None:
    sent = torch.tensor(embedded_images(32, (3, 32, 32))).float() / 255
    blurred = torch.nn.functional.avg_pool2d(sent, 3, 1, 1)
    _, real, shown = LpipsAlex().compared(sent, blurred)
    torch.manual_seed(0)
    critic = Critic(LpipsAlex.widths)
    optimizer = torch.optim.Adam(critic.parameters(), 1e-3)
    for _ in range(30):
        loss = _judged(critic, real, True) + _judged(critic, shown, False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # Without a critic that tells them apart: 2 log 2.
    assert loss.item() < 0.5
