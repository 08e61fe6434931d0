"""A sweep as one typed value: the command line, a sweep file and Python all make this."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML, CollectionNode
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import Node

from linksim.data.images import ImageSize, parse_size, size_of
from linksim.engine.variants import Variant, each_once, find, parse
from linksim.errors import LinksimError, said, shown, unknown
from linksim.grammar import split_list
from linksim.link.channels import channel_label
from linksim.link.config import (
    MAX_ANTENNAS,
    MAX_CSI_ERROR,
    MAX_DB,
    MAX_USERS,
    Detector,
    LinkConfig,
    PowerConvention,
    Precision,
)
from linksim.link.units import parse_rho
from linksim.metrics import METRICS
from linksim.paths import shipped
from linksim.refine.behind import Refined

#: Raised by hand whenever the same settings give other numbers; folders of another version are refused.
RESULTS_VERSION = 2

#: SNR points of a sweep, at the most.
MAX_POINTS = 10_000

#: Groups that `until` evaluates in any case, unless told otherwise.
LEAST_GROUPS = 128

_RANGE = re.compile(r"^\s*([^:]+):([^:]+)(?::([^:]+))?\s*$")


def parse_range(text: str, what: str = "snr") -> tuple[float, ...]:
    """`0:20:2` (both ends included), `0:20` (steps of 1), `5` or `0,5,10` to numbers.

    Raises LinksimError where nothing comes out.
    """
    values: list[float] = []
    too_many = f"--{what} {shown(text)} gives more than {MAX_POINTS} values: take a larger step"
    try:
        for part in filter(None, (piece.strip() for piece in str(text).split(","))):
            match = _RANGE.match(part)
            if match is None:
                values.append(float(part))
                continue
            start, stop = float(match[1]), float(match[2])
            step = float(match[3]) if match[3] else 1.0
            if step == 0 or not math.isfinite(start + stop + step):
                raise ValueError
            count = math.floor(min((stop - start) / step + 1e-9, 2.0 * MAX_POINTS)) + 1
            if len(values) + count > MAX_POINTS:
                raise LinksimError(too_many)
            values += [round(start + i * step, 9) for i in range(max(count, 0))]
    except ValueError:
        values = []
    if not values or not all(map(math.isfinite, values)):
        raise LinksimError(
            f"--{what} {shown(text)} gives no values: write start:stop:step like 0:20:2 (-5:20:5), or 0,5,10"
        )
    if max(map(abs, values)) > MAX_DB:
        raise LinksimError(
            f"--{what} {shown(text)} goes beyond {MAX_DB:g} dB: take values within -{MAX_DB:g} to {MAX_DB:g}"
        )
    return tuple(dict.fromkeys(value + 0.0 for value in values))


def _listed_texts(value: Any) -> list[str]:
    """A text, or a row of texts, whose items may hold commas. Raises LinksimError for anything else."""
    rows = [value] if isinstance(value, str) else value
    if not isinstance(rows, list | tuple) or not all(isinstance(row, str) for row in rows):
        raise LinksimError(f"{shown(value)}: write name:key=value,..., or a list of such")
    return list(rows)


def _listed(value: Any) -> list[str]:
    """Words from a comma-separated text, or from any row of words or numbers (a list, a range, an array)."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    rows = [value] if isinstance(value, int | float | Fraction) else value
    if isinstance(rows, Mapping) or not isinstance(rows, Iterable):
        raise LinksimError(f"{shown(value)}: write words or numbers in a row, like a,b,c")
    words = list(rows)
    if any(isinstance(word, bool) or not isinstance(word, str | Real) for word in words):
        raise LinksimError(f"{shown(value)}: write words or numbers in a row, like a,b,c")
    return [str(word) for word in words]


#: Key of a sweep file whose figure is a gallery: the image groups that it shows, `gallery: 0,1,2`.
GALLERY = "gallery"

#: Parameters that can be asked of every scheme that has them.
SHARED = ("mcs", "split", "csi", "start", "steps", "prior")

#: A refined scheme on the embedded images ends in minutes, unless told otherwise.
REFINED_DEFAULTS: dict[str, Any] = {"groups": 32, "snr": "0:20:5", "metrics": ("psnr", "ssim", "lpips-alex")}


