"""The refinement of KDD-SemNOMA against the paper's equations, written down in float64."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import linksim
from linksim.errors import LinksimError
from linksim.link.config import SideInfo
from linksim.refine.ddim.priors import Prior
from linksim.refine.ddim.refiner import Ddim, sample, step_count
from linksim.refine.diffusion import OWN_SCHEDULE, make_scheduler


class Told(nn.Module):
    """Some smooth function of the noisy image and the step, in the place of a trained network."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor, times: Tensor) -> Any:
        shifted = torch.tanh(self.scale * x) + 0.3 * torch.sin(times.to(x) / 50).view(-1, 1, 1, 1)
        return SimpleNamespace(sample=torch.cat([shifted, 99 + 0 * shifted], 1))


def cumulative(schedule: str) -> np.ndarray:
    """a_t for t = 0..1000 in the paper's counting, a_0 = 1."""
    if schedule == "linear":
        betas = np.linspace(1e-4, 0.02, 1000)
    else:
        f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
        betas = np.array([min(1 - f[t + 1] / f[t], 0.999) for t in range(1000)])
    return np.concatenate([[1.0], np.cumprod(1 - betas)])


def transcribed(
    x_init: np.ndarray, noises: list[np.ndarray], start: int, steps: int, eta: float, sigma: str, schedule: str
) -> np.ndarray:
    """Equations 21, 22 and 24 over strided steps; images in [-1, 1], the predicted x_0 clamped to it."""
    a = cumulative(schedule)
    x = math.sqrt(a[start]) * x_init + math.sqrt(1 - a[start]) * noises[0]
    stride = start // steps
    for index, t in enumerate(range(start, 0, -stride), 1):
        previous = t - stride
        told = np.tanh(0.7 * x) + 0.3 * math.sin((t - 1) / 50)
        x_0 = np.clip((x - math.sqrt(1 - a[t]) * told) / math.sqrt(a[t]), -1, 1)
        told = (x - math.sqrt(a[t]) * x_0) / math.sqrt(1 - a[t])
        posterior = (1 - a[previous]) / (1 - a[t]) * (1 - a[t] / a[previous])
        variance = eta * posterior if sigma == "paper" else eta**2 * posterior
        mean = math.sqrt(a[previous]) * x_0 + math.sqrt(1 - a[previous] - variance) * told
        x = mean + math.sqrt(variance) * noises[index]
    return x


@pytest.mark.parametrize("sigma", ["ddim", "paper"])
@pytest.mark.parametrize(("schedule", "start", "steps", "eta"), [
    ("squaredcos_cap_v2", 200, 50, 0.5), ("linear", 100, 25, 0.5), ("linear", 200, 50, 1.0),
    ("squaredcos_cap_v2", 40, 40, 0.3), ("linear", 1000, 250, 0.5),
])  # fmt: skip
def test_every_step_is_the_papers(schedule: str, start: int, steps: int, eta: float, sigma: Any) -> None:
    draw = np.random.default_rng(0)
    noises = [draw.standard_normal((2, 3, 4, 4)) for _ in range(steps + 1)]
    images = draw.uniform(0, 1, (2, 3, 4, 4))
    prior = Prior(Told(), {**OWN_SCHEDULE, "beta_schedule": schedule})
    told: list[tuple[int, int]] = []
    source = iter(noises)
    found = sample(
        prior, torch.from_numpy(images).float(), lambda: torch.from_numpy(next(source)).float(), start, steps, eta,
        sigma, lambda done, total: told.append((done, total)),
    )  # fmt: skip
    wanted = transcribed(2 * images - 1, noises, start, steps, eta, sigma, schedule)
    np.testing.assert_allclose(2 * found.numpy() - 1, np.clip(wanted, -1, 1), atol=2e-4)
    assert told == [(done, steps) for done in range(1, steps + 1)]


def test_the_two_conventions_of_the_variance_differ_by_the_root_of_eta() -> None:
    images, noises = torch.rand(1, 3, 8, 8), [torch.randn(1, 3, 8, 8) for _ in range(51)]

    def run(eta: float, sigma: Any) -> Tensor:
        source = iter(noises)
        return sample(Prior(Told(), OWN_SCHEDULE), images, lambda: next(source), 200, 50, eta, sigma)

    torch.testing.assert_close(run(0.25, "paper"), run(0.5, "ddim"))
    assert (run(0.5, "paper") - run(0.5, "ddim")).abs().max() > 1e-3
    torch.testing.assert_close(run(1.0, "paper"), run(1.0, "ddim"))


