"""NGF, a Swin transceiver of one user, and MU-NGF, many such users at a base station with antennas (GSC paper)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from linksim.errors import LinksimError
from linksim.link.config import Access, Setting
from linksim.schemes.base import Params
from linksim.schemes.orthogonal import Orthogonal, OrthogonalParams

if TYPE_CHECKING:
    from linksim.models.spec import ModelSpec
    from linksim.nets.network import Network


class NgfParams(OrthogonalParams):
    """Parameters of NGF."""

    size: Literal["paper", "wide"] = Field(
        "paper", description="width of the networks: the paper's, 0.48 M parameters, or WITT's own, 7.4 M"
    )


class Ngf(Orthogonal):
    """NGF: a Swin transformer that sends one user's image; the receiver equalises. GSC is `ngf+sft`."""

    name: ClassVar[str] = "ngf"
    summary: ClassVar[str] = "NGF: Swin transceivers of one user, without refinement (GSC paper)"
    Params: ClassVar[type[Params]] = NgfParams

    @classmethod
    def network(cls, spec: ModelSpec) -> Network:
        """See `Learned.network`."""
        from linksim.nets.orthogonal import maps_of
        from linksim.schemes.ngf.network import NgfNetwork, stride_of

        size: Any = spec.size
        maps = maps_of(spec.symbols, spec.image_shape, stride_of(size))
        network = NgfNetwork(size, spec.image_shape, maps, spec.side_dim, spec.csi == "snr")
        return cls.equalising(network, spec)


class MuNgfParams(NgfParams):
    """Parameters of MU-NGF."""

    detector: Literal["link", "lmmse", "zf", "mf"] = Field(
        "link", description="what tells users apart: that of the link (--detector), or another"
    )


class MuNgf(Ngf):
    """MU-NGF: all users send at once, and the base station's antennas tell them apart; each then is a user of NGF.

    The weights are NGF's. With as many antennas as users, zero forcing gives every user exactly the channel of one
    user alone.
    """

    name: ClassVar[str] = "mu-ngf"
    summary: ClassVar[str] = "MU-NGF: NGF's users at once, told apart by the antennas, without refinement (GSC paper)"
    Params: ClassVar[type[Params]] = MuNgfParams
    access: ClassVar[Access] = "noma"

    def __init__(self, setting: Setting, params: MuNgfParams) -> None:
        if params.detector != "link":
            setting = replace(setting, link=replace(setting.link, detector=params.detector))
        try:
            super().__init__(setting, params)
        except LinksimError as error:
            own = "detector=" if params.detector != "link" else "--detector "
            raise type(error)(str(error).replace("--detector ", own)) from None

    @classmethod
    def model(cls, setting: Setting, params: Any) -> ModelSpec:
        """See `Learned.model`: NGF's, of as many symbols."""
        return replace(super().model(setting, params), method=Ngf.name)

    @property
    def flat(self) -> bool:
        """One user alone needs no detector."""
        return self.setting.link.users == 1 and super().flat