class SweepConfig(BaseModel):
    """Everything that the numbers of a sweep depend on.

    Args:
        scheme: schemes with their parameters, `name:key=value,...`.
        channel: fadings with their parameters, `name:key=value,...`, see `linksim list channels`.
        snr: SNR points in dB (P_avg over the noise variance per complex symbol).
        rho: bandwidth ratios k/m, as fractions.
        dataset: `cifar10-mini` (embedded), `cifar10`, `cifar10-val`, or `folder:DIR`.
        data_dir: where `cifar10` lies, when it is no installed asset.
        image_size: in pixels, 256 or 768x512, that images of a folder are cropped and resized to.
        users: N.
        antennas: M, receive antennas of the base station; the SNR is that of each.
        detector: what tells the users apart for schemes that ask for equalised symbols: "lmmse", "zf" or "mf".
        groups: image groups a point; None takes all of the data set.
        until: (metric, half-width of its 95% interval) at which a point stops; also metric=width or a mapping.
        min_groups, max_groups: bounds of `until`.
        metrics: names, see `linksim list metrics`.
        power: "sum" or "per-ue".
        csi_error_var: variance of the error of the channel estimate; 0 is perfect.
        pixels: "float", or "uint8": reconstructions are rounded to 8 bits before the metrics.
        precision: of the networks' arithmetic: "float32", or "bf16", which is for GPUs and CPUs that compute in it.
        seed: of every random draw.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: tuple[str, ...] = Field(min_length=1)
    channel: tuple[str, ...] = ("awgn",)
    snr: tuple[float, ...] = tuple(float(snr) for snr in range(0, 21, 2))
    rho: tuple[str, ...] = ("1/6",)
    dataset: str = "cifar10-mini"
    data_dir: str | None = None
    image_size: ImageSize | None = None
    users: int = Field(default=2, ge=1, le=MAX_USERS)
    antennas: int = Field(default=1, ge=1, le=MAX_ANTENNAS)
    detector: Detector = "lmmse"
    groups: int | None = Field(default=None, ge=1)
    until: tuple[tuple[str, float], ...] = ()
    min_groups: int | None = Field(default=None, ge=2)
    max_groups: int | None = Field(default=None, ge=2)
    metrics: tuple[str, ...] = Field(default=("psnr", "ssim"), min_length=1)
    power: PowerConvention = "sum"
    csi_error_var: float = Field(default=0.0, ge=0, le=MAX_CSI_ERROR)
    pixels: Literal["float", "uint8"] = "float"
    precision: Precision = "float32"
    seed: int = Field(default=0, ge=0, lt=2**63)

    @field_validator("users", "antennas", "groups", "min_groups", "max_groups", "seed", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise LinksimError(f"{shown(value)} is no number: write a whole number")
        return value

    @field_validator("image_size", mode="before")
    @classmethod
    def _image_size(cls, value: Any) -> Any:
        if value is None:
            return None
        return size_of(*parse_size(value))

    @field_validator("dataset", "data_dir", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        text = str(value) if isinstance(value, Path) else value
        if isinstance(text, str) and "\0" in text:
            raise LinksimError(f"{shown(text)} is no path: it holds a zero byte")
        _utf8(text)
        return text

    @field_validator("scheme", mode="before")
    @classmethod
    def _schemes(cls, value: Any) -> tuple[str, ...]:
        return tuple(variant.label for variant in each_once(map(parse, scheme_texts(value))))

    @field_validator("channel", mode="before")
    @classmethod
    def _channels(cls, value: Any) -> tuple[str, ...]:
        words = [word for text in _listed_texts(value) for word in split_list(text)]
        for word in words:
            _utf8(word)
        if not words:
            raise LinksimError("no channel given: see `linksim list channels`")
        return tuple(dict.fromkeys(channel_label(word) for word in words))

    @field_validator("snr", mode="before")
    @classmethod
    def _snr(cls, value: Any) -> tuple[float, ...]:
        return parse_range(value if isinstance(value, str) else ",".join(_listed(value)))

    @field_validator("rho", mode="before")
    @classmethod
    def _rho(cls, value: Any) -> tuple[str, ...]:
        ratios = _listed(value)
        if not ratios:
            raise LinksimError("no rho given: write it as 1/6 or 0.25")
        return tuple(dict.fromkeys(str(parse_rho(ratio)) for ratio in ratios))

    @field_validator("metrics", mode="before")
    @classmethod
    def _metrics(cls, value: Any) -> tuple[str, ...]:
        for name in (names := _listed(value)):
            METRICS.find(name)
        if not names:
            raise LinksimError("no metric given: see `linksim list metrics`")
        return tuple(dict.fromkeys(names))

    @field_validator("until", mode="before")
    @classmethod
    def _until(cls, value: Any) -> tuple[tuple[str, float], ...]:
        given = value
        if isinstance(value, str):
            pairs = [part.partition("=")[::2] for part in _listed(value)]
            if len(dict(pairs)) < len(pairs):
                raise LinksimError(f"--until {shown(value)}: each metric once")
            value = dict(pairs)
        try:
            widths = {str(name): float(width) for name, width in dict(value).items()}
        except (TypeError, ValueError):
            raise LinksimError(f"--until {shown(given)}: write metric=half-width, like psnr=0.1") from None
        if not all(0 < width < math.inf for width in widths.values()):
            raise LinksimError(f"--until {shown(given)}: half-widths must be positive, like psnr=0.1")
        return tuple(widths.items())

    @model_validator(mode="after")
    def _consistent(self) -> SweepConfig:
        for name in self.half_widths:
            if name not in self.metrics:
                raise LinksimError(f"--until {name}: no metric of this sweep; it has {', '.join(self.metrics)}")
        if self.until and self.groups is not None:
            raise LinksimError("--until and --groups exclude each other: bound --until with --max-groups")
        for name in ("min_groups", "max_groups"):
            if getattr(self, name) is not None and not self.until:
                raise LinksimError(f"--{name.replace('_', '-')} bounds --until: give --until, or --groups instead")
        if self.max_groups is not None and self.max_groups < self.least_groups:
            raise LinksimError(f"--max-groups {self.max_groups} is below --min-groups {self.least_groups}")
        return self

    @property
    def refined(self) -> bool:
        """Whether a scheme of this sweep has a second stage."""
        return any(issubclass(find(variant.name), Refined) for variant in self.variants)

    @property
    def least_groups(self) -> int:
        """Groups that `until` evaluates in any case."""
        return LEAST_GROUPS if self.min_groups is None else self.min_groups

    @property
    def half_widths(self) -> dict[str, float]:
        """`until` as metric -> half-width."""
        return dict(self.until)

    @property
    def variants(self) -> list[Variant]:
        """The scheme variants asked for, in order."""
        return [parse(text) for text in self.scheme]

    @property
    def rhos(self) -> list[Fraction]:
        """Bandwidth ratios as fractions."""
        return [Fraction(rho) for rho in self.rho]

    def link(self, channel: str) -> LinkConfig:
        """The link of this sweep over one of its channels."""
        return LinkConfig(channel, self.users, self.power, self.csi_error_var, self.antennas, self.detector)


def _utf8(text: object) -> None:
    """Raises LinksimError for a text that tables cannot hold: a name on disk in another encoding."""
    try:
        str(text).encode()
    except UnicodeEncodeError:
        raise LinksimError(
            f"{shown(text)} is not UTF-8, and tables hold nothing else: rename it, or link to it"
        ) from None


def scheme_texts(value: Any) -> list[str]:
    """One text a scheme from `a:x=1,b` or a list of such. Raises LinksimError for anything else."""
    rows = [value] if isinstance(value, str) else value
    if not isinstance(rows, list | tuple) or not all(isinstance(row, str) for row in rows):
        raise LinksimError(f"scheme {shown(value)}: write name:key=value,..., or a list of such")
    texts = [text for row in rows for text in split_list(row)]
    for text in texts:
        _utf8(text)
    if not texts:
        raise LinksimError("no scheme given: --scheme NAME, see `linksim list schemes`")
    return texts


def make_config(values: Mapping[str, Any]) -> SweepConfig:
    """A sweep from plain values.

    Those in SHARED (`mcs`, `split`, `csi`, `start`, `steps`, `prior`) are asked of every scheme that has them. Equal
    schemes are one, by the first one's text; a warning says so where they are written differently.

    Raises LinksimError in one line for an unknown key (with the nearest), a value out of range or a name unknown.
    """
    given = {key: value for key, value in values.items() if value is not None}
    shared = [(key, str(given.pop(key))) for key in SHARED if key in given]
    for key in given:
        if key not in SweepConfig.model_fields:
            raise unknown("setting", str(key), [*SweepConfig.model_fields, *SHARED])
    if "scheme" not in given:
        raise LinksimError("no scheme given: --scheme NAME, see `linksim list schemes`")
    texts = scheme_texts(given["scheme"])
    for key, _ in shared:
        if not any(key in find(text.partition(":")[0]).Params.model_fields for text in texts):
            raise LinksimError(f"none of the schemes has a parameter {shown(key)}: see `linksim list schemes`")
    variants = [parse(text, shared) for text in texts]
    once = {variant.key: variant.label for variant in each_once(variants)}
    for label, name in {variant.label: once[variant.key] for variant in variants}.items():
        if label != name:
            warnings.warn(f"{label} is {name} in other words: it runs once, under that name", stacklevel=2)
    given["scheme"] = list(once.values())
    try:
        config = SweepConfig(**given)
        short = {key: value for key, value in REFINED_DEFAULTS.items() if key not in given}
        if not config.refined or config.dataset != "cifar10-mini" or given.keys() & {"until", "data_dir"}:
            return config
        if short:
            said = ", ".join(f"{key} {','.join(value) if key == 'metrics' else value}" for key, value in short.items())
            warnings.warn(f"refinement on the embedded images, unless told otherwise: {said}", stacklevel=2)
        return SweepConfig(**given, **short)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "sweep"
        raise LinksimError(f"{where} = {shown(first['input'])}: {first['msg'].lower()}") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise LinksimError(f"a setting is of the wrong kind: {' '.join(str(error).split())[:160]}") from None


#: A sweep file is small; aliases that repeat each other could make more values of it than any memory holds.
_FILE_BYTES, _FILE_VALUES = 1 << 18, 10_000


def _parse_yaml(text: str) -> Any:
    """The values of a document of YAML 1.2: 5:20:5 and yes are text, no key comes twice.

    Raises anything for one that is none, or that aliases blow up.
    """
    node = YAML(typ="safe", pure=True).compose(text)
    if node is None:
        return None
    _count(node, {}, ())
    return YAML(typ="safe", pure=True).load(text)


def _problem(error: Exception) -> str:
    """What is wrong with a document, and where, in a short line."""
    if isinstance(error, MarkedYAMLError) and error.problem and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {' '.join(error.problem.split())[:160]}"
    return said(error, 200)


def _count(node: Node, known: dict[int, int], above: tuple[int, ...]) -> int:
    """Values of a node with its aliases written out. Raises YAMLError beyond _FILE_VALUES."""
    if id(node) in above:
        raise YAMLError("a value holds itself")
    if id(node) not in known:
        pairs = node.value if isinstance(node, CollectionNode) else []
        parts = [part for pair in pairs for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_count(part, known, (*above, id(node))) for part in parts)
    if known[id(node)] > _FILE_VALUES:
        raise YAMLError(f"it holds more than {_FILE_VALUES} values, its aliases written out")
    return known[id(node)]


def read_sweep_file(path: Path, overrides: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The values of a sweep file (YAML), with `--set key=value` on top; those of linksim wherever one is.

    The key `gallery` is left out: it says what the file's figure is (`gallery_of`), and nothing of a sweep.
    """
    values = {key: value for key, value in _values_of(path).items() if key != GALLERY}
    return {**values, **(overrides or {})}


