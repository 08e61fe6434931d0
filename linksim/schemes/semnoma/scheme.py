"""The paper's learned transceivers: SemNOMA, KD-SemNOMA and SemOMA (KDD paper, sections III and IV)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from linksim.link.config import Access, Setting
from linksim.models.spec import SCRATCH
from linksim.schemes.base import Params
from linksim.schemes.learned import Learned, LearnedParams
from linksim.schemes.semnoma.recipe import Recipe, stages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from linksim.models.recipe import BaseRecipe
    from linksim.models.spec import ModelSpec
    from linksim.schemes.semnoma.network import Transceiver
    from linksim.schemes.training import TransceiverTask


class ConvNext(Learned):
    """A scheme on the ConvNeXt transceiver; its decoder is shared where the users do not superpose."""

    recipe: ClassVar[type[BaseRecipe]] = Recipe
    any_size: ClassVar[bool] = True

    @classmethod
    def serves(cls, trained: ModelSpec, wanted: ModelSpec) -> bool:
        """See `Owner`: of as many stages."""
        return super().serves(trained, wanted) and stages(trained.image_shape) == stages(wanted.image_shape)

    @classmethod
    def training(cls) -> type[TransceiverTask]:
        """See `Learned.training`."""
        from linksim.schemes.semnoma.training import ConvNextTask

        return ConvNextTask

    @classmethod
    def network(cls, spec: ModelSpec, layer_scale: float = 1e-6) -> Transceiver:
        """See `Learned.network`; `layer_scale`: start of the residual blocks' layer scale."""
        from linksim.schemes.semnoma.codec import codec_shape
        from linksim.schemes.semnoma.network import Transceiver

        size: Any = spec.size
        shape = codec_shape(
            spec.image_shape, spec.symbols, spec.side_dim, size, spec.users if cls.access == "oma" else 1
        )
        return Transceiver(replace(shape, layer_scale=layer_scale), spec.users, shared_decoder=cls.access == "oma")


class UntaughtParams(LearnedParams):
    """Parameters of SemNOMA."""

    ablation: Literal["none", "scratch"] = Field(
        "none", description="scratch: weights that were not started from an orthogonal model, for comparisons at equal "
        "pairs with networks that cannot be"
    )  # fmt: skip


class SemNoma(ConvNext):
    """SemNOMA: users superpose, one encoder, a decoder for each user, trained for the images' error alone."""

    name: ClassVar[str] = "semnoma"
    summary: ClassVar[str] = "SemNOMA: ConvNeXt transceivers that superpose (KDD paper)"
    Params: ClassVar[type[Params]] = UntaughtParams
    source: ClassVar[str | None] = "semoma"
    ablations: ClassVar[Mapping[str, Mapping[str, str]]] = {SCRATCH: {}}


class TaughtParams(LearnedParams):
    """Parameters of KD-SemNOMA."""

    ablation: Literal["none", "fa", "crosskd", "j1", "j2", "j3", "j4", "j5", "j6", "j7"] = Field(
        "none",
        description="weights trained with FA alone (fa), CrossKD alone (crosskd), or CrossKD at layer j (j1..j7)",
    )


class KdSemNoma(SemNoma):
    """KD-SemNOMA: SemNOMA taught by an orthogonal teacher through feature affinity and CrossKD (eqs. 13 to 17)."""

    name: ClassVar[str] = "kd"
    summary: ClassVar[str] = "KD-SemNOMA: SemNOMA taught by an orthogonal teacher (KDD paper)"
    Params: ClassVar[type[Params]] = TaughtParams
    teacher: ClassVar[str | None] = "semoma"
    ablations: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "fa": {"leave_out": "crosskd"},
        "crosskd": {"leave_out": "fa"},
        **{f"j{layer}": {"cross_layer": str(layer)} for layer in range(1, 8)},
    }


class OrthogonalParams(LearnedParams):
    """Parameters of SemOMA."""

    overhead: Literal["same", "twice"] = Field(
        "same", description="channel uses: k in all, k/N a user (same), or k a user (twice, for two users)"
    )


class SemOma(ConvNext):
    """SemOMA: each user in its own channel uses, one decoder for all; the teacher of KD-SemNOMA."""

    name: ClassVar[str] = "semoma"
    summary: ClassVar[str] = "SemOMA: the same transceivers in orthogonal channel uses (KDD paper)"
    Params: ClassVar[type[Params]] = OrthogonalParams
    access: ClassVar[Access] = "oma"

    @classmethod
    def _symbols(cls, setting: Setting, params: Any) -> int:
        return setting.channel_uses if params.overhead == "twice" else super()._symbols(setting, params)

    @property
    def overhead(self) -> int:
        """1, or N where every user has k channel uses."""
        return self.setting.link.users if self.params.overhead == "twice" else 1