@pytest.mark.parametrize("start", [40, 200])
def test_the_first_stages_error_stands_in_the_noisy_image_scaled(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equation 24: x_T' of the first stage's image differs from that of the original by -sqrt(a_T') e."""
    seen: list[Tensor] = []

    class Stop(Exception):
        pass

    def predict(self: Prior, x: Tensor, time: int) -> Tensor:
        seen.append(x)
        assert time == start - 1
        raise Stop

    monkeypatch.setattr(Prior, "predict", predict)
    original, noise = torch.rand(1, 3, 8, 8), torch.randn(1, 3, 8, 8)
    shown = (original + 0.1 * torch.randn(1, 3, 8, 8)).clamp(0, 1)
    for images in (original, shown):
        with pytest.raises(Stop):
            sample(Prior(Told(), OWN_SCHEDULE), images, lambda: noise, start, start // 4, 0.5, "ddim")
    error = 2 * (original - shown)
    root = math.sqrt(cumulative("squaredcos_cap_v2")[start])
    torch.testing.assert_close(seen[1] - seen[0], -root * error, rtol=0, atol=1e-5)


def test_the_noise_at_the_start_has_the_strength_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Stop(Exception):
        pass

    def predict(self: Prior, x: Tensor, time: int) -> Tensor:
        seen.append(x)
        raise Stop

    monkeypatch.setattr(Prior, "predict", predict)
    images, noise = torch.rand(1, 3, 8, 8), torch.randn(1, 3, 8, 8)
    for excess in (1.0, 1.1):
        with pytest.raises(Stop):
            sample(Prior(Told(), OWN_SCHEDULE), images, lambda: noise, 40, 10, 0.5, "ddim", excess=excess)
    spread = math.sqrt(1 - cumulative("squaredcos_cap_v2")[40])
    torch.testing.assert_close(seen[1] - seen[0], 0.1 * spread * noise, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "excess", "steps"),
    [("", "1.1", "quarter"), (":start=paper", "1.1", "quarter"), (":start=40,excess=1,steps=half", "1", "half")],
)
def test_what_a_result_depends_on_says_noise_and_steps(words: str, excess: str, steps: str) -> None:
    model = linksim.load_model("kd", channel="rayleigh", rho="1/6")
    told = linksim.refiner(f"ddim{words}", behind=model).refiner.provenance()
    assert (told["excess"], told["steps"]) == (excess, steps)


def test_steps_are_counted_and_refused() -> None:
    assert [step_count(start, "quarter", 1000) for start in (200, 100, 40, 30, 7, 1)] == [50, 25, 10, 10, 7, 1]
    assert [step_count(start, "half", 1000) for start in (240, 100, 30, 7, 1)] == [120, 50, 15, 7, 1]
    assert step_count(200, 100, 1000) == 100
    for start, steps, hint in [(200, 60, "take 50"), (0, "quarter", "1 to 1000"), (1001, "quarter", "1 to 1000"),
                               (40, 41, "take 40"), (900, 1, "does not fit")]:  # fmt: skip
        with pytest.raises(LinksimError, match=hint):
            step_count(start, steps, 1000)  # type: ignore[arg-type]


def test_the_schedule_is_the_cosine_one() -> None:
    scheduler = make_scheduler(OWN_SCHEDULE)
    np.testing.assert_allclose(scheduler.alphas_cumprod.numpy(), cumulative("cosine")[1:], atol=1e-5)


def test_over_fading_each_image_has_the_t_of_its_own_snr(monkeypatch: pytest.MonkeyPatch) -> None:
    model = linksim.load_model("kd", channel="rayleigh", rho="1/6")
    refiner = linksim.refiner("ddim:start=60", behind=model).refiner
    assert isinstance(refiner, Ddim)
    # Half for 5 dB better, twice at most, in steps of a root of two, whole quarters.
    heard = {0.0: 60, 1.0: 60, -2.0: 84, 2.0: 44, -5.0: 120, 5.0: 32, -20.0: 120, 300.0: 4}
    assert {own: refiner.start_of(0.0, own) for own in heard} == heard
    assert refiner.start_of(10.0, 5.0) == 120
    for words in ("ddim:start=60,halving=0", "ddim:start=paper", "ddim:start=60,steps=15"):
        alike = linksim.refiner(words, behind=model).refiner
        assert isinstance(alike, Ddim)
        assert alike.start_of(0.0, -5.0) == alike.start(0.0)
    with pytest.raises(LinksimError, match=r"halving=5,steps=15: .*steps=quarter or half, or halving=0"):
        linksim.refiner("ddim:start=60,halving=5,steps=15", behind=model)
    taken: list[tuple[int, int, int]] = []

    def kept(prior: Prior, images: Tensor, noise: Any, start: int, steps: int, *more: Any) -> Tensor:
        taken.append((len(images), start, steps))
        for _ in range(steps):
            more[2](0, 0)
        return images * start / 1000 + 0 * noise()

    monkeypatch.setattr("linksim.refine.ddim.refiner.sample", kept)
    h = torch.tensor([[1.0, 10**-0.25], [10**0.25, 1.0]])[:, None, :, None] + 0j
    side = SideInfo(torch.zeros(2), torch.ones(2), h, (0, (0, 1)))
    told: list[tuple[int, int]] = []
    found = refiner(torch.ones(2, 2, 3, 32, 32), side, lambda done, steps: told.append((done, steps)))
    torch.testing.assert_close(found[:, :, 0, 0, 0], torch.tensor([[0.06, 0.12], [0.032, 0.06]]))
    assert taken == [(1, 32, 8), (2, 60, 15), (1, 120, 30)]
    assert told == [(done, 53) for done in range(1, 54)]
