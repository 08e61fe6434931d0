"""Schemes with trained weights: what they share, whatever their networks."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field

from linksim.data.datasets import embedded_images
from linksim.errors import LinksimError
from linksim.link.channels import channel_class
from linksim.link.config import Setting, SideInfo
from linksim.link.units import channel_uses, source_size
from linksim.models import weights
from linksim.models.owner import Model, Owner
from linksim.models.recipe import BaseRecipe
from linksim.models.spec import NO_ABLATION, SCRATCH, ModelSpec, lineage_pairs
from linksim.schemes.base import Params, Received, Scheme
from linksim.schemes.recipe import TransceiverRecipe
from linksim.schemes.registry import SCHEMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from linksim.data.training import TrainingSet
    from linksim.models.batch import Transmission
    from linksim.models.task import Task
    from linksim.nets.network import Network
    from linksim.schemes.training import TransceiverTask


#: The fact of a scheme that is a column of the table: image groups of the training, warm starts included.
TRAINED = "trained_pairs"

#: Facts of a scheme behind the table's `trained_note`: the channel and the range of SNRs that its weights know, the
#: size of their images, where that is another, and their data set, where that is not CIFAR-10.
TRAINED_CHANNEL, TRAINED_SNR, TRAINED_IMAGES = "trained_channel", "trained_snr_db", "trained_images"
TRAINED_DATA = "trained_data"

#: Embedded image groups that a golden PSNR is of.
_GOLDEN_GROUPS = 32

#: Image groups of 32x32 that go through the networks together on a CPU: more do not fit its caches.
EVALUATED_TOGETHER = 16


def trained_note(
    channel: str | None,
    snr_range: str | None,
    here: str,
    snr_db: float,
    antennas: int = 1,
    images: str | None = None,
    data: str | None = None,
) -> str:
    """What a row must say of weights that were trained elsewhere than where they run; empty where there is nothing.

    Args:
        channel: that they were trained over, None where it is not known.
        snr_range: of their training, "low/high" in dB, None where it is not known.
        here: the channel that they run over.
        snr_db: the SNR that they run at.
        antennas: of the base station that they run at; training is with one.
        images: their size in training, where those that they run on have another.
        data: the data set of their training, where it says something.

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
    if channel is not None and antennas > 1:
        found.append("with one antenna")
    found += [f"on images of {images}"] if images is not None else []
    found += [f"on {data}"] if data is not None else []
    return f"trained {' and '.join(found)}" if found else ""


def _apart(spec: ModelSpec) -> ModelSpec:
    """A spec of users in separate channel uses: the others' h are nothing to them."""
    return replace(spec, ablation=NO_ABLATION, csi="own" if spec.csi == "all" else spec.csi)


class WeightsParams(Params):
    """Parameters of every scheme with weights; each has `size` and `csi` beside them, with values of its own."""

    weights: str = Field(
        "auto",
        min_length=1,
        description="auto: your own, else those shipped; shipped; a model's name (linksim list weights); the folder of "
        "a run of linksim train, or of its runs (--out); a file, .safetensors or best.pt",
    )
    tile: int = Field(
        1024, ge=256, le=2**20, multiple_of=64,
        description="side in pixels of the parts in which larger images go through the networks, each seen with 64 "
        "pixels around it",
    )  # fmt: skip


class LearnedParams(WeightsParams):
    """Parameters of a learned transceiver."""

    size: Literal["compact", "paper"] = Field(
        "compact",
        description="width of the networks; compact is half the paper's, a quarter and less from 128 pixels on",
    )
    csi: Literal["own", "all", "snr"] = Field(
        "own", description="side information: gamma and the user's h (own), every user's h (all), gamma alone (snr)"
    )


