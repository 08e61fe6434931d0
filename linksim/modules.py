"""Trained networks, channels and refiners for a PyTorch loop of your own; gradients reach all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from numbers import Integral
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from linksim.devices import check_device
from linksim.engine.variants import find, parse
from linksim.errors import LinksimError, shown, unknown
from linksim.link.channels import channel_label
from linksim.link.config import (
    MAX_ANTENNAS,
    MAX_CSI_ERROR,
    MAX_DB,
    MAX_USERS,
    Access,
    Detector,
    LinkConfig,
    PowerConvention,
    Setting,
    SideInfo,
)
from linksim.link.draws import Draws, FreshDraws, KeyedDraws
from linksim.link.realisation import Realisation, realise
from linksim.link.units import off_scale, parse_rho
from linksim.models.hub import WEIGHTS, export, fitted, read
from linksim.models.owner import Model
from linksim.models.spec import CIFAR10_SHAPE, ModelSpec
from linksim.nets.network import Network
from linksim.refine.base import Refiner
from linksim.refine.behind import Refined
from linksim.schemes.learned import Learned, learned, transceiver


@dataclass(frozen=True)
class Use:
    """One use of a channel for B image groups: what it does, and what both ends know of it.

    Args:
        side: of both ends; `encode` and `receive` of a `Transceiver` take it.
        realisation: the channel's coefficients and where its noise comes from.
    """

    side: SideInfo
    realisation: Realisation

    def __call__(self, symbols: Tensor) -> Tensor:
        """The received signal.

        Args:
            symbols: complex [B, N, S].

        Returns:
            complex [B, M, S], the sum of all users with noise once at each of M antennas; [B, M, N, S] where users have
            channel uses of their own.

        Raises:
            LinksimError: no such symbols, or more of them than coefficients were drawn for.
        """
        groups, _, users, drawn = self.realisation.h.shape
        if not isinstance(symbols, Tensor) or not symbols.is_complex() or symbols.shape[:-1] != (groups, users):
            raise LinksimError(f"symbols are {_found(symbols)}: give complex64 ({groups}, {users}, S)")
        if symbols.shape[-1] > drawn > 1:
            raise LinksimError(
                f"{symbols.shape[-1]} symbols a user over a channel drawn for {drawn}: draw it for as many"
            )
        return self.realisation.through(symbols, self.side.noise_var)


class Link:
    """The channel between N users and the base station, as `linksim sweep` has it.

    Args:
        config: all but the SNR.
        access: "noma", users share their channel uses, or "oma", each has its own.
        device: torch device.

    Example:
        >>> import linksim
        >>> link = linksim.channel("rayleigh", users=2, antennas=2)
        >>> use = link.draw(groups=8, snr_db=10.0, symbols=256, seed=0)
        >>> use(torch.ones(8, 2, 256) + 0j).shape, use.side.h.shape
        (torch.Size([8, 2, 256]), torch.Size([8, 2, 2, 1]))
    """

    def __init__(self, config: LinkConfig, access: Access = "noma", device: str = "cpu") -> None:
        self.config, self.access, self.device = config, access, device

    def draw(
        self,
        groups: int | Sequence[int],
        snr_db: float | Tensor,
        symbols: int,
        seed: int | None = None,
    ) -> Use:
        """Fading and noise for one batch.

        Args:
            groups: B; with a seed, image groups by number too.
            snr_db: gamma, one for all or [B].
            symbols: S, that one user sends for an image.
            seed: of draws that are those of a sweep with this seed; None draws new ones from torch's generator.

        Raises:
            LinksimError: numbers of groups without a seed, or what is no number of them, of symbols, SNR or seed.
        """
        if isinstance(groups, Sequence) and (isinstance(groups, str | bytes) or not all(map(_is_whole, groups))):
            raise LinksimError(f"groups = {shown(groups)}: give how many, or a list of whole numbers from 0")
        if seed is not None and not (_is_whole(seed) and seed < 2**63):
            raise LinksimError(f"seed = {shown(seed)}: give a whole number from 0")
        count = _count("groups", len(groups) if isinstance(groups, Sequence) else groups)
        _count("symbols", symbols)
        try:
            gamma = torch.as_tensor(snr_db, dtype=torch.float32, device=self.device)
        except (TypeError, ValueError, RuntimeError):
            raise LinksimError(f"snr_db = {shown(snr_db)}: give a number, or one for each group") from None
        if gamma.shape not in ((), (1,), (count,)) or not bool((gamma.abs() <= MAX_DB).all()):
            raise LinksimError(
                f"snr_db = {shown(snr_db)}: give a finite number of at most {MAX_DB:g} dB, or one for each of {count} "
                "groups"
            )
        draws: Draws
        if seed is not None:
            numbers = range(groups) if isinstance(groups, int) else groups
            draws = KeyedDraws(seed, numbers, self.device)
        elif isinstance(groups, int):
            numbers = range(groups)
            draws = FreshDraws(groups, self.device)
        else:
            raise LinksimError("groups by number have draws of a seed: give seed=0, or how many groups there are")
        drawn = realise(self.config, draws, symbols, self.access)
        gamma = gamma.expand(len(numbers))
        estimate = drawn.estimate(self.config.csi_error_var)
        # What draws at random behind the link draws anew, too.
        keyed = int(torch.randint(2**62, ())) if seed is None else seed
        side = SideInfo(gamma, 10 ** (-gamma / 10), estimate, (keyed, tuple(numbers)))
        return Use(side, drawn)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def _found(value: object) -> str:
    """What a message calls what was given in place of a tensor of another type or shape."""
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _check_images(images: object, wanted: tuple[int, ...]) -> None:
    if not isinstance(images, Tensor) or not images.is_floating_point() or tuple(images.shape) != wanted:
        raise LinksimError(f"images are {_found(images)}: give float32 {wanted}, in [0, 1]")
    # A GPU would be waited for at every step.
    if images.device.type == "cpu" and (found := off_scale(images.detach())):
        raise LinksimError(f"images have {found}: they leave [0, 1] by far, or are no numbers: give float32 in [0, 1]")


def _check_side(side: object) -> None:
    if not isinstance(side, SideInfo):
        raise LinksimError(f"side is {_found(side)}: give what `draw` gives, use.side")


def _count(what: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise LinksimError(f"{what} = {shown(value)}: give a whole number from 1")
    return value


class Transceiver(nn.Module):
    """A trained transceiver: N users' encoders and the base station's decoders.

    Its weights are frozen until `requires_grad_(True)`; gradients reach what goes in either way, so that a decoder of
    your own can be trained against its encoder.

    Attributes:
        scheme: as the harness has it.
        network: with the weights.
        users, symbols, image_shape: N, S of one user, and (C, H, W).
        link: the channel that it was built for.

    Example:
        >>> import linksim
        >>> model = linksim.load_model("kd", channel="awgn", rho="1/6")
        >>> images = torch.rand(4, model.users, *model.image_shape)
        >>> use = model.link.draw(groups=4, snr_db=10.0, symbols=model.symbols, seed=0)
        >>> symbols = model.encode(images, use.side)
        >>> received = use(symbols)
        >>> symbols.shape, received.shape, model.receive(received, use.side).shape
        (torch.Size([4, 2, 512]), torch.Size([4, 1, 512]), torch.Size([4, 2, 3, 32, 32]))
    """

    def __init__(self, scheme: Learned) -> None:
        super().__init__()
        self.scheme = scheme
        self.network: Network = scheme.loaded
        link = scheme.setting.link
        self.users, self.symbols, self.image_shape = link.users, scheme.symbols_per_user, scheme.setting.image_shape
        self.link = Link(link, scheme.access, scheme.setting.device)

    def encode(self, images: Tensor, side: SideInfo) -> Tensor:
        """Images to symbols complex64 [B, N, S], of each user's power.

        Args:
            images: float32 [B, N, C, H, W] in [0, 1], of the B groups of `side`.
            side: as a `Use` has it.

        Raises:
            LinksimError: images of another shape, type or scale.
        """
        _check_side(side)
        _check_images(images, (len(side.snr_db), self.users, *self.image_shape))
        return self.scheme.transmit(images, side)

    def receive(self, received: Tensor, side: SideInfo) -> Tensor:
        """The received signal, as a `Use` gives it, to images float32 [B, N, C, H, W], which may leave [0, 1].

        Raises:
            LinksimError: a signal of another shape or type.
        """
        _check_side(side)
        users = (self.users,) if self.scheme.access == "oma" else ()
        wanted = (len(side.snr_db), side.h.shape[1], *users, self.symbols)
        if not isinstance(received, Tensor) or not received.is_complex() or tuple(received.shape) != wanted:
            raise LinksimError(f"received is {_found(received)}: give complex64 {wanted}")
        return self.scheme.shown(received, side)

    def forward(self, images: Tensor, snr_db: float | Tensor, seed: int | None = None) -> Tensor:
        """Images over a channel that is drawn for them, and back; see `encode`, `Link.draw` and `receive`."""
        if not isinstance(images, Tensor) or not images.dim():
            raise LinksimError(f"images are {_found(images)}: give float32 (B, {self.users}, C, H, W)")
        use = self.link.draw(len(images), snr_db, self.symbols, seed)
        return self.receive(use(self.encode(images, use.side)), use.side)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the network as it is now in Hugging Face's layout.

        Args:
            folder: new or empty; gets `model.safetensors` (half precision), `config.json` and `README.md`.

        Raises:
            LinksimError: there is something in the folder already.

        Example:
            >>> import linksim
            >>> linksim.load_model("semoma").save_pretrained("mine")  # doctest: +SKIP
        """
        try:
            export(self._model, self.network, _place(folder))
        except OSError as error:
            raise LinksimError(f"{shown(folder)}: {error.strerror}: give a folder that can be written") from None

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: str = "cpu") -> Transceiver:
        """A transceiver that `save_pretrained`, or `linksim card --export`, wrote, over the channel of its training.

        Args:
            folder: on this machine.
            device: torch device.

        Raises:
            LinksimError: no such folder, or weights of another network.

        Example:
            >>> Transceiver.from_pretrained("mine").users  # doctest: +SKIP
            2
        """
        place = _place(folder)
        spec, _ = read(place)
        if not isinstance(spec, ModelSpec):
            raise LinksimError(f"{folder} has {spec.name}, which is no transceiver: linksim card --import {folder}")
        fitted(transceiver(spec), place)
        system = learned(spec.method)
        known = {"size": spec.size, "csi": spec.csi, "ablation": spec.ablation, "weights": str(place / WEIGHTS)}
        params = {key: value for key, value in known.items() if key in system.Params.model_fields}
        link = _checked(replace(spec.link, users=spec.users), device)
        setting = Setting(link, spec.image_shape, spec.system_rho(system.access), device=device)
        return cls(system(setting, system.Params(**params)))

    @property
    def _model(self) -> Model:
        setting = self.scheme.setting
        return transceiver(type(self.scheme).model(setting, self.scheme.params))


