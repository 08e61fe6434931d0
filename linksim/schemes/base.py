"""What a scheme is: the interface that the paper's transceivers, the baselines and every plug-in share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from linksim.errors import LinksimError
from linksim.link.channels import channel_class
from linksim.link.config import Access, Setting, SideInfo
from linksim.link.power import equal_split, user_powers

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from linksim.link.detection import Equalised


class Params(BaseModel):
    """Parameters of a scheme (`--scheme name:key=value`); each becomes a column of the table.

    Example:
        >>> class Own(Params):
        ...     span: float = 0.75
        >>> Own(span="0.5").span
        0.5
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Received:
    """What a receiver hands back.

    Args:
        images: float32 [B, N, C, H, W] in [0, 1].
        lost: bool [B, N], images of which the receiver knows that they did not arrive; None where it cannot know.
        blocks: code blocks decoded in this call.
        block_errors: code blocks of these that failed their check.
        block_clusters: (blocks, block errors) of each run of image groups that shares neither fading nor noise nor a
            code block with another run, one pair a run; they sum to the two counts above. The interval of the block
            error rate is taken over them; without them it takes every block for independent.

    >>> import torch
    >>> received = Received(torch.zeros(2, 2, 3, 32, 32), blocks=4, block_errors=1, block_clusters=((2, 1), (2, 0)))
    >>> received.block_errors / received.blocks
    0.25
    """

    images: Tensor
    lost: Tensor | None = None
    blocks: int = 0
    block_errors: int = 0
    block_clusters: Sequence[tuple[int, int]] | None = None


def check_images(images: object, shape: torch.Size, source: str) -> Tensor:
    """Images that a plug-in returned. Raises LinksimError where they are not floats of that shape, all finite."""
    import torch

    if not isinstance(images, torch.Tensor):
        raise LinksimError(f"{source} returned a {type(images).__name__} in place of a tensor of images")
    if images.shape != shape:
        raise LinksimError(f"{source} returned images of shape {list(images.shape)}, {list(shape)} is wanted")
    if not images.is_floating_point():
        raise LinksimError(f"{source} returned images of type {images.dtype}: return floats in [0, 1]")
    if not bool(images.isfinite().all()):
        raise LinksimError(f"{source} returned images with values that are not finite")
    return images


