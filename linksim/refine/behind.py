"""A scheme with a refiner behind it: `kd+ddim`."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import create_model

from linksim.errors import LinksimError
from linksim.link.config import Setting, SideInfo
from linksim.refine.base import Refiner, Steps, silent
from linksim.schemes.base import Params, Received, Scheme, System

if TYPE_CHECKING:
    from torch import Tensor


class Refined(Scheme):
    """The first stage's transmitter and receiver, and a refiner; the table has both stages' metrics.

    Class attributes:
        first_stage: the scheme.
        refiner_class: the refiner.
    """

    first_stage: ClassVar[type[Scheme]]
    refiner_class: ClassVar[type[Refiner]]

    def __init__(self, setting: Setting, params: Any) -> None:
        super().__init__(setting, params)
        self.first = self.first_stage(setting, self._part(self.first_stage.Params, params))
        self.refiner = self.refiner_class(setting, self._part(self.refiner_class.Params, params), self.first)

    @classmethod
    def _part(cls, kind: type[Params], params: Any) -> Params:
        return kind(**{key: getattr(params, key) for key in kind.model_fields})

    @classmethod
    def refiner_params(cls, params: Any) -> Params:
        """The refiner's own parameters of all."""
        return cls._part(cls.refiner_class.Params, params)

    @classmethod
    def first_params(cls, params: Any) -> Params:
        """The first stage's own parameters of all."""
        return cls._part(cls.first_stage.Params, params)

    def provenance(self) -> dict[str, str]:
        """See `System.provenance`."""
        own = {**self.refiner.provenance(), "precision": self.setting.precision}
        return self.first.provenance() | {f"{self.refiner.name} {key}": value for key, value in own.items()}

    @property
    def group_multiple(self) -> int:
        """See `Scheme`."""
        return self.first.group_multiple

    @property
    def symbols_per_user(self) -> int:
        """See `Scheme`."""
        return self.first.symbols_per_user

    @property
    def overhead(self) -> int:
        """See `Scheme`."""
        return self.first.overhead

    @property
    def split(self) -> tuple[float, ...]:
        """See `Scheme`."""
        return self.first.split

    @property
    def powers(self) -> tuple[float, ...]:
        """See `Scheme`."""
        return self.first.powers

    def symbols_follow_from(self, snr_db: float) -> tuple[float, ...] | None:
        """See `Scheme`."""
        return self.first.symbols_follow_from(snr_db)

    def transmit(self, images: Tensor, side: SideInfo) -> Tensor:
        """See `Scheme.transmit`."""
        return self.first.transmit(images, side)

    def receive(self, received: Tensor, side: SideInfo) -> Received:
        """The first stage's images."""
        return self.first.receive(received, side)

    def refine(self, received: Received, side: SideInfo, report: Steps = silent) -> Received:
        """The refined images [B, N, C, H, W]; what the first stage says of lost images and blocks stays."""
        images = self.refiner(received.images.float().clamp(0, 1), side, report)
        return replace(received, images=images)


@functools.cache
def refined(first: type[System], refiner: type[Refiner], name: str = "", summary: str = "") -> type[Refined]:
    """The class of `first` with `refiner` behind it. Raises LinksimError where the two do not go together.

    Args:
        name, summary: of a combination that has a name of its own.
    """
    name = name or f"{first.name}+{refiner.name}"
    if issubclass(first, Refined) or not issubclass(first, Scheme):
        what = "has a second stage already" if issubclass(first, Refined) else "is a bound"
        raise LinksimError(f"{name}: {first.name} {what}: a refiner stands behind a scheme")
    both = set(first.Params.model_fields) & set(refiner.Params.model_fields)
    if both:
        raise LinksimError(f"{name}: both stages have a parameter {min(both)!r}: one plug-in has to rename it")
    fields: dict[str, Any] = {
        key: (field.annotation, field)
        for part in (first.Params, refiner.Params)
        for key, field in part.model_fields.items()
    }
    params = create_model("RefinedParams", __base__=Params, **fields)
    return type(
        "Refined",
        (Refined,),
        {
            "name": name,
            "summary": summary or f"{first.summary}; then {refiner.summary}",
            "Params": params,
            "first_stage": first,
            "refiner_class": refiner,
            "envelopes": first.envelopes,
            "csi": first.csi,
            "access": first.access,
            "__module__": __name__,
        },
    )