def _place(folder: object) -> Path:
    if not isinstance(folder, str | Path) or "\0" in str(folder):
        raise LinksimError(f"{shown(folder)} is no path: give a folder")
    return Path(folder)


class RefinerModule(nn.Module):
    """A refiner behind a transceiver, as a function of images.

    Attributes:
        refiner: as the harness has it.

    Example:
        >>> import linksim
        >>> model = linksim.load_model("kd", channel="awgn", rho="1/6")
        >>> refine = linksim.refiner("ddim:start=8", behind=model)
        >>> use = model.link.draw(groups=1, snr_db=0.0, symbols=model.symbols, seed=0)
        >>> refine(torch.rand(1, 2, 3, 32, 32), use.side).shape
        torch.Size([1, 2, 3, 32, 32])
    """

    def __init__(self, refiner: Refiner) -> None:
        super().__init__()
        self.refiner = refiner

    def forward(self, images: Tensor, side: SideInfo) -> Tensor:
        """Images float32 [B, N, C, H, W] in [0, 1] to the same. No gradient passes through.

        Raises:
            LinksimError: images of another shape, type or scale.
        """
        _check_side(side)
        _check_images(images, (len(side.snr_db), side.h.shape[2], *self.refiner.setting.image_shape))
        with torch.no_grad():
            return self.refiner(images.clamp(0, 1), side)


