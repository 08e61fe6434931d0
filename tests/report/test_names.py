"""Readers know schemes by their names, and see each drawn as itself everywhere."""

from collections import Counter
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

import linksim
from baselines.klt.scheme import Klt
from linksim.errors import LinksimError
from linksim.grammar import without_weights
from linksim.refine.registry import REFINERS
from linksim.report.names import KNOWN, PALETTE, REFINED_BY, look, parse_labels, title
from linksim.schemes.registry import SCHEMES

ROOT = Path(__file__).parent.parent.parent


def test_every_scheme_and_refiner_of_linksim_has_a_title() -> None:
    for name in SCHEMES.names():
        if SCHEMES.find(name).__module__.partition(".")[0] in ("linksim", "baselines"):
            assert title(name) == KNOWN[name].title != ""
    for name in REFINERS.names():
        if REFINERS.find(name).__module__.startswith("linksim."):
            assert title(f"kd+{name}") == f"KD-SemNOMA + {REFINED_BY[name]}"
    looks = Counter(known.look for name, known in KNOWN.items() if name not in ("kd-semnoma", "semnoma+diffbir-mini"))
    assert max(looks.values()) == 1


@pytest.mark.parametrize(
    ("variant", "wanted"),
    [
        ("kdd:start=paper", "KDD-SemNOMA (start = paper)"),
        ("bpg-ldpc-qam-sic", "BPG + LDPC + QAM + SIC"),
        ("bpg-ldpc-qam-sic:mcs=qpsk-1/2,split=0.8/0.2", "BPG + LDPC + QAM + SIC (mcs = qpsk-1/2, split = 0.8/0.2)"),
        ("kdd:prior=/home/me/priors/ffhq.pt,prior_heads=64c", "KDD-SemNOMA (prior = ffhq.pt, prior heads = 64c)"),
        ("kd+ddim:start=8", "KD-SemNOMA + DDIM (start = 8)"),
        ("nobody:depth=2", "nobody (depth = 2)"),
        ("nobody+knows", "nobody + knows"),
    ],
)
def test_parameters_follow_the_name(variant: str, wanted: str) -> None:
    assert title(variant) == wanted


def test_a_plug_in_says_its_own_title() -> None:
    mine = type("Mine", (Klt,), {"name": "mine", "__module__": Klt.__module__})
    linksim.register(mine)
    try:
        assert title("mine") == "mine"
        mine.title = "My transform"  # type: ignore[attr-defined]
        assert title("mine:a=1") == "My transform (a = 1)"
        assert title("mine+cgan") == "My transform + CGAN"
    finally:
        SCHEMES.unregister("mine")


def test_labels_go_before_the_usual_names() -> None:
    labels = parse_labels("kd=Ours, v2,kd:ablation=fa=FA, CGAN=no", ["kd", "kd:ablation=fa", "kd+cgan", "CGAN"])
    assert labels == {"kd": "Ours, v2", "kd:ablation=fa": "FA", "CGAN": "no"}
    assert title("kd+cgan", labels) == "Ours, v2 + CGAN"
    assert title("kd:ablation=crosskd", labels) == "Ours, v2 (ablation = crosskd)"
    with pytest.raises(LinksimError, match="did you mean 'semnoma'"):
        parse_labels("kd=Ours,semnma=Other", ["kd", "semnoma"])


def test_variants_that_share_a_figure_of_linksims_differ_in_how_they_look() -> None:
    for path in (ROOT / "sweeps").glob("*.yaml"):
        schemes = YAML(typ="safe").load(path.read_text()).get("scheme", [])
        schemes = [schemes] if isinstance(schemes, str) else schemes
        # Trainings of one scheme are drawn alike: what they tell is how far apart they lie.
        assert len({look(name) for name in schemes}) == len({*map(without_weights, schemes)}), path.name
    tried = {look(f"kd+ddim:start={start}").colour for start in (8, 16, 24, 40, 60, 80, 120)}
    assert len(tried) == 7
    # In the figure of T' by colour alone: its curves lie close.
    starts = set(pd.read_csv(ROOT / "results" / "starts" / "table.csv")["variant"])
    assert len({look(name).colour for name in (*starts, "kd")}) == len(starts) + 1 > 4


def _seen(colour: str, matrix: tuple[tuple[float, ...], ...]) -> list[float]:
    """Linear RGB of a colour as one sees it who lacks a cone (Vienot, Brettel, Mollon 1999)."""
    linear = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in linear]
    seen = [sum(weight * value for weight, value in zip(row, linear, strict=True)) for row in matrix]
    return [max(value, 0.0) ** (1 / 2.4) for value in seen]


@pytest.mark.parametrize(
    "matrix",
    [
        ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0)),
        ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0)),
    ],
    ids=["protanopia", "deuteranopia"],
)
def test_colours_differ_for_the_colour_blind(matrix: tuple[tuple[float, ...], ...]) -> None:
    seen = {colour: _seen(colour, matrix) for colour in PALETTE}
    near = {
        (one, other): sum((a - b) ** 2 for a, b in zip(seen[one], seen[other], strict=True)) ** 0.5
        for one, other in combinations(PALETTE, 2)
    }
    assert min(near.values()) > 0.12, min(near, key=near.__getitem__)
