"""How a figure or a printed table calls a scheme, and how it draws it: the same everywhere.

linksim's own schemes stand in `KNOWN`. A plug-in's is called by its class attribute `title`, else by its name, and is
drawn as its name alone decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import NamedTuple

from linksim.errors import LinksimError, shown, unknown
from linksim.grammar import without_weights
from linksim.refine.registry import REFINERS
from linksim.schemes.registry import SCHEMES

#: What the label of a scheme's first stage ends with, where a refined one is drawn too.
FIRST_STAGE = ", first stage"

#: Colours that the colour-blind tell apart, dark enough for lines on white: Okabe and Ito's without yellow, and three.
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, BROWN, GREY, INDIGO = PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#5C3A12", "#585858", "#332288",
)  # fmt: skip


class Look(NamedTuple):
    """How a curve is drawn.

    Args:
        colour: of line and marker, `#rrggbb`.
        marker: matplotlib's sign for it.
        filled: whether the marker is full or has its outline alone.
    """

    colour: str
    marker: str
    filled: bool = True


class Known(NamedTuple):
    """A scheme, a variant or a refined scheme of linksim's own; without a title it is put together from its parts."""

    title: str
    look: Look


#: Schemes, variants and refined schemes by what `--scheme` calls them.
KNOWN = {
    "kd": Known("KD-SemNOMA", Look(BLUE, "o")),
    "kd-semnoma": Known("KD-SemNOMA", Look(BLUE, "o")),
    "kdd": Known("KDD-SemNOMA", Look(VERMILION, "*")),
    "kdd:start=paper": Known("", Look(VERMILION, "*", False)),
    "semnoma": Known("SemNOMA", Look(ORANGE, "s")),
    "semnoma:ablation=scratch": Known("", Look(ORANGE, "s", False)),
    "semoma": Known("SemOMA", Look(PURPLE, "D")),
    "semoma:overhead=twice": Known("", Look(PURPLE, "D", False)),
    "deepjscc-noma": Known("DeepJSCC-NOMA", Look(GREEN, "^")),
    "deepjscc-noma:csi=own": Known("", Look(GREEN, "^", False)),
    "deepjscc": Known("DeepJSCC", Look(SKY, "v")),
    "gsc": Known("GSC", Look(VERMILION, "o")),
    "mu-gsc": Known("MU-GSC", Look(VERMILION, "o", False)),
    "ngf": Known("NGF", Look(BLUE, "s")),
    "mu-ngf": Known("MU-NGF", Look(BLUE, "s", False)),
    "klt": Known("KLT", Look(BROWN, "<")),
    "bpg-ldpc-qam-sic": Known("BPG + LDPC + QAM + SIC", Look(BLACK, "v")),
    "bpg-ldpc-qam-sic:mcs=envelope": Known("BPG + LDPC + QAM + SIC (best MCS)", Look(BLACK, "v", False)),
    "jpeg-ldpc-qam": Known("JPEG + LDPC + QAM", Look(GREY, ">")),
    "jpeg-ldpc-qam:mcs=envelope": Known("JPEG + LDPC + QAM (best MCS)", Look(GREY, ">", False)),
    "bpg-capacity": Known("BPG + capacity", Look(BLACK, "d")),
    "bpg-capacity-oma": Known("BPG + capacity (OMA)", Look(SKY, "d", False)),
    "kd+ddim": Known("", Look(VERMILION, "D")),
    "kd+ddim:start=20": Known("", Look(SKY, "P")),
    "kd+ddim:start=40": Known("", Look(GREEN, "X")),
    "kd+ddim:start=60": Known("", Look(ORANGE, "p")),
    "kd+ddim:start=90": Known("", Look(VERMILION, "h")),
    "kd+ddim:start=120": Known("", Look(INDIGO, "P")),
    "kd+cgan": Known("", Look(GREEN, "D")),
    "kd+flow": Known("", Look(SKY, "D")),
    "semnoma+diffbir": Known("", Look(INDIGO, "^")),
    "semnoma+diffbir-mini": Known("", Look(INDIGO, "^")),
    "deepjscc+sft": Known("", Look(SKY, "v", False)),
}

#: Refiners, behind the `+`.
REFINED_BY = {
    "cgan": "CGAN", "ddim": "DDIM", "diffbir": "DiffBIR", "diffbir-mini": "DiffBIR-mini", "flow": "Flow", "sft": "SFT",
}  # fmt: skip

#: Channels and data sets.
SETTINGS = {"awgn": "AWGN", "rayleigh": "Rayleigh fading", "rician": "Rician fading", "cifar10": "CIFAR-10"}

#: Markers of what is not in `KNOWN`: nothing there has them.
_OTHERS = ("P", "X", "p", "h")

#: With it the variants that share a figure of linksim's own sweeps differ in colour.
_SALT = "3166 "