def channel(
    name: str = "awgn",
    *,
    users: int = 2,
    antennas: int = 1,
    power: PowerConvention = "sum",
    access: Access = "noma",
    csi_error_var: float = 0.0,
    detector: Detector = "lmmse",
    device: str = "cpu",
) -> Link:
    """A channel for a loop of your own.

    Args:
        name: with its parameters, `rician:k_db=3`, see `linksim list channels`.
        users, antennas: N and M.
        power: "sum" or "per-ue"; whoever sends normalises (`linksim.link.power.normalise`).
        access: "noma", users share their channel uses, or "oma".
        csi_error_var: variance of the error of the channel estimate.
        detector: what tells users apart for networks that know one antenna and one coefficient.
        device: torch device.

    Raises:
        LinksimError: an unknown channel, or a number out of range.

    Example:
        >>> channel("rayleigh", users=2).draw(groups=3, snr_db=0.0, symbols=16).side.h_flat.shape
        torch.Size([3, 2])
    """
    if access not in get_args(Access):
        raise unknown("access", str(access), get_args(Access))
    return Link(_checked(LinkConfig(name, users, power, csi_error_var, antennas, detector), device), access, device)


def _checked(link: LinkConfig, device: str) -> LinkConfig:
    """A link whose channel is written the one way. Raises LinksimError for what is none."""
    check_device(device)
    if not isinstance(link.channel, str):
        raise LinksimError(f"channel = {shown(link.channel)}: give its name (linksim list channels)")
    for what, value, most in (("users", link.users, MAX_USERS), ("antennas", link.antennas, MAX_ANTENNAS)):
        if not isinstance(value, int) or not 1 <= value <= most:
            raise LinksimError(f"{what} = {shown(value)}: give a whole number, 1 to {most}")
    error = link.csi_error_var
    if isinstance(error, bool) or not isinstance(error, int | float) or not 0 <= error <= MAX_CSI_ERROR:
        raise LinksimError(f"csi_error_var = {shown(error)}: give a number, 0 to {MAX_CSI_ERROR:g}")
    for what, word, known in (("power", link.power, PowerConvention), ("detector", link.detector, Detector)):
        if word not in get_args(known):
            raise unknown(what, str(word), get_args(known))
    return replace(link, channel=channel_label(link.channel))


