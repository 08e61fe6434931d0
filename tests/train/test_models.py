"""`--rho` is the system's everywhere, and a model's name has the ratio of one user's symbols."""

import re
from fractions import Fraction

import pytest

from linksim import LinksimError
from linksim.cli import main
from linksim.models import weights
from linksim.models.spec import ModelSpec
from linksim.train.models import asked_model, model_of_card, with_system_rho


@pytest.mark.parametrize(
    ("scheme", "rho", "users", "own"),
    [("semoma", "1/6", 2, "1/12"), ("semoma", "1/4", 4, "1/16"), ("semnoma", "1/6", 2, "1/6"), ("kd", "1/4", 4, "1/4")],
)
def test_users_that_do_not_superpose_share_the_systems_rho(scheme: str, rho: str, users: int, own: str) -> None:
    model = asked_model(scheme, "awgn", rho, "compact", users, None, "sum")
    assert isinstance(model.spec, ModelSpec)
    assert model.spec.rho == Fraction(own)
    assert f"--rho {rho} " in model.command
    # The command asks for the same model again.
    words = dict(zip(model.words[1::2], model.words[2::2], strict=True))
    assert asked_model(words["--scheme"], "awgn", words["--rho"], "compact", users, None, "sum") == model


def test_a_superposing_model_starts_as_the_orthogonal_one_of_the_same_rho() -> None:
    source = asked_model("semnoma", "awgn", "1/6", "compact", 2, None, "sum").begins_as
    assert source == asked_model("semoma", "awgn", "1/6", "compact", 2, None, "sum")


def test_channel_uses_that_do_not_divide_among_the_users_are_refused() -> None:
    with pytest.raises(LinksimError, match="512 channel uses do not divide among 3 users"):
        asked_model("semoma", "awgn", "1/6", "compact", 3, None, "sum")
    with pytest.raises(LinksimError, match="take a rho that is a multiple of 1/48"):
        asked_model("semoma", "awgn", "1/24", "compact", 2, None, "sum").owner.network(
            ModelSpec("semoma", "compact", "awgn", Fraction(1, 64))
        )


@pytest.mark.parametrize(
    ("name", "before", "now"),
    [
        ("semoma_awgn_1-12_n2_own_sum_32px_compact", "1/12", "1/6"),
        ("semoma_awgn_1-12_n2_own_sum_32px_compact", "1/6", "1/6"),
        ("kd_awgn_1-6_n2_own_sum_32px_compact", "1/6", "1/6"),
        ("cgan_semoma_rayleigh_1-3_n2_own_sum_32px_compact", "1/3", "2/3"),
        ("prior_cifar10_32px_small", "1/3", "1/3"),
    ],
)
def test_commands_of_before_are_told_in_todays_terms(name: str, before: str, now: str) -> None:
    told = with_system_rho(f"linksim train --rho {before} --steps 1", name)
    assert told == f"linksim train --rho {now} --steps 1"


def test_cards_of_shipped_weights_print_the_systems_rho(capsys: pytest.CaptureFixture[str]) -> None:
    for name, card in weights.cards().items():
        model = model_of_card(card)
        assert main(["card", name]) == 0
        shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
        assert shown["command"].startswith(" ".join(["linksim", *model.words]))
        for key, part in model.parts.items():
            behind = re.split(r"[;:] ", shown["behind"])
            assert (part.name if key == part.name else f"{key} {part.name}") in behind
        if card.get("embedded"):
            embedded = card["pairs"] - card["steps"] * card["settings"]["batch"]
            assert f"pairs ({embedded} of them in the embedding)" in shown["trained"]
