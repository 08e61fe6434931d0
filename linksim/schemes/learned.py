"""Schemes with trained weights: what they share, whatever their networks."""

from __future__ import annotations

from abc import abstractmethod
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field

from linksim.errors import LinksimError
from linksim.link.config import Setting, SideInfo
from linksim.link.fading import CHANNELS
from linksim.link.units import source_size
from linksim.schemes.base import Params, Received, Scheme

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from linksim.nets.network import Network
    from linksim.train.spec import ModelSpec


#: The fact of a scheme that is a column of the table: image groups of the training, warm starts included.
TRAINED = "trained_pairs"

#: Facts of a scheme behind the table's `trained_note`: the channel and the range of SNRs that its weights know.
TRAINED_CHANNEL, TRAINED_SNR = "trained_channel", "trained_snr_db"

#: Image groups that go through the networks together on a CPU: more do not fit its caches.
EVALUATED_TOGETHER = 16

#: The value of `ablation` that leaves nothing out.
NO_ABLATION = "none"

#: The ablation whose weights never saw those of another scheme.
SCRATCH = "scratch"


def trained_note(channel: str | None, snr_range: str | None, here: str, snr_db: float) -> str:
    """What a row must say of weights that were trained elsewhere than where they run; empty where there is nothing.

    Args:
        channel: that they were trained over, None where it is not known.
        snr_range: of their training, "low/high" in dB, None where it is not known.
        here: the channel that they run over.
        snr_db: the SNR that they run at.

    Example:
        >>> trained_note("rayleigh", "0/20", "rician", -5.0)
        'trained over rayleigh and at 0 to 20 dB'
        >>> trained_note("awgn", "0/20", "awgn", 20.0)
        ''
    """
    found = [f"over {channel}"] if channel not in (None, here) else []
    if snr_range is not None:
        low, high = map(float, snr_range.split("/"))
        found += [] if low <= snr_db <= high else [f"at {low:g} to {high:g} dB"]
    return f"trained {' and '.join(found)}" if found else ""


class LearnedParams(Params):
    """Parameters of a learned transceiver."""

    size: Literal["compact", "paper"] = Field(
        "compact", description="width of the networks; compact is half the paper's"
    )
    csi: Literal["own", "all", "snr"] = Field(
        "own", description="side information: gamma and the user's h (own), every user's h (all), gamma alone (snr)"
    )
    weights: str = Field(
        "auto",
        min_length=1,
        description="auto: your own, else those shipped; shipped; a model's name (linksim list weights); the folder of "
        "a run of linksim train; a file, .safetensors or best.pt",
    )


class Learned(Scheme):
    """A transceiver with trained weights.

    `linksim train --scheme NAME` trains any subclass that the registry knows.

    Class attributes:
        teacher: name of the scheme whose model, at the same symbols a user, teaches this one (eqs. 13 to 17).
        source: name of the orthogonal scheme whose model, at a share 1/N of the symbols, this one can start as
            (`linksim.train.embedding`).
        ablations: trainings of the same networks that leave something out, by the value of the parameter `ablation`
            (where there is one): what each changes in the recipe, as `linksim train --set` takes it.
    """

    teacher: ClassVar[str | None] = None
    source: ClassVar[str | None] = None
    ablations: ClassVar[Mapping[str, Mapping[str, str]]] = {}

    def __init__(self, setting: Setting, params: LearnedParams) -> None:
        super().__init__(setting, params)
        from linksim.weights import choose

        self.spec = self.model(setting, params)
        self._chosen = choose(self.spec, params.weights)

    @classmethod
    @abstractmethod
    def network(cls, spec: ModelSpec, layer_scale: float) -> Network:
        """A network with fresh weights for `spec`; residual blocks that have a layer scale begin with `layer_scale`.

        Raises LinksimError where the networks do not fit the model's images or symbols.
        """

    @classmethod
    def model(cls, setting: Setting, params: Any) -> ModelSpec:
        """The model that a setting asks for. Raises LinksimError where the networks do not fit it."""
        from linksim.train.spec import ModelSpec

        link, shape = setting.link, setting.image_shape
        cls.check_csi(link.channel, params.csi)
        symbols = cls._symbols(setting, params)
        rho = Fraction(symbols, source_size(shape))
        channel = CHANNELS.find(link.channel).trained_as or link.channel
        ablation = getattr(params, "ablation", NO_ABLATION)
        return ModelSpec(cls.name, params.size, channel, rho, link.users, params.csi, link.power, shape, ablation)

    @classmethod
    def check_csi(cls, channel: str, csi: str) -> None:
        """Raises LinksimError where there is no h to be told of, and it is asked for."""
        if not CHANNELS.find(channel).fades and csi != cls.Params.model_fields["csi"].default:
            raise LinksimError(f"over {channel} the side information is the SNR alone: leave csi out")

    @classmethod
    def _symbols(cls, setting: Setting, params: Any) -> int:
        """Complex symbols of one user. Raises LinksimError where the channel uses do not divide."""
        k, users = setting.channel_uses, setting.link.users
        if cls.access == "noma":
            return k
        if k % users:
            raise LinksimError(f"{k} channel uses do not divide among {users} users: take another rho")
        return k // users

    @property
    def symbols_per_user(self) -> int:
        """Complex symbols of one user."""
        return self._symbols(self.setting, self.params)

    def provenance(self) -> dict[str, str]:
        """Hash of the weights, the image groups of their training and of what they started from, and the precision."""
        chosen = self._chosen
        pairs = "nan" if chosen.pairs is None else str(chosen.pairs)
        found = {"weights": chosen.sha256, TRAINED: pairs, "precision": self.setting.precision}
        if chosen.channel is not None:
            found[TRAINED_CHANNEL] = chosen.channel
        if chosen.snr_db is not None:
            found[TRAINED_SNR] = "/".join(f"{snr_db:g}" for snr_db in chosen.snr_db)
        return found

    @cached_property
    def _model(self) -> Network:
        from linksim.nets.precision import laid_out

        network = cast("Network", self._chosen.network())
        return laid_out(network, self.setting.device, self.setting.precision)

    def transmit(self, images: Tensor, side: SideInfo) -> Tensor:
        """See `Scheme.transmit`."""
        from linksim.nets.network import side_information

        told = side_information(side.snr_db, side.h, self._model.side_dim)
        return self._in_parts(lambda part, of: self._model.encode(part, of, self.powers), images, told)

    def receive(self, received: Tensor, side: SideInfo) -> Received:
        """See `Scheme.receive`."""
        from linksim.nets.network import side_information

        told = side_information(side.snr_db, side.h, self._model.side_dim)
        return Received(self._in_parts(self._model.receive, received, told).clamp(0, 1))

    def _in_parts(self, network: Callable[[Tensor, Tensor], Tensor], groups: Tensor, told: Tensor) -> Tensor:
        """What a network makes of image groups, in the precision of the setting."""
        import torch

        from linksim.nets.precision import evaluated_in

        with evaluated_in(self.setting.precision, self.setting.device):
            if self.setting.device != "cpu":
                return network(groups, told)
            parts = zip(groups.split(EVALUATED_TOGETHER), told.split(EVALUATED_TOGETHER), strict=True)
            return torch.cat([network(part, of) for part, of in parts])
