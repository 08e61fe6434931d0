"""BPG at capacity: what a separation-based scheme could show with ideal codes and rate adaptation to every fade."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from baselines.codecs.select import controller
from linksim import Params, Received, Reference, Setting, SideInfo
from linksim.link.config import Access
from linksim.link.power import parse_split, user_powers

if TYPE_CHECKING:
    from torch import Tensor


class BoundParams(Params):
    """Parameters of the bounds."""

    codec: Literal["bpg", "jpeg"] = Field("bpg", description="source codec")
    count: Literal["file", "slice", "scan"] = Field(
        "file", description="bytes counted: the whole file, a BPG's slice payload alone, or a JPEG's scan alone"
    )


class JointBoundParams(BoundParams):
    """Parameters of the bound with all users at once."""

    split: str = Field("equal", description="users' shares of the power: equal, 0.8/0.2 or 4/1, sic")


class _CapacityBound(Reference):
    """BPG at the largest size that the rates of ideal codes carry; no checksum, no code block, no loss."""

    @abstractmethod
    def rates(self, gains: NDArray[np.complex128]) -> NDArray[np.float64]:
        """Bits per channel use of the system for each user, [B, N], from h_i sqrt(p_i) / sigma [B, M, N, T]."""

    @property
    def split(self) -> tuple[float, ...]:
        """Shares of the total power where all send at once."""
        return parse_split(getattr(self.params, "split", "equal"), self.setting.link.users)

    def __init__(self, setting: Setting, params: BoundParams) -> None:
        super().__init__(setting, params)
        link = setting.link
        self._powers = np.array(user_powers(link.power, link.users, self.access, self.split))
        self._controller = controller(params.codec, params.count, "ladder")

    def provenance(self) -> dict[str, str]:
        """Codec build."""
        return {"codec": self._controller.codec.settings}

    def evaluate(self, images: Tensor, side: SideInfo) -> Received:
        """See `Reference.evaluate`."""
        from baselines.codecs.pixels import show, to_pixels

        power = side.h.abs().square().double().cpu().numpy() * self._powers[:, None]
        snr = power / side.noise_var.double().cpu().numpy()[:, None, None, None]
        rates = self.rates(np.sqrt(snr) * np.exp(1j * np.angle(side.h.cpu().numpy())))
        # The margin keeps a rate that is a whole number of bytes from being rounded below it.
        budget = np.floor(rates * self.setting.channel_uses / 8 + 1e-9).astype(np.int64)
        pixels = to_pixels(images)
        encodings = self._controller.fit(pixels.reshape(-1, *pixels.shape[2:]), budget.ravel())
        streams = [None if encoding is None else encoding.stream for encoding in encodings]
        shown, lost = show(streams, self._controller, images, self.setting.train_mean)
        return Received(shown, lost)


class BpgCapacity(_CapacityBound):
    """BPG over the multiple-access channel with joint decoding at its max-min fair point."""

    name: ClassVar[str] = "bpg-capacity"
    summary: ClassVar[str] = "bound: BPG at the max-min fair rates of ideal codes with joint decoding"
    Params: ClassVar[type[Params]] = JointBoundParams
    access: ClassVar[Access] = "noma"

    def rates(self, gains: NDArray[np.complex128]) -> NDArray[np.float64]:
        """See `max_min_rates`."""
        from baselines.bpg_capacity.region import max_min_rates, subset_bounds

        return max_min_rates(subset_bounds(gains))


class BpgCapacityOma(_CapacityBound):
    """BPG over orthogonal channel uses, 1/N of them a user, at the rate of an ideal code."""

    name: ClassVar[str] = "bpg-capacity-oma"
    summary: ClassVar[str] = "bound: BPG at the rates of ideal codes, users in orthogonal channel uses"
    Params: ClassVar[type[Params]] = BoundParams
    access: ClassVar[Access] = "oma"

    def rates(self, gains: NDArray[np.complex128]) -> NDArray[np.float64]:
        """See `orthogonal_rates`."""
        from baselines.bpg_capacity.region import orthogonal_rates

        return orthogonal_rates(gains)