def look(variant: str) -> Look:
    """How a variant is drawn, by its name alone; trainings of one scheme alike.

    Args:
        variant: as in the table's column: `name:key=value,...`.

    Example:
        >>> look("kd"), look("kd") == look("my-scheme")
        (Look(colour='#0072B2', marker='o', filled=True), False)
    """
    variant = without_weights(variant)
    if variant in KNOWN:
        return KNOWN[variant].look
    colour, marker, filled, *_ = sha256(f"{_SALT}{variant}".encode()).digest()
    return Look(PALETTE[colour % len(PALETTE)], _OTHERS[marker % len(_OTHERS)], filled % 2 == 0)


def title(variant: str, labels: Mapping[str, str] | None = None) -> str:
    """What a reader knows a variant by.

    Args:
        variant: as in the table's column: `name:key=value,...`, `first+refiner:...`.
        labels: names to take in place of the usual ones, of variants, schemes or refiners (`parse_labels`).

    Example:
        >>> title("kdd:start=paper"), title("semnoma+diffbir-mini"), title("kd:ablation=fa", {"kd": "Ours"})
        ('KDD-SemNOMA (start = paper)', 'SemNOMA + DiffBIR-mini', 'Ours (ablation = fa)')
    """
    labels = labels or {}
    name, _, params = variant.partition(":")
    if variant in labels:
        return labels[variant]
    if variant in KNOWN and KNOWN[variant].title and name not in labels:
        return KNOWN[variant].title
    first, plus, refiner = name.partition("+")
    if name in labels or (name in KNOWN and KNOWN[name].title):
        base = labels.get(name) or KNOWN[name].title
    elif plus and name not in SCHEMES:
        base = f"{title(first, labels)} + {labels.get(refiner) or REFINED_BY.get(refiner) or _own(refiner, REFINERS)}"
    else:
        base = _own(name, SCHEMES)
    given = ", ".join(_param(part) for part in params.split(",") if part)
    return f"{base} ({given})" if given else base


def _own(name: str, registry: Mapping[str, type]) -> str:
    """The `title` of a plug-in's class, where it is installed and has one."""
    with suppress(LinksimError, KeyError):
        own = getattr(registry[name], "title", None)
        if isinstance(own, str) and own:
            return own
    return name


def _param(text: str) -> str:
    key, _, value = text.partition("=")
    # Of a file its name, unlike of `qpsk-1/2` and `0.8/0.2`: where it lies is nobody else's.
    path = re.fullmatch(r".*/([^/]*[A-Za-z][^/]*)", value)
    return f"{key.replace('_', ' ')} = {path[1] if path else value}"


def parse_labels(text: str, variants: Iterable[str]) -> dict[str, str]:
    """Names to take in place of the usual ones, from `kd=Ours,semoma=OMA`; a name may hold commas.

    Args:
        text: as on the command line.
        variants: those of the table; each, its scheme and its refiner can be named.

    Raises:
        LinksimError: no `=`, an unknown variant or scheme, an empty name.

    Example:
        >>> parse_labels("kd=Ours, small,kd:ablation=fa=FA", ["kd", "kd:ablation=fa"])
        {'kd': 'Ours, small', 'kd:ablation=fa': 'FA'}
    """
    if not text.isprintable():
        raise LinksimError("--labels: write printable characters")
    names: set[str] = set()
    for variant in variants:
        name = variant.partition(":")[0]
        names |= {variant, name, *name.split("+")}
    known = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    starts = list(re.finditer(rf"(?:^|,)\s*({known})=", text))
    if not starts or starts[0].start() != 0:
        if "=" not in text:
            raise LinksimError("--labels: write name=label,name=label, like kd=Ours")
        raise unknown("scheme or variant in --labels", text.rpartition("=")[0] or text, names)
    ends = [start.start() for start in starts[1:]] + [len(text)]
    found: dict[str, str] = {}
    for start, end in zip(starts, ends, strict=True):
        label = " ".join(text[start.end() : end].split())
        if not label or len(label) > _LONGEST or label.startswith("_") or not _can_be_set(label):
            raise LinksimError(
                f"--labels: {start[1]} needs a label of 1 to {_LONGEST} characters, without _ before it; formulas "
                "stand between two $"
            )
        if start[1] in found or label in found.values():
            raise LinksimError(f"--labels: {start[1]} or {shown(label)} is given twice: tell curves apart")
        if re.search(r",[^,=]+=", label):
            raise unknown("scheme or variant in --labels", label.rpartition(",")[2].partition("=")[0], names)
        found[start[1]] = label
    return found


def _can_be_set(label: str) -> bool:
    """Whether matplotlib's mathtext reads the formulas of a label."""
    if "$" not in label:
        return True
    from matplotlib.mathtext import MathTextParser

    try:
        MathTextParser("path").parse(label)
    except ValueError:
        return False
    return label.count("$") % 2 == 0


#: Characters of a label at the most.
_LONGEST = 80
