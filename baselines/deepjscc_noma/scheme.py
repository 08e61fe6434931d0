"""DeepJSCC-NOMA in the harness."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from linksim.errors import LinksimError
from linksim.schemes.base import Params
from linksim.schemes.learned import Learned, LearnedParams

if TYPE_CHECKING:
    from linksim.models.spec import ModelSpec
    from linksim.nets.network import Network

_FILTERS = {"paper": 256, "compact": 128}


class DeepJsccNomaParams(LearnedParams):
    """Parameters of DeepJSCC-NOMA."""

    csi: Literal["snr", "own"] = Field(
        "snr",
        description="side information: gamma alone as published (snr), or gamma and the users' h as SemNOMA has (own)",
    )


class DeepJsccNoma(Learned):
    """DeepJSCC-NOMA: residual networks that superpose; one decoder shows the images of all users.

    Layers and counts are the baseline's. Some biases begin elsewhere (masks nearly open, images grey), which shortens
    the start of training many times over.
    """

    name: ClassVar[str] = "deepjscc-noma"
    summary: ClassVar[str] = "DeepJSCC-NOMA: residual networks that superpose, one decoder (Yilmaz et al., 2023)"
    Params: ClassVar[type[Params]] = DeepJsccNomaParams
    any_size: ClassVar[bool] = True
    separate: ClassVar[bool] = False

    @classmethod
    def network(cls, spec: ModelSpec) -> Network:
        """See `Learned.network`."""
        from baselines.deepjscc_noma.network import DeepJsccNetwork

        colours, height, width = spec.image_shape
        maps, left = divmod(2 * spec.symbols * 16, height * width)
        if height % 4 or width % 4 or left or maps < 2 or maps % 2:
            raise LinksimError(
                f"{spec.symbols} symbols of a {height}x{width} image give no even number of feature maps of a quarter "
                f"of its sides: take a rho that is a multiple of 1/{16 * colours}"
            )
        return DeepJsccNetwork(spec.image_shape, spec.users, maps, spec.side_dim, _FILTERS[spec.size])
