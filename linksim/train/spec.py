"""What a trained model is: everything that decides which weights fit where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Literal

import torch

from linksim.link.config import Access, LinkConfig, PowerConvention
from linksim.link.power import equal_split, user_powers
from linksim.nets.codec import Size, codec_shape
from linksim.nets.transceiver import Transceiver

Method = Literal["semoma", "semnoma", "kd"]


@dataclass(frozen=True)
class ModelSpec:
    """One set of weights.

    Args:
        method: "semoma" (users apart, one decoder; also the teacher), "semnoma", or "kd" (SemNOMA taught by a teacher).
        size: "paper" or "compact", half its widths.
        channel: fading it was trained on.
        rho: channel uses over which ONE user's image spreads, over C*H*W: the system's for the two that superpose.
        users: N.
        csi: side information: "snr", gamma alone; "own", gamma and the user's own h; "all", gamma and every h.
        power: convention of the users' powers.
        image_shape: (C, H, W).
    """

    method: Method
    size: Size
    channel: str
    rho: Fraction
    users: int = 2
    csi: str = "own"
    power: PowerConvention = "sum"
    image_shape: tuple[int, int, int] = (3, 32, 32)

    @property
    def access(self) -> Access:
        """Whether the users superpose."""
        return "oma" if self.method == "semoma" else "noma"

    @property
    def symbols(self) -> int:
        """Complex symbols of one user."""
        channels, height, width = self.image_shape
        return int(self.rho * channels * height * width)

    @property
    def powers(self) -> tuple[float, ...]:
        """Power of each user over its own symbols."""
        return user_powers(self.power, self.users, self.access, equal_split(self.users))

    @property
    def side_dim(self) -> int:
        """D: over AWGN there is nothing but gamma to tell."""
        return 1 if self.channel == "awgn" or self.csi == "snr" else {"own": 3, "all": 1 + 2 * self.users}[self.csi]

    @property
    def name(self) -> str:
        """File name of the weights."""
        ratio = f"{self.rho.numerator}-{self.rho.denominator}"
        words = [self.method, self.channel, ratio, f"n{self.users}", self.csi, self.power]
        return "_".join([*words, f"{self.image_shape[1]}px", self.size])

    @property
    def command(self) -> str:
        """The command that trains it."""
        words = f"linksim train --scheme {self.method} --channel {self.channel} --rho {self.rho} --size {self.size}"
        if self.users != 2:
            words += f" --users {self.users}"
        if self.csi != "own":
            words += f" --csi {self.csi}"
        if self.power != "sum":
            words += f" --power {self.power}"
        return f"{words} --budget 40m"

    @property
    def link(self) -> LinkConfig:
        """The link that it is trained on."""
        return LinkConfig(self.channel, self.users, self.power)

    def build(self, layer_scale: float = 1e-6) -> Transceiver:
        """A network with fresh weights."""
        from dataclasses import replace

        shape = codec_shape(self.image_shape, self.symbols, self.side_dim, self.size)
        return Transceiver(replace(shape, layer_scale=layer_scale), self.users, shared_decoder=self.access == "oma")

    def to_json(self) -> dict[str, Any]:
        """Plain values for a card."""
        return {**asdict(self), "rho": str(self.rho), "image_shape": list(self.image_shape)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ModelSpec:
        """The inverse of `to_json`."""
        return cls(**{**values, "rho": Fraction(values["rho"]), "image_shape": tuple(values["image_shape"])})


def warm_start(model: Transceiver, source: Transceiver) -> None:
    """Copies what `source` has learned into `model`.

    Where they differ in M, the maps that both have are taken, half of them from the real and half from the imaginary
    part; side information that `source` did not know starts without influence; a shared decoder becomes every user's.
    """
    learned = source.state_dict()
    own = model.state_dict()
    for name, value in own.items():
        origin = name
        if name.startswith("decoders.") and source.shared_decoder:
            origin = "decoders.0." + name.split(".", 2)[2]
        if origin in learned:
            own[name] = _fit(learned[origin], value)
    model.load_state_dict(own)


def _fit(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if source.shape == target.shape:
        return source.clone()
    if source.dim() != target.dim():
        return target
    fitted = source
    for axis, (have, want) in enumerate(zip(source.shape, target.shape, strict=True)):
        if have == want:
            continue
        if source.dim() == 2 and axis == 1:
            fitted = torch.cat(
                [fitted[:, : min(have, want)], fitted.new_zeros(len(fitted), max(want - have, 0))], dim=1
            )
            continue
        if want > have:
            return target
        half = torch.arange(want // 2)
        fitted = fitted.index_select(axis, torch.cat([half, have // 2 + half]))
    return fitted