class System(ABC):
    """A row of the comparison: a scheme that sends symbols, or a reference that gives a bound.

    Class attributes:
        name: as in `--scheme` and in the table.
        summary: one line for `linksim list schemes`.
        title: what figures and printed tables call it; empty: its name.
        Params: its parameters.
        envelopes: parameter -> values whose best, by mean PSNR at each SNR, is what the value "envelope" stands for.
        csi: what of the channel the ends use, for the table's column; a parameter `csi` goes before it.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    title: ClassVar[str] = ""
    Params: ClassVar[type[Params]] = Params
    envelopes: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    csi: ClassVar[str] = "all"

    def __init__(self, setting: Setting, params: Any) -> None:
        """Raises LinksimError where the scheme cannot work in `setting`; heavy things are loaded at the first use."""
        self.setting = setting
        self.params = params

    def provenance(self) -> dict[str, str]:
        """What a result depends on beyond the sweep's own settings: weights' hashes, codec builds."""
        return {}


def _symbols_per_user(setting: Setting, access: Access) -> int:
    k = setting.channel_uses
    return k if access == "noma" else max(1, k // setting.link.users)


class Scheme(System):
    """A transmitter and a receiver.

    What the engine hands over is a copy, and what it takes is copied before it is measured: changing a tensor in place
    changes nothing but the scheme's own. What `transmit` keeps (on `self`, in a module) can be read by `receive` all
    the same. Both run in one process, so nothing here can prevent it or find out. A result is honest only where
    `receive` works from the received signal, `side`, `setting` and `params` alone, as a receiver miles away would.

    Class attributes:
        access: "noma", all users in the same channel uses, or "oma", each in its own.

    Example:
        >>> import torch
        >>> from fractions import Fraction
        >>> from linksim import LinkConfig, Setting
        >>> class Silence(Scheme):
        ...     name, summary = "silence", "sends nothing and shows grey"
        ...     def transmit(self, images, side):
        ...         return torch.zeros(*images.shape[:2], self.symbols_per_user, dtype=torch.complex64)
        ...     def receive(self, received, side):
        ...         users, shape = self.setting.link.users, self.setting.image_shape
        ...         return Received(torch.full((len(received), users, *shape), 0.5))
        >>> Silence(Setting(LinkConfig("awgn", 2), (3, 32, 32), Fraction(1, 6)), Params()).symbols_per_user
        512
    """

    access: ClassVar[Access] = "noma"

    @property
    def flat(self) -> bool:
        """Whether every user's signal meets one coefficient: one antenna, and block fading (or none)."""
        link = self.setting.link
        return link.antennas == 1 and channel_class(link.channel).block

    @property
    def group_multiple(self) -> int:
        """Image groups that share a code block; the engine hands over a multiple of it, the last run excepted."""
        return 1

    @property
    def symbols_per_user(self) -> int:
        """Channel uses in which one user sends: k where all send at once, k/N where each has its own."""
        return _symbols_per_user(self.setting, self.access)

    @property
    def overhead(self) -> int:
        """Channel uses of the system as a multiple of k; above 1 the table's `channel_uses` shows it."""
        return 1

    @property
    def split(self) -> tuple[float, ...]:
        """Each user's share of the total power (all send at once); sums to 1."""
        return equal_split(self.setting.link.users)

    @property
    def powers(self) -> tuple[float, ...]:
        """Average power of each user, by the link's convention and the scheme's split; what the audit holds it to."""
        link = self.setting.link
        return user_powers(link.power, link.users, self.access, self.split)

    def symbols_follow_from(self, snr_db: float) -> tuple[float, ...] | None:
        """What a user's symbols follow from beside its image and its place among the users: () for nothing else,
        (gamma,), or None where they follow from the channel too, or nobody knows.

        Symbols that follow from no channel can be kept for the next time that the same image is sent.
        """
        return None

    @abstractmethod
    def transmit(self, images: Tensor, side: SideInfo) -> Tensor:
        """Images float32 [B, N, C, H, W] in [0, 1] to symbols complex64 [B, N, symbols_per_user]."""

    @abstractmethod
    def receive(self, received: Tensor, side: SideInfo) -> Received:
        """The received signal back to images.

        Args:
            received: complex64 [B, M, k] ("noma") or [B, M, N, symbols_per_user] ("oma"), M antennas.
            side: what the receiver knows of the channel.
        """

    def equalise(self, received: Tensor, side: SideInfo) -> Equalised:
        """Every user's symbols and the variance of what is not theirs, by the link's detector (`--detector`).

        A scheme that works on these works with any number of antennas and over any channel.

        Args:
            received: as `receive` gets it.
            side: of the receiver.

        Raises:
            LinksimError: zero forcing with fewer antennas than users.

        Example:
            A receiver that is told its users' symbols, whatever the channel::

                found = self.equalise(received, side)
                found.symbols, found.noise_var  # complex64 [B, N, k], float32 [B, N, 1 or k]
        """
        from linksim.link.detection import equalise

        return equalise(received, side.h, self.noise(side), self.powers, self.access, self.setting.link.detector)

    def gains(self, side: SideInfo) -> Tensor:
        """a_i of `equalise(...).as_orthogonal(told_noise(side))` for this side's h, float32 [B, N].

        Both ends know it beforehand: how strong each user is heard once the detector has told it from the others.
        """
        from linksim.link.detection import gains, told_noise

        detector = self.setting.link.detector
        return gains(side.h, self.noise(side), told_noise(side), self.powers, self.access, detector)

    def noise(self, side: SideInfo) -> Tensor:
        """Variance of what a receive antenna takes for noise, float32 [B].

        That is sigma^2 and what the channel estimate misses of the users' signals.
        """
        power = sum(self.powers) if self.access == "noma" else max(self.powers)
        return side.noise_var + self.setting.link.csi_error_var * power


class Reference(System):
    """A bound: it turns images into what an ideal link would show, sends no symbols, and is drawn dashed.

    Class attributes:
        access: as of a scheme; where h changes from symbol to symbol, `side.h` has those of all k channel uses
            ("noma"), or of a user's own k / N ("oma").

    Example:
        >>> from fractions import Fraction
        >>> from linksim import LinkConfig, Setting
        >>> class Perfect(Reference):
        ...     name, summary = "perfect", "an ideal link without any limit"
        ...     def evaluate(self, images, side):
        ...         return Received(images)
        >>> Perfect(Setting(LinkConfig("awgn", 2), (3, 32, 32), Fraction(1, 6)), Params()).symbols_per_user
        512
    """

    access: ClassVar[Access] = "noma"

    @property
    def symbols_per_user(self) -> int:
        """Channel uses in which one user sends, see `Scheme`."""
        return _symbols_per_user(self.setting, self.access)

    @abstractmethod
    def evaluate(self, images: Tensor, side: SideInfo) -> Received:
        """Images float32 [B, N, C, H, W] as the bound's receiver would show them at `side`'s SNR and h."""
