"""Learned schemes of one user and its base station; several users take turns, or are told apart by antennas."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field

from linksim.link.config import Access, Setting, SideInfo
from linksim.schemes.base import Params
from linksim.schemes.learned import Learned, WeightsParams
from linksim.schemes.recipe import TransceiverRecipe

if TYPE_CHECKING:
    from torch import Tensor

    from linksim.models.recipe import BaseRecipe
    from linksim.models.spec import ModelSpec
    from linksim.nets.network import Network
    from linksim.nets.orthogonal import OrthogonalNetwork
    from linksim.schemes.training import TransceiverTask


@dataclass(frozen=True)
class OrthogonalRecipe(TransceiverRecipe):
    """How a scheme of one user is trained.

    `paper` is that of the GSC paper, section IV-A: mean square error, 1e-4, batches of 32, gamma between 1 and 13 dB.

    Args:
        equaliser: of the receiver, "mmse" or "zf".
    """

    equaliser: Literal["mmse", "zf"] = "mmse"

    @classmethod
    def presets(cls) -> dict[str, Any]:
        """See the class."""
        found = {name: replace(recipe, snr_db=(0.0, 15.0), batch=32) for name, recipe in super().presets().items()}
        return {**found, "paper": replace(found["paper"], loss="mse", snr_db=(1.0, 13.0))}


class OrthogonalParams(WeightsParams):
    """Parameters of a scheme of one user."""

    csi: Literal["none", "snr"] = Field(
        "none", description="side information of the networks: none, the receiver equalises; or gamma (snr)"
    )
    equaliser: Literal["mmse", "zf"] = Field("mmse", description="of the receiver; weights are trained with mmse")


class Orthogonal(Learned):
    """A scheme of one user: N users are N links, in channel uses of their own, with the same networks.

    The weights are those of one user and its symbols, whatever N and the convention of power.
    """

    Params: ClassVar[type[Params]] = OrthogonalParams
    access: ClassVar[Access] = "oma"
    any_size: ClassVar[bool] = True
    recipe: ClassVar[type[BaseRecipe]] = OrthogonalRecipe

    @classmethod
    def training(cls) -> type[TransceiverTask]:
        """See `Learned.training`."""
        from linksim.nets.orthogonal import OrthogonalNetwork
        from linksim.schemes.training import TransceiverTask

        class Task(TransceiverTask):
            """With the recipe's equaliser."""

            recipe: OrthogonalRecipe

            def network(self) -> Network:
                found = super().network()
                assert isinstance(found, OrthogonalNetwork)
                found.equaliser = self.recipe.equaliser
                return found

        return Task

    @classmethod
    def model(cls, setting: Setting, params: Any) -> ModelSpec:
        """See `Learned.model`."""
        return replace(super().model(setting, params), users=1, power="sum")

    @classmethod
    def check_csi(cls, channel: str, csi: str) -> None:
        """See `Learned`: gamma is there to be told over any channel."""

    @property
    def _model(self) -> OrthogonalNetwork:
        found = cast("OrthogonalNetwork", super()._model)
        found.equaliser = self.params.equaliser
        return found

    def _told(self, snr_db: Tensor, h: Tensor) -> Tensor:
        # Networks know users of unit power: what another power changes is the SNR.
        import torch

        gain = 10 * torch.tensor(self.powers, device=snr_db.device).log10()
        return super()._told((snr_db if snr_db.dim() == 2 else snr_db[:, None]) + gain, h)

    def _heard(self, received: Tensor, side: SideInfo) -> tuple[Tensor, Tensor]:
        import torch

        signal, told = super()._heard(received, side)
        return signal / torch.tensor(self.powers, device=signal.device).sqrt()[:, None], told
