"""What a trained model is: everything that decides which weights fit where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, cast

from linksim.link.config import Access, LinkConfig, PowerConvention
from linksim.link.power import equal_split, user_powers
from linksim.schemes.registry import find

if TYPE_CHECKING:
    from linksim.nets.network import Network
    from linksim.schemes.learned import Learned


@dataclass(frozen=True)
class ModelSpec:
    """One set of weights.

    Args:
        method: name of the scheme, a `Learned`.
        size: "paper" or "compact", half its widths.
        channel: fading it was trained on.
        rho: channel uses over which ONE user's image spreads, over C*H*W: the system's for the two that superpose.
        users: N.
        csi: side information: "snr", gamma alone; "own", gamma and the user's own h; "all", gamma and every h.
        power: convention of the users' powers.
        image_shape: (C, H, W).
    """

    method: str
    size: Literal["compact", "paper"]
    channel: str
    rho: Fraction
    users: int = 2
    csi: str = "own"
    power: PowerConvention = "sum"
    image_shape: tuple[int, int, int] = (3, 32, 32)

    @property
    def scheme(self) -> type[Learned]:
        """The scheme's class."""
        return cast("type[Learned]", find(self.method))

    @property
    def teacher(self) -> ModelSpec | None:
        """The model that teaches this one: the same symbols a user."""
        return replace(self, method=self.scheme.teacher) if self.scheme.teacher else None

    @property
    def access(self) -> Access:
        """Whether the users superpose."""
        return self.scheme.access

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
    def words(self) -> list[str]:
        """The words of `linksim` that ask for it, all but budget and recipe."""
        words = ["train", "--scheme", self.method, "--channel", self.channel, "--rho", str(self.rho)]
        words += ["--size", self.size]
        if self.users != 2:
            words += ["--users", str(self.users)]
        if self.csi != self.scheme.Params.model_fields["csi"].default:
            words += ["--csi", self.csi]
        if self.power != "sum":
            words += ["--power", self.power]
        return words

    @property
    def command(self) -> str:
        """The command that trains it."""
        return " ".join(["linksim", *self.words, "--budget", "40m"])

    @property
    def link(self) -> LinkConfig:
        """The link that it is trained on."""
        return LinkConfig(self.channel, self.users, self.power)

    def build(self, layer_scale: float = 1e-6) -> Network:
        """A network with fresh weights. Raises LinksimError where it does not fit the images or the symbols."""
        return self.scheme.network(self, layer_scale)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a card."""
        return {**asdict(self), "rho": str(self.rho), "image_shape": list(self.image_shape)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ModelSpec:
        """The inverse of `to_json`."""
        return cls(**{**values, "rho": Fraction(values["rho"]), "image_shape": tuple(values["image_shape"])})