def gallery_of(path: Path) -> str | None:
    """The image groups, "0,1,2", of a sweep file whose figure is a gallery; None for any other.

    Raises LinksimError for what is no such file, or no such groups.

    Example:
        >>> gallery_of(Path("sweeps/fig12.yaml")), gallery_of(Path("sweeps/fig06.yaml"))
        ('0,1,2', None)
    """
    values = _values_of(path)
    if GALLERY not in values:
        return None
    groups = values[GALLERY]
    text = ",".join(map(str, groups)) if isinstance(groups, list) else str(groups)
    if not re.fullmatch(r"[0-9]{1,9}(, ?[0-9]{1,9})*", text):
        raise LinksimError(f"sweep file {path}: {GALLERY} {shown(groups)}: give image groups, like 0,1,2")
    return text


def _values_of(path: Path) -> dict[str, Any]:
    try:
        with shipped(path).open("rb") as file:
            content = file.read(_FILE_BYTES + 1)
    except OSError as error:
        raise LinksimError(f"sweep file {path}: {error.strerror}: give a YAML file, like sweeps/fig06.yaml") from None
    if len(content) > _FILE_BYTES:
        raise LinksimError(f"sweep file {path} is larger than {_FILE_BYTES >> 10} KiB: give a sweep file")
    try:
        values = _parse_yaml(content.decode("utf-8"))
    # A tag like !!bool before what it does not fit raises almost any type.
    except Exception as error:
        raise LinksimError(f"sweep file {path} is no YAML: {_problem(error)}") from None
    if not isinstance(values, dict):
        raise LinksimError(f"sweep file {path} holds no settings: write lines like `scheme: bpg-ldpc-qam-sic`")
    for key, value in values.items():
        field = SweepConfig.model_fields.get(str(key))
        if value is None and field is not None and field.default is not None:
            raise LinksimError(f"sweep file {path}: {key} has no value: give one, or take the line away")
    return values
