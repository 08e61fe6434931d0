"""DeepJSCC in the harness."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from linksim.schemes.base import Params
from linksim.schemes.orthogonal import Orthogonal, OrthogonalParams

if TYPE_CHECKING:
    from linksim.models.spec import ModelSpec
    from linksim.nets.network import Network


class DeepJsccParams(OrthogonalParams):
    """Parameters of DeepJSCC."""

    size: Literal["paper"] = Field("paper", description="width of the networks: as published, 0.16 M parameters")


class DeepJscc(Orthogonal):
    """DeepJSCC: five convolutions to the channel and five back; about as many operations as NGF."""

    name: ClassVar[str] = "deepjscc"
    summary: ClassVar[str] = "DeepJSCC: convolutions of one user (Bourtsoulatze et al., 2019)"
    Params: ClassVar[type[Params]] = DeepJsccParams

    @classmethod
    def network(cls, spec: ModelSpec) -> Network:
        """See `Learned.network`."""
        from baselines.deepjscc.network import STRIDE, ConvNetwork
        from linksim.nets.orthogonal import maps_of

        maps = maps_of(spec.symbols, spec.image_shape, STRIDE)
        network = ConvNetwork(spec.image_shape, maps, spec.side_dim, spec.csi == "snr")
        return cls.equalising(network, spec)
