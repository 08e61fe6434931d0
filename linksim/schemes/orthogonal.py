"""Learned schemes of one user and its base station; several users take turns, or are told apart by antennas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from linksim.link.config import Access, Setting, SideInfo
from linksim.models.spec import NO_ABLATION
from linksim.schemes.base import Params
from linksim.schemes.learned import Learned, WeightsParams
from linksim.schemes.recipe import TransceiverRecipe

if TYPE_CHECKING:
    from torch import Tensor

    from linksim.models.recipe import BaseRecipe
    from linksim.models.spec import ModelSpec
    from linksim.nets.orthogonal import OrthogonalNetwork


#: The ablation of weights that were trained behind zero forcing.
ZERO_FORCING = "zf"


@dataclass(frozen=True)
class OrthogonalRecipe(TransceiverRecipe):
    """How a scheme of one user is trained.

    `paper` is that of the GSC paper, section IV-A: mean square error, 1e-4, batches of 32, gamma between 1 and 13 dB.
    """

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
    equaliser: Literal["mmse", "zf"] = Field(
        "mmse", description="of the receiver; zf has weights of its own (linksim train --ablation zf)"
    )


class Orthogonal(Learned):
    """A scheme of one user: N users are N links, in channel uses of their own, with the same networks.

    The weights are those of one user and its symbols, whatever N and the convention of power.
    """

    Params: ClassVar[type[Params]] = OrthogonalParams
    access: ClassVar[Access] = "oma"
    any_size: ClassVar[bool] = True
    recipe: ClassVar[type[BaseRecipe]] = OrthogonalRecipe
    ablations: ClassVar[Mapping[str, Mapping[str, str]]] = {ZERO_FORCING: {}}

    @classmethod
    def model(cls, setting: Setting, params: Any) -> ModelSpec:
        """See `Learned.model`."""
        ablation = ZERO_FORCING if params.equaliser == "zf" else NO_ABLATION
        return replace(super().model(setting, params), users=1, power="sum", ablation=ablation)

    @classmethod
    def equalising(cls, network: OrthogonalNetwork, spec: ModelSpec) -> OrthogonalNetwork:
        """The network with the equaliser of its model."""
        network.equaliser = "zf" if spec.ablation == ZERO_FORCING else "mmse"
        return network

    @classmethod
    def check_csi(cls, channel: str, csi: str) -> None:
        """See `Learned`: gamma is there to be told over any channel."""

    def _told(self, snr_db: Tensor, h: Tensor) -> Tensor:
        # Networks know users of unit power: what another power changes is the SNR.
        import torch

        gain = 10 * torch.tensor(self.powers, device=snr_db.device).log10()
        return super()._told((snr_db if snr_db.dim() == 2 else snr_db[:, None]) + gain, h)

    def _heard(self, received: Tensor, side: SideInfo) -> tuple[Tensor, Tensor]:
        import torch

        signal, told = super()._heard(received, side)
        return signal / torch.tensor(self.powers, device=signal.device).sqrt()[:, None], told