class Learned(Scheme, Owner):
    """A transceiver with trained weights.

    `linksim train --scheme NAME` trains any subclass that the registry knows: by default for the images' error, else as
    its own `recipe` and `training` say.

    Class attributes:
        teacher: name of the scheme whose model, at the same symbols a user, teaches this one (eqs. 13 to 17).
        source: name of the orthogonal scheme whose model, at a share 1/N of the symbols, this one can start as
            (`linksim.schemes.semnoma.embedding`).
        any_size: whether its networks are convolutions and means alone: weights then serve for images of any size that
            `network` takes.
        separate: whether the decoders can be given each user's own signal, as detection behind several antennas or over
            per-symbol fading gives it; else they need the sum of all users'.
        ablations: trainings of the same networks that leave something out, by the value of the parameter `ablation`
            (where there is one): what each changes in the recipe, as `linksim train --set` takes it.
        recipe: the kind of recipe that its training takes.
        Params: its parameters, a kind of `WeightsParams` with `size` and `csi`.
    """

    teacher: ClassVar[str | None] = None
    source: ClassVar[str | None] = None
    any_size: ClassVar[bool] = False
    separate: ClassVar[bool] = True
    bound: ClassVar[bool] = False
    ablations: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    recipe: ClassVar[type[BaseRecipe]] = TransceiverRecipe
    Params: ClassVar[type[Params]] = LearnedParams

    def __init__(self, setting: Setting, params: Any) -> None:
        super().__init__(setting, params)
        self.spec = self.model(setting, params)
        if not self.flat:
            from linksim.link.detection import check_detector

            if not self.separate:
                raise LinksimError(
                    f"{self.name} decodes all users from one signal: it needs --antennas 1 and a block-fading channel"
                )
            if self.access == "noma":
                check_detector(setting.link)
        self._chosen = weights.choose(Model(self.spec, type(self)), params.weights)

    @classmethod
    @abstractmethod
    def network(cls, spec: ModelSpec) -> Network:
        """A network with fresh weights for `spec`.

        Raises LinksimError where the networks do not fit the model's images or symbols.
        """

    @classmethod
    def training(cls) -> type[TransceiverTask]:
        """How it is trained: a class of tasks, built as `TransceiverTask` is."""
        from linksim.schemes.training import TransceiverTask

        return TransceiverTask

    @classmethod
    def model(cls, setting: Setting, params: Any) -> ModelSpec:
        """The model that a setting asks for. Raises LinksimError where the networks do not fit it."""
        link, shape = setting.link, setting.image_shape
        cls.check_csi(link.channel, params.csi)
        symbols = cls._symbols(setting, params)
        rho = Fraction(symbols, source_size(shape))
        kind = channel_class(link.channel)
        channel = kind.trained_as or kind.name
        ablation = getattr(params, "ablation", NO_ABLATION)
        return ModelSpec(cls.name, params.size, channel, rho, link.users, params.csi, link.power, shape, ablation)

    @classmethod
    def transmission(cls, spec: ModelSpec) -> Transmission:
        """How a model sends, for training and validation."""
        from linksim.models.batch import Transmission

        return Transmission(spec, cls.access)

    @classmethod
    def words(cls, spec: ModelSpec) -> list[str]:
        """See `Owner`; `--rho` is the system's."""
        words = ["train", "--scheme", spec.method, "--channel", spec.channel]
        words += ["--rho", str(spec.system_rho(cls.access)), "--size", spec.size]
        if spec.users != 2:
            words += ["--users", str(spec.users)]
        if spec.csi != cls.Params.model_fields["csi"].default:
            words += ["--csi", spec.csi]
        if spec.power != "sum":
            words += ["--power", spec.power]
        if spec.ablation != NO_ABLATION:
            words += ["--ablation", spec.ablation]
        return words

    @classmethod
    def parts(cls, spec: ModelSpec) -> dict[str, Model]:
        """Its teacher: the orthogonal model of the same symbols a user."""
        if cls.teacher is None:
            return {}
        return {"teacher": transceiver(_apart(replace(spec, method=cls.teacher)))}

    @classmethod
    def begins_as(cls, spec: ModelSpec) -> Model | None:
        """The orthogonal model that users can start as: 1/N of the symbols a user, all else the same."""
        if cls.source is None or spec.ablation == SCRATCH:
            return None
        return transceiver(_apart(replace(spec, method=cls.source, rho=spec.rho / spec.users)))

    @classmethod
    def check_images(cls, spec: ModelSpec, image_shape: tuple[int, int, int]) -> None:
        """See `Owner`."""
        if image_shape != spec.image_shape:
            cls.network(spec).serve(image_shape)
            channel_uses(spec.rho, image_shape)

    @classmethod
    def serves(cls, trained: ModelSpec, wanted: ModelSpec) -> bool:
        """See `Owner`: those that differ in the size of the images alone, of networks that take any."""
        return cls.any_size and replace(trained, image_shape=wanted.image_shape) == wanted

    @classmethod
    def changes(cls, spec: ModelSpec) -> Mapping[str, str]:
        """See `Owner`."""
        return cls.ablations.get(spec.ablation, {})

    @classmethod
    def task(
        cls, spec: ModelSpec, recipe: Any, images: TrainingSet, seed: int, device: str, start: nn.Module | None,
        frozen: Mapping[str, nn.Module] | None = None,
    ) -> Task:  # fmt: skip
        """See `Owner`."""
        frozen = weights.load_all(cls.parts(spec)) if frozen is None else frozen
        return cls.training()(cls, spec, recipe, images, seed, device, cast("Network | None", start), frozen)

    @classmethod
    def golden_psnr(cls, spec: ModelSpec, network: nn.Module) -> float:
        """Mean PSNR in dB at 10 dB on the first embedded images."""
        from linksim.nets.network import Network

        assert isinstance(network, Network)
        transmission = cls.transmission(spec)
        images = embedded_images(_GOLDEN_GROUPS * spec.users, spec.image_shape, spec.users)
        return transmission.psnr(network, images, "cpu", (10.0,))[10.0]

    @classmethod
    def check_csi(cls, channel: str, csi: str) -> None:
        """Raises LinksimError where there is no h to be told of, and it is asked for."""
        if not channel_class(channel).fades and csi != cls.Params.model_fields["csi"].default:
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
        if chosen.images is not None:
            found[TRAINED_IMAGES] = chosen.images
        if chosen.data is not None:
            found[TRAINED_DATA] = chosen.data
        return found

    def run_on(self, card: Mapping[str, Any], network: Callable[[], Network]) -> None:
        """Runs on a network that came of another model's training.

        Args:
            card: of that model.
            network: gives it.
        """
        own, pairs = " ".join(card["files"].values()), lineage_pairs(card)
        self._chosen = replace(self._chosen, sha256=own, pairs=pairs, network=network)

    @cached_property
    def loaded(self) -> Network:
        """The network with its weights, laid out for the setting's device."""
        from linksim.nets.precision import laid_out

        network = cast("Network", self._chosen.network())
        network.tile = self.params.tile
        return laid_out(network, self.setting.device, self.setting.precision)

    def symbols_follow_from(self, snr_db: float) -> tuple[float, ...] | None:
        """See `Scheme.symbols_follow_from`."""
        if self.spec.csi == "none":
            return ()
        link = self.setting.link
        steady = self.flat and not channel_class(link.channel).fades and link.csi_error_var == 0
        return (snr_db,) if steady or (self.flat and self.spec.csi == "snr") else None

    def transmit(self, images: Tensor, side: SideInfo) -> Tensor:
        """See `Scheme.transmit`."""
        if self.flat:
            told = self._told(side.snr_db, side.h_flat)
        else:
            told = self._told(*self._as_trained(side, self.gains(side)))
        return self._in_parts(lambda part, of: self.loaded.encode(part, of, self.powers), images, told)

    def receive(self, received: Tensor, side: SideInfo) -> Received:
        """See `Scheme.receive`.

        The networks hear one antenna and one coefficient a user. Over any other channel the link's detector tells the
        users apart first, and each decoder hears its user alone (`Equalised.as_orthogonal`).
        """
        return Received(self.shown(received, side).clamp(0, 1))

    def shown(self, received: Tensor, side: SideInfo) -> Tensor:
        """What the networks make of a received signal, float32 [B, N, C, H, W]; it may leave [0, 1]."""
        return self._in_parts(self.loaded.receive, *self._heard(received, side))

    def _heard(self, received: Tensor, side: SideInfo) -> tuple[Tensor, Tensor]:
        """What the networks hear, complex [B, S] or [B, N, S], and are told, float32 [B, N, D]."""
        if self.flat:
            return received[:, 0], self._told(side.snr_db, side.h_flat)
        from linksim.link.detection import told_noise

        signal, gain = self.equalise(received, side).as_orthogonal(told_noise(side))
        if not channel_class(self.spec.channel).fades:
            signal = signal / gain.clamp_min(1e-12)[..., None]
        return signal, self._told(*self._as_trained(side, gain))

    def _as_trained(self, side: SideInfo, gain: Tensor) -> tuple[Tensor, Tensor]:
        """gamma in dB, [B] or [B, N], and a coefficient a user, complex [B, N], in the terms of the training.

        The coefficient of a user that is detected is its gain; weights that know gamma alone are told the effective
        SNR.

        Args:
            side: of one end.
            gain: a_i of `Equalised.as_orthogonal`, which both ends know from h, real [B, N].
        """
        import torch

        if channel_class(self.spec.channel).fades:
            return side.snr_db, gain.to(side.h.dtype)
        return side.snr_db[:, None] + 20 * gain.clamp_min(1e-6).log10(), torch.ones_like(gain)

    def _told(self, snr_db: Tensor, h: Tensor) -> Tensor:
        from linksim.nets.network import side_information

        return side_information(snr_db, h, self.loaded.side_dim)

    def _in_parts(self, network: Callable[[Tensor, Tensor], Tensor], groups: Tensor, told: Tensor) -> Tensor:
        """What a network makes of image groups, in the precision of the setting."""
        import torch

        from linksim.nets.precision import evaluated_in

        with evaluated_in(self.setting.precision, self.setting.device):
            if self.setting.device != "cpu":
                return network(groups, told)
            _, height, width = self.setting.image_shape
            together = max(1, EVALUATED_TOGETHER * 32 * 32 // (height * width))
            parts = zip(groups.split(together), told.split(together), strict=True)
            return torch.cat([network(part, of) for part, of in parts])


def learned(name: str) -> type[Learned]:
    """The learned scheme of that name. Raises LinksimError where there is none."""
    found = SCHEMES.find(name)
    if not issubclass(found, Learned):
        raise LinksimError(f"scheme {name!r} has no weights: it is no learned scheme")
    return found


def transceiver(spec: ModelSpec) -> Model:
    """A transceiver's model with the scheme that owns it. Raises LinksimError where that is not installed."""
    return Model(spec, learned(spec.method))
