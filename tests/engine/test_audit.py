"""The audit measures, and stops who cheats."""

from fractions import Fraction
from typing import Any, ClassVar

import pytest
import torch

from linksim import LinkConfig, LinksimError, Params, Received, Scheme, Setting, SideInfo
from linksim.engine.audit import audit_symbols


class Toy(Scheme):
    """Sends what a test wants."""

    name: ClassVar[str] = "toy"
    summary: ClassVar[str] = "for tests"

    def transmit(self, images: torch.Tensor, side: SideInfo) -> torch.Tensor:
        raise NotImplementedError

    def receive(self, received: torch.Tensor, side: SideInfo) -> Received:
        raise NotImplementedError


class OrthogonalToy(Toy):
    """The same with users apart."""

    access = "oma"


def make(kind: type[Scheme] = Toy, power: Any = "sum", users: int = 2) -> Scheme:
    return kind(Setting(LinkConfig("awgn", users, power), (3, 32, 32), Fraction(1, 6)), Params())


def constant(power: float, uses: int = 512, users: int = 2) -> torch.Tensor:
    return torch.full((4, users, uses), power**0.5, dtype=torch.complex64)


def test_power_and_channel_uses_are_those_that_were_sent() -> None:
    assert audit_symbols(make(), constant(0.5), 4) == (pytest.approx(1.0), 512)
    assert audit_symbols(make(), constant(0.25, 300), 4) == (pytest.approx(0.5), 300)
    assert audit_symbols(make(power="per-ue"), constant(1.0), 4) == (pytest.approx(2.0), 512)
    assert audit_symbols(make(OrthogonalToy), constant(1.0, 256), 4) == (pytest.approx(1.0), 512)


@pytest.mark.parametrize(
    ("scheme", "symbols", "words"),
    [
        (make(), constant(0.51), "normalise"),
        (make(power="per-ue"), constant(1.01), "normalise"),
        (make(OrthogonalToy), constant(1.01, 256), "normalise"),
        (make(), constant(0.5, 513), "channel uses"),
        (make(OrthogonalToy), constant(1.0, 257), "channel uses"),
        (make(), constant(0.5).real, "complex"),
        (make(), constant(0.5, users=3), "shape"),
        (make(), constant(0.5)[0], "shape"),
        (make(), constant(0.5) * float("nan"), "finite"),
    ],
)
def test_who_exceeds_power_or_bandwidth_is_stopped(scheme: Scheme, symbols: torch.Tensor, words: str) -> None:
    with pytest.raises(LinksimError, match=words):
        audit_symbols(scheme, symbols, 4)


def test_one_loud_codeword_among_silent_ones_is_found() -> None:
    symbols = torch.zeros(64, 2, 512, dtype=torch.complex64)
    symbols[13, 1] = 1.0
    with pytest.raises(LinksimError, match="user 1"):
        audit_symbols(make(), symbols, len(symbols))


def test_power_may_not_be_moved_from_one_user_to_another_beyond_the_split() -> None:
    symbols = constant(0.5)
    symbols[:, 0] *= 1.2
    symbols[:, 1] *= 0.5
    with pytest.raises(LinksimError, match="user 0"):
        audit_symbols(make(), symbols, len(symbols))


class Claims(Toy):
    """Claims more than the link allows."""

    claims: ClassVar[dict[str, Any]] = {}

    def __getattribute__(self, name: str) -> Any:
        claims = type(self).claims
        return claims[name] if name in claims else super().__getattribute__(name)


@pytest.mark.parametrize(
    ("claims", "symbols", "words"),
    [
        ({"split": (0.8, 0.8)}, constant(0.5), "one share a user"),
        ({"split": (1.0,)}, constant(0.5), "one share a user"),
        ({"split": (float("nan"), 0.5)}, constant(0.5), "one share a user"),
        ({"split": (1.5, -0.5)}, constant(0.5), "one share a user"),
        ({"powers": (100.0, 100.0)}, constant(100.0), "normalise"),
        ({"overhead": 100}, constant(0.5, 51200), "overhead"),
        ({"overhead": float("nan")}, constant(0.5, 51200), "overhead"),
        ({"access": "tdma"}, constant(0.5), "access"),
        ({}, constant(0.5)[:1], "4 groups"),
    ],
)
def test_what_a_scheme_claims_never_widens_what_the_link_allows(
    claims: dict[str, Any], symbols: torch.Tensor, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Claims, "claims", claims)
    with pytest.raises(LinksimError, match=words):
        audit_symbols(make(Claims), symbols, 4)
