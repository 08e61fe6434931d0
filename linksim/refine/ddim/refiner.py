"""KDD-SemNOMA's second stage: error contraction and DDIM sampling with a diffusion prior (KDD paper, section V)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from linksim.errors import LinksimError
from linksim.models.owner import Model, Owner
from linksim.models.spec import CIFAR10_SHAPE, ModelSpec, PriorSpec
from linksim.paths import here
from linksim.refine.base import Refiner, Steps
from linksim.refine.ddim.model import PRIOR_SIZES, OwnPrior, prior
from linksim.refine.ddim.priors import PUBLISHED, Checkpoint, find_prior
from linksim.refine.ddim.starts import Stages, stages, validated_starts
from linksim.refine.diffusion import Prior, Sigma, sample, step_count
from linksim.schemes.base import Params, Scheme

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from linksim.link.config import Setting

#: T' of the paper, for images of 256x256 (section V-B).
PAPER_START = 200
PAPER_SIZE = (256, 256)

#: Strength of the noise at T' unless the paper's own is asked for (`results/README.md`, T').
EXCESS = 1.1


class DdimParams(Params):
    """Parameters of the refinement."""

    prior: str = Field("small", description="small or large (trained here, 32x32), ddpm-cifar10 or ffhq256 (assets), a "
                       "checkpoint of improved-diffusion, guided-diffusion or DDPM, or a diffusers folder")  # fmt: skip
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
    eta: float = Field(0.5, ge=0, le=1, description="randomness: 0 none, 1 as DDPM")
    sigma: Sigma = Field("ddim", description="ddim: sigma = eta times DDPM's; paper: sigma^2 is (eq. 21)")
    prior_schedule: Literal["linear", "cosine"] = Field("linear", description="of a checkpoint")
    prior_steps: int = Field(1000, ge=1, le=100_000, description="of a checkpoint: original steps of its training")
    prior_heads: str = Field("4", description="of a checkpoint: attention heads, or channels a head, like 64c; "
                             "4/8 where the way up has others")  # fmt: skip
    prior_qkv: Literal["legacy", "new"] = Field("legacy", description="of a checkpoint: order of the attention's rows")


class Ddim(Refiner):
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
        total = int(self._found.schedule["num_train_timesteps"])
        for start in self._starts.values():
            if start or isinstance(params.start, int):
                step_count(start, self.params.steps, total)

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
        """Hash of the prior, T' at every SNR that it is known for, the steps from there, and the noise's strength."""
        starts = "/".join(f"{snr:g}dB:{start}" for snr, start in self._starts.items())
        return {
            "prior": self._found.sha256, "start": starts, "steps": str(self.params.steps), "excess": f"{self._excess:g}"
        }  # fmt: skip

    def start(self, snr_db: float) -> int:
        """T' at an SNR: that of the nearest in the validation table, 0 above its highest; 0 leaves images alone."""
        if self.params.start == "auto" and snr_db > max(self._starts):
            return 0
        return self._starts[min(self._starts, key=lambda known: (abs(known - snr_db), known))]

    def evaluations(self, snr_db: float) -> int:
        """See `Refiner`."""
        start = self.start(snr_db)
        total = int(self._found.schedule["num_train_timesteps"])
        return step_count(start, self.params.steps, total) if start else 0

    def facts(self, snr_db: float) -> Mapping[str, float]:
        """T' (`refine_start`), wherever it came from."""
        return {"start": self.start(snr_db)}

    def load(self) -> None:
        """See `Refiner`."""
        _ = self._prior

    @cached_property
    def _prior(self) -> Prior:
        return self._found.load(self.setting.device, self.setting.precision, self.setting.image_shape)

    def refine(self, images: Tensor, snr_db: float, draws: Sequence[np.random.Generator], report: Steps) -> Tensor:
        """See `Refiner.refine`."""
        import numpy as np
        import torch

        shape = images.shape[1:]
        if not self.start(snr_db):
            return images

        def noise() -> Tensor:
            drawn = np.stack([draw.standard_normal(shape, dtype=np.float32) for draw in draws])
            return torch.from_numpy(drawn).to(images)

        return sample(
            self._prior, images, noise, self.start(snr_db), self.evaluations(snr_db), self.params.eta,
            self.params.sigma, report, self._excess,
        )  # fmt: skip