def load_model(
    scheme: str,
    channel: str = "awgn",
    rho: str | float | Fraction = "1/6",
    *,
    users: int = 2,
    antennas: int = 1,
    power: PowerConvention = "sum",
    detector: Detector = "lmmse",
    image_shape: tuple[int, int, int] = CIFAR10_SHAPE,
    device: str = "cpu",
) -> Transceiver:
    """A trained transceiver as a module of PyTorch.

    Args:
        scheme: with its parameters, `kd`, `deepjscc-noma:csi=own`, `kd:weights=RUN`.
        channel, users, antennas, power, detector: see `linksim.channel`.
        rho: the system's bandwidth ratio.
        image_shape: (C, H, W).
        device: torch device.

    Raises:
        LinksimError: no learned scheme, or no weights: which are there, and how to train it.

    Example:
        >>> load_model("semoma", rho="1/6").symbols
        256
    """
    if not isinstance(scheme, str):
        raise LinksimError(f"scheme = {shown(scheme)}: give its name (linksim list schemes)")
    if not isinstance(image_shape, tuple) or len(image_shape) != 3 or not all(map(_is_whole, image_shape)):
        raise LinksimError(f"image_shape = {shown(image_shape)}: give (C, H, W), like (3, 32, 32)")
    system = find(scheme.partition(":")[0])
    if issubclass(system, Refined):
        first, refiner = system.first_stage.name, system.refiner_class.name
        raise LinksimError(
            f"{shown(scheme)} has a second stage: load_model({first!r}), and refiner({refiner!r}, behind=)"
        )
    if not issubclass(system, Learned):
        raise LinksimError(f"scheme {shown(scheme)} has no weights: linksim list weights says which have")
    link = _checked(LinkConfig(channel, users, power, 0.0, antennas, detector), device)
    setting = Setting(link, image_shape, parse_rho(rho), device=device)
    return Transceiver(cast(Learned, parse(scheme).build(setting)))


def refiner(name: str, behind: Transceiver) -> RefinerModule:
    """A refiner behind a transceiver.

    Args:
        name: with its parameters, `ddim:start=40`, `cgan`, `flow:steps=5`.
        behind: the first stage.

    Raises:
        LinksimError: an unknown refiner, or one without weights behind this transceiver.

    Example:
        >>> refine = refiner("cgan", load_model("kd", rho="1/6"))
        >>> type(refine.refiner).__name__
        'Cgan'
    """
    if not isinstance(name, str):
        raise LinksimError(f"refiner = {shown(name)}: give its name (linksim list refiners)")
    if not isinstance(behind, Transceiver):
        raise LinksimError(f"behind = {shown(behind)}: give what load_model gives")
    first = behind.scheme
    text, _, more = name.partition(":")
    variant = parse(f"{first.name}+{text}:{more}" if more else f"{first.name}+{text}")
    system: Any = find(variant.name)
    params = system.Params(**dict(variant.params))
    return RefinerModule(system.refiner_class(first.setting, system.refiner_params(params), first))
