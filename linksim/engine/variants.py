"""What `--scheme` asks for: `name:key=value,...` and `first+refiner`, and the classes behind them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from linksim.errors import LinksimError, NoWeights
from linksim.grammar import as_text, settled, written_params
from linksim.link.config import Setting
from linksim.refine.behind import Refined, refined
from linksim.refine.registry import REFINERS
from linksim.schemes.base import Params, System
from linksim.schemes.registry import SCHEMES, check
from linksim.source import source_digest


def is_local(name: str) -> bool:
    """True for a scheme registered in this process alone, which worker processes cannot import."""
    first, plus, refiner = name.partition("+")
    if name in SCHEMES or not plus:
        return SCHEMES.is_local(name)
    return SCHEMES.is_local(first) or REFINERS.is_local(refiner)


def find(name: str) -> type[System]:
    """The class behind a name. Raises LinksimError: unknown name, or a plug-in that does not import."""
    if name in SCHEMES or "+" not in name:
        return SCHEMES.find(name)
    first, _, refiner = name.partition("+")
    system = refined(find(first), REFINERS.find(refiner))
    check(system, name)
    return system


def plug_ins(system: type[System]) -> dict[str, str]:
    """What a result depends on of the code of plug-ins: `plug-in` -> hash, for a refiner `NAME plug-in` -> hash.

    linksim's own classes have none: their code goes by the version.
    """
    if issubclass(system, Refined):
        refiner = system.refiner_class
        behind = {f"{refiner.name} plug-in": digest} if (digest := source_digest(refiner)) else {}
        return {**plug_ins(system.first_stage), **behind}
    return {"plug-in": digest} if (digest := source_digest(system)) else {}


@dataclass(frozen=True)
class Variant:
    """A scheme with its parameters settled.

    Args:
        name: the scheme's bare name.
        params: every parameter with its value as text, defaults included, in the order of the scheme's own list.
        given: the names of those that were asked for.
        best_of: for a derived variant, the parameter whose best value is taken at each SNR.
    """

    name: str
    params: tuple[tuple[str, str], ...] = ()
    given: tuple[str, ...] = ()
    best_of: str | None = None

    @property
    def label(self) -> str:
        """The shortest text that asks for this variant: `name:key=value,...`."""
        asked = ",".join(f"{key}={value}" for key, value in self.params if key in self.given)
        return f"{self.name}:{asked}" if asked else self.name

    @property
    def key(self) -> str:
        """Name and all parameters: equal for equal variants however they were asked for."""
        return f"{self.name}:{','.join(f'{key}={value}' for key, value in self.params)}"

    def with_param(self, key: str, value: str) -> Variant:
        """The same scheme at another value of one parameter."""
        given = self.given if key in self.given else (*self.given, key)
        return replace(
            self, params=tuple((k, value if k == key else v) for k, v in self.params), given=given, best_of=None
        )

    def build(self, setting: Setting) -> System:
        """The scheme itself. Raises LinksimError where it cannot work in `setting`."""
        system = find(self.name)
        params = system.Params(**dict(self.params))
        try:
            return system(setting, params)
        except NoWeights as error:
            # Schemes of one user serve several in turns, each with a share of the channel uses.
            if setting.link.users > 1 and _works(system, replace(setting, link=replace(setting.link, users=1)), params):
                raise NoWeights(f"{error}; for one user there are: --users 1") from None
            raise


def _works(system: type[System], setting: Setting, params: Params) -> bool:
    try:
        system(setting, params)
    except LinksimError:
        return False
    return True


def parse(text: str, shared: Iterable[tuple[str, str]] = ()) -> Variant:
    """A variant from `name:key=value,...`.

    Args:
        shared: parameters asked of every scheme that has them (`--mcs`, `--split`, `--csi`); `text` goes before them.

    Raises:
        LinksimError: unknown name or parameter, value out of range.
    """
    name = text.partition(":")[0]
    system = find(name)
    fields = system.Params.model_fields
    asked = {key: value for key, value in shared if key in fields} | written_params("scheme", text, fields)
    envelope = {key for key, value in asked.items() if value == "envelope" and key in system.envelopes}
    params = settled("scheme", text, system.Params, {k: v for k, v in asked.items() if k not in envelope})
    values = {key: "envelope" if key in envelope else as_text(getattr(params, key)) for key in fields}
    # An alias is a second entry point of the same class: everything goes by the class's own name.
    if system.name in SCHEMES or "+" in name:
        name = system.name
    return Variant(name, tuple(values.items()), tuple(sorted(asked)), next(iter(envelope), None))


def each_once(variants: Iterable[Variant]) -> list[Variant]:
    """The variants without those that are equal to an earlier one, however they were asked for.

    Example:
        >>> [variant.label for variant in each_once([parse("klt"), parse("kd"), parse("kd:csi=own")])]
        ['klt', 'kd']
    """
    found: dict[str, Variant] = {}
    for variant in variants:
        found.setdefault(variant.key, variant)
    return list(found.values())


def expand(variants: Sequence[Variant]) -> tuple[list[Variant], dict[Variant, list[Variant]]]:
    """What to run for the variants asked for.

    Returns:
        the variants to run, each once, in order; and for each derived one (an envelope) its members among them. A
        member that is asked for by itself too is written as it is asked for.
    """
    asked = {variant.key: variant for variant in each_once(variants)}
    run: dict[str, Variant] = {}
    derived: dict[Variant, list[Variant]] = {}
    for variant in variants:
        if variant.best_of is None:
            run.setdefault(variant.key, variant)
            continue
        values = find(variant.name).envelopes[variant.best_of]
        members = [variant.with_param(variant.best_of, value) for value in values]
        derived[variant] = [run.setdefault(member.key, asked.get(member.key, member)) for member in members]
    return list(run.values()), derived
