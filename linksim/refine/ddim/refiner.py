"""KDD-SemNOMA's second stage: error contraction and DDIM sampling with a diffusion prior (KDD paper, section V)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from linksim.errors import LinksimError
from linksim.models.owner import Model, Owner
from linksim.models.spec import CIFAR10_SHAPE, ModelSpec, PriorSpec
from linksim.paths import here
from linksim.refine.base import ByImage, Steps
from linksim.refine.ddim.model import PRIOR_SIZES, OwnPrior, prior
from linksim.refine.ddim.priors import PUBLISHED, Checkpoint, find_prior
from linksim.refine.ddim.starts import Stages, stages, validated_starts
from linksim.refine.diffusion import STRIDES, Prior, Sigma, sample, step_count
from linksim.schemes.base import Params, Scheme

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from linksim.link.config import Setting

#: T' of the paper, for images of 256x256 (section V-B).
PAPER_START = 200
PAPER_SIZE = (256, 256)

#: dB by which an image is to be received better for half the T' (`results/README.md`, T').
HALVING_DB = 5.0
#: T' of an image is at most twice that at the mean SNR. It goes up and down by roots of two, so that many images share
#: one T' and go through the network at once.
_MOST_DOUBLINGS = 1.0
_STEPS_A_DOUBLING = 2

#: Float32 has an SNR to better than this.
_SNR_TOLERANCE_DB = 1e-3

#: Strength of the noise at T' unless the paper's own is asked for (`results/README.md`, T').
EXCESS = 1.1


class DdimParams(Params):
    """Parameters of the refinement."""

    prior: str = Field(
        "small", description="small or large (trained here, 32x32), ddpm-cifar10, cifar10-50m or ffhq256 (assets), a "
        "checkpoint of improved-diffusion, guided-diffusion or DDPM, or a diffusers folder",
    )  # fmt: skip
    start: int | Literal["auto", "paper"] = Field(
        "auto", description="T' in original steps; auto: at each SNR the one that validated best (linksim tune), 0 "
        "where none was better than the first stage; paper: one for all SNRs, 200 on 256x256",
    )  # fmt: skip
    steps: int | Literal["half", "quarter"] = Field(
        "quarter", description="steps from T' to 0; half: T'/2; quarter: T'/4, as in the paper",
    )  # fmt: skip
    excess: Annotated[float, Field(gt=0, le=4)] | Literal["auto"] = Field(
        "auto", description="strength of the noise at T', 1 as in the paper; a first stage lacks detail, and stronger "
        f"noise makes up for it; auto: {EXCESS}, 1 with start=paper on 256x256",
    )  # fmt: skip
    halving: Annotated[float, Field(ge=0, le=100)] | Literal["auto"] = Field(
        "auto", description="T' is of an image received at the channel's mean SNR; over fading it halves for every so "
        f"many dB that one is received better; 0: one T' for all; auto: {HALVING_DB:g}, 0 with start=paper or a number "
        "of steps",
    )  # fmt: skip
    eta: float = Field(0.5, ge=0, le=1, description="randomness: 0 none, 1 as DDPM")
    sigma: Sigma = Field("ddim", description="ddim: sigma = eta times DDPM's; paper: sigma^2 is (eq. 21)")
    prior_schedule: Literal["linear", "cosine"] = Field("linear", description="of a checkpoint")
    prior_steps: int = Field(1000, ge=1, le=100_000, description="of a checkpoint: original steps of its training")
    prior_heads: str = Field("4", description="of a checkpoint: attention heads, or channels a head, like 64c; "
                             "4/8 where the way up has others")  # fmt: skip
    prior_qkv: Literal["legacy", "new"] = Field("legacy", description="of a checkpoint: order of the attention's rows")


class Ddim(ByImage):
    """x_T' = sqrt(a_T') x_init + sqrt(1 - a_T') z, then DDIM from T' to 0 (eqs. 21 to 25)."""

    name: ClassVar[str] = "ddim"
    summary: ClassVar[str] = "error contraction and DDIM with a diffusion prior (KDD paper)"
    Params: ClassVar[type[Params]] = DdimParams

    def __init__(self, setting: Setting, params: DdimParams, first: Scheme) -> None:
        super().__init__(setting, params, first)
        how = Checkpoint(params.prior_schedule, params.prior_steps, params.prior_heads, params.prior_qkv)
        if how != Checkpoint() and not here(Path(params.prior)).is_file():
            raise LinksimError(
                f"prior={params.prior}: prior_schedule, prior_steps, ... are of a checkpoint: leave them out"
            )
        self._found = find_prior(params.prior, how, setting.image_shape)
        if isinstance(params.start, int):
            self._starts: Mapping[float, int] = {0.0: params.start}
        elif self._is_papers:
            self._starts = {0.0: PAPER_START}
        else:
            table = validated_starts(self.stages, first, params.prior)
            self._starts = table.by_snr if params.start == "auto" else {0.0: table.one}
        if self._halving_db and isinstance(params.steps, int):
            raise LinksimError(
                f"halving={params.halving:g},steps={params.steps}: images of another T' take another number of steps: "
                "steps=quarter or half, or halving=0"
            )
        for start in self._starts.values():
            if start or isinstance(params.start, int):
                step_count(start, self.params.steps, self._total)

    @property
    def _is_papers(self) -> bool:
        """Whether T' is the one that the paper gives, for its images."""
        return bool(self.params.start == "paper" and self.setting.image_shape[1:] == PAPER_SIZE)

    @property
    def _excess(self) -> float:
        """`excess` as a number."""
        if self.params.excess == "auto":
            return 1.0 if self._is_papers else EXCESS
        return float(self.params.excess)

    @property
    def _total(self) -> int:
        """Original steps of the prior's process."""
        return int(self._found.schedule["num_train_timesteps"])

    @property
    def _halving_db(self) -> float:
        """`halving` as a number."""
        if self.params.halving == "auto":
            return 0.0 if self.params.start == "paper" or isinstance(self.params.steps, int) else HALVING_DB
        return float(self.params.halving)

    @property
    def stages(self) -> Stages:
        """What a table of starts calls this refinement."""
        return stages(self._found, self.first)

    @classmethod
    def models(cls, first: ModelSpec | None, params: Any) -> list[Model]:
        """See `Refiner`."""
        shape = CIFAR10_SHAPE if first is None else first.image_shape
        return [prior(params.prior, shape)] if params.prior in PRIOR_SIZES else []

    @classmethod
    def assets(cls, params: Any) -> list[str]:
        """See `Refiner`."""
        return [PUBLISHED[params.prior].asset] if params.prior in PUBLISHED else []

    @classmethod
    def priors(cls, image_shape: tuple[int, int, int] = CIFAR10_SHAPE) -> dict[str, Model]:
        """See `Refiner`."""
        return {size: prior(size, image_shape) for size in PRIOR_SIZES}

    @classmethod
    def owners(cls) -> dict[str, type[Owner]]:
        """See `Refiner`."""
        return {PriorSpec.kind: OwnPrior}

    def provenance(self) -> dict[str, str]:
        """Hash of the prior, T' by SNR and how it differs over fading, the steps from there, the noise's strength."""
        starts = "/".join(f"{snr:g}dB:{start}" for snr, start in self._starts.items())
        found = {
            "prior": self._found.sha256, "start": starts, "steps": str(self.params.steps), "excess": f"{self._excess:g}"
        }  # fmt: skip
        return found | ({"halving": f"{self._halving_db:g}"} if self.setting.link.channel != "awgn" else {})

    def start(self, snr_db: float) -> int:
        """T' at an SNR of the channel: that of the nearest in the validation table, 0 above its highest.

        0 leaves images alone.
        """
        # An SNR may come in float32, a little above or below what it was.
        if self.params.start == "auto" and snr_db > max(self._starts) + _SNR_TOLERANCE_DB:
            return 0
        return self._starts[
            min(self._starts, key=lambda known: (round(abs(known - snr_db) / _SNR_TOLERANCE_DB), known))
        ]

    def start_of(self, snr_db: float, received_db: float) -> int:
        """T' of an image that is received at an SNR of its own, where the channel's is `snr_db`."""
        start = self.start(snr_db)
        if not start or not self._halving_db:
            return start
        doublings = min((snr_db - received_db) / self._halving_db, _MOST_DOUBLINGS)
        doublings = round(doublings * _STEPS_A_DOUBLING) / _STEPS_A_DOUBLING
        if not doublings:
            return start
        stride = STRIDES[str(self.params.steps)]
        return min(max(1, round(start * 2**doublings / stride)), self._total // stride) * stride

    def evaluations(self, snr_db: float) -> int:
        """See `Refiner`; of an image received at `snr_db`."""
        return self._steps_from(self.start(snr_db))

    def _steps_from(self, start: int) -> int:
        return step_count(start, self.params.steps, self._total) if start else 0

    def facts(self, snr_db: float) -> Mapping[str, float]:
        """T' (`refine_start`) of an image received at `snr_db`, wherever it came from."""
        return {"start": self.start(snr_db)}

    def load(self) -> None:
        """See `Refiner`."""
        _ = self._prior

    @cached_property
    def _prior(self) -> Prior:
        return self._found.load(self.setting.device, self.setting.precision, self.setting.image_shape)

    def refine_each(
        self,
        images: Tensor,
        snr_db: float,
        received_db: Sequence[float],
        draws: Sequence[np.random.Generator],
        report: Steps,
    ) -> Tensor:
        """See `Refiner.refine_each`: images of the same T' go through the network together."""
        if not self.start(snr_db):
            return images
        together: dict[int, list[int]] = {}
        for index, received in enumerate(received_db):
            together.setdefault(self.start_of(snr_db, received), []).append(index)
        steps = {start: self._steps_from(start) for start in sorted(together)}
        done = itertools.count(1)
        refined = images.clone()
        for start, count in steps.items():
            chosen = together[start]
            refined[chosen] = sample(
                self._prior, images[chosen], _noise([draws[index] for index in chosen], images), start, count,
                self.params.eta, self.params.sigma, lambda *_: report(next(done), sum(steps.values())), self._excess,
            )  # fmt: skip
        return refined


def _noise(draws: Sequence[np.random.Generator], like: Tensor) -> Callable[[], Tensor]:
    """Draws from N(0, 1) for as many images [M, C, H, W] as there are generators, each from its own."""

    def draw() -> Tensor:
        import numpy as np
        import torch

        drawn = np.stack([one.standard_normal(like.shape[1:], dtype=np.float32) for one in draws])
        return torch.from_numpy(drawn).to(like)

    return draw
