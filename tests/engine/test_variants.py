"""What `--scheme` asks for, built in a setting."""

from fractions import Fraction

import pytest

from linksim.engine.variants import parse
from linksim.errors import NoWeights
from linksim.link.config import LinkConfig, Setting


def setting(users: int, rho: Fraction = Fraction(1, 6)) -> Setting:
    return Setting(LinkConfig("awgn", users), (3, 32, 32), rho)


@pytest.mark.parametrize("scheme", ["gsc", "deepjscc", "ngf"])
def test_several_users_are_told_of_the_weights_that_there_are_for_one(scheme: str) -> None:
    variant = parse(scheme)
    variant.build(setting(1))
    # Four users have a quarter of the symbols each, and for so few there are no weights.
    with pytest.raises(NoWeights, match=r"train them: .*; for one user there are: --users 1$"):
        variant.build(setting(4))


def test_nobody_is_told_of_weights_that_there_are_not() -> None:
    with pytest.raises(NoWeights) as told:
        parse("kd").build(setting(3))
    assert "--users 1" not in str(told.value)
    with pytest.raises(NoWeights) as told:
        parse("ngf").build(setting(1, Fraction(1, 3)))
    assert "for one user" not in str(told.value)
