"""The paper's learned transceivers: SemNOMA, KD-SemNOMA and SemOMA (KDD paper, sections III and IV)."""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from linksim.errors import LinksimError
from linksim.link.config import Access, Setting, SideInfo
from linksim.link.units import source_size
from linksim.schemes.base import Params, Received, Scheme

if TYPE_CHECKING:
    from torch import Tensor

    from linksim.nets.transceiver import Transceiver
    from linksim.train.spec import Method, ModelSpec


class LearnedParams(Params):
    """Parameters of a learned transceiver."""

    size: Literal["compact", "paper"] = Field(
        "compact", description="width of the networks; compact is half the paper's"
    )
    csi: Literal["own", "all", "snr"] = Field(
        "own", description="side information: gamma and the user's h (own), every user's h (all), gamma alone (snr)"
    )


class OrthogonalParams(LearnedParams):
    """Parameters of SemOMA."""

    overhead: Literal["same", "twice"] = Field(
        "same", description="channel uses: k in all, k/N a user (same), or k a user (twice, for two users)"
    )


class Learned(Scheme):
    """A transceiver with trained weights."""

    method: ClassVar[Method]

    def __init__(self, setting: Setting, params: LearnedParams) -> None:
        super().__init__(setting, params)
        from linksim.weights import card

        self._spec = self.model(setting, params)
        self._card = card(self._spec)

    @classmethod
    def model(cls, setting: Setting, params: Any) -> ModelSpec:
        """The model that a setting asks for. Raises LinksimError where the networks do not fit it."""
        from linksim.train.spec import ModelSpec

        link, shape = setting.link, setting.image_shape
        if link.channel == "awgn" and params.csi != "own":
            raise LinksimError("over awgn the side information is the SNR alone: leave csi out")
        symbols = cls._symbols(setting, params)
        rho = Fraction(symbols, source_size(shape))
        # There is no training over Rician fading: what was trained over Rayleigh fading has met every h.
        channel = "rayleigh" if link.channel == "rician" else link.channel
        return ModelSpec(cls.method, params.size, channel, rho, link.users, params.csi, link.power, shape)

    @classmethod
    def _symbols(cls, setting: Setting, params: Any) -> int:
        k, users = setting.channel_uses, setting.link.users
        if cls.access == "noma" or getattr(params, "overhead", "same") == "twice":
            return k
        if k % users:
            raise LinksimError(f"{k} channel uses do not divide among {users} users: take another rho")
        return k // users

    @property
    def symbols_per_user(self) -> int:
        """Complex symbols of one user."""
        return self._symbols(self.setting, self.params)

    def provenance(self) -> dict[str, str]:
        """Hash of the weights."""
        return {"weights": self._card["sha256"]}

    @cached_property
    def _model(self) -> Transceiver:
        import torch

        from linksim.weights import load

        return load(self._spec).to(self.setting.device).to(memory_format=torch.channels_last)

    def transmit(self, images: Tensor, side: SideInfo) -> Tensor:
        """See `Scheme.transmit`."""
        import torch

        from linksim.nets.transceiver import side_information

        told = side_information(side.snr_db, side.h, self._model.shape.side_dim)
        with torch.autocast(torch.device(self.setting.device).type, torch.bfloat16):
            return self._model.encode(images, told, self.powers)

    def receive(self, received: Tensor, side: SideInfo) -> Received:
        """See `Scheme.receive`."""
        import torch

        from linksim.nets.transceiver import side_information

        told = side_information(side.snr_db, side.h, self._model.shape.side_dim)
        with torch.autocast(torch.device(self.setting.device).type, torch.bfloat16):
            images = self._model.decode(self._model.received_features(received), told)
        return Received(images.float())


class SemNoma(Learned):
    """SemNOMA: users superpose, one encoder, a decoder for each user, trained for the images' error alone."""

    name: ClassVar[str] = "semnoma"
    summary: ClassVar[str] = "SemNOMA: ConvNeXt transceivers that superpose (KDD paper)"
    Params: ClassVar[type[Params]] = LearnedParams
    method: ClassVar[Method] = "semnoma"


class KdSemNoma(SemNoma):
    """KD-SemNOMA: SemNOMA taught by an orthogonal teacher through feature affinity and CrossKD (eqs. 13 to 17)."""

    name: ClassVar[str] = "kd"
    summary: ClassVar[str] = "KD-SemNOMA: SemNOMA taught by an orthogonal teacher (KDD paper)"
    method: ClassVar[Method] = "kd"


class SemOma(Learned):
    """SemOMA: each user in its own channel uses, one decoder for all; the teacher of KD-SemNOMA."""

    name: ClassVar[str] = "semoma"
    summary: ClassVar[str] = "SemOMA: the same transceivers in orthogonal channel uses (KDD paper)"
    Params: ClassVar[type[Params]] = OrthogonalParams
    access: ClassVar[Access] = "oma"
    method: ClassVar[Method] = "semoma"

    @property
    def overhead(self) -> int:
        """1, or N where every user has k channel uses."""
        return self.setting.link.users if self.params.overhead == "twice" else 1
