"""Schemes by name: found through the entry-point group `linksim.schemes`, or registered from Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from linksim.errors import LinksimError
from linksim.grammar import as_text, settled, written_params
from linksim.link.config import Setting
from linksim.registry import Registry
from linksim.schemes.base import System
from linksim.source import source_digest

#: Columns of every table, which no parameter may be named after.
RESERVED = frozenset(
    {
        "scheme", "variant", "kind", "stage", "dataset", "channel", "antennas", "detector", "rho", "users", "snr_db",
        "power", "csi_error_var",
        "n_images", "n_groups", "n_left_out", "n_blocks", "n_block_errors", "bler", "bler_low", "bler_high",
        "loss_rate", "tx_power", "power_note", "channel_uses", "rho_total", "rho_user", "trained_pairs", "trained_note",
        "stop_reason", "seconds", "seed", "group", "user", "image", "mse", "lost", "psnr_db", "psnr_pooled_db", "ssim",
        "lpips_vgg", "lpips_alex", "fid", "kid", "envelope_of", "refine_steps", "refine_start", "refine_seconds",
        "refine_images_per_s",
    }
)  # fmt: skip


def _check(system: type[System], name: str) -> None:
    """Raises LinksimError for a class whose parameters hide columns of the table."""
    hidden = {name for name in system.Params.model_fields if name in RESERVED or name.endswith(("_ci95", "_note"))}
    if hidden:
        raise LinksimError(
            f"scheme {name!r} has a parameter {min(hidden)!r}, which is a column of every table: rename it"
        )


#: Schemes and references of one stage; those with a refiner behind them are found by `find`.
SCHEMES: Registry[System] = Registry(
    "scheme", "linksim.schemes", lambda: System, "Scheme or Reference", _check, signs="._+-"
)


def register(system: type[System]) -> type[System]:
    """Adds a scheme or reference for this process (a notebook, a test); installed plug-ins use an entry point.

    Worker processes cannot see such a scheme: run it with one worker. Raises LinksimError when the name is taken.
    """
    return SCHEMES.register(system)


def unregister(name: str) -> None:
    """Takes back `register`."""
    SCHEMES.unregister(name)


def names() -> list[str]:
    """Every known name, sorted."""
    return SCHEMES.names()


def is_local(name: str) -> bool:
    """True for a scheme registered in this process alone, which worker processes cannot import."""
    from linksim.refine.registry import is_local as refiner_is_local

    first, plus, refiner = name.partition("+")
    if name in SCHEMES or not plus:
        return SCHEMES.is_local(name)
    return SCHEMES.is_local(first) or refiner_is_local(refiner)


def find(name: str) -> type[System]:
    """The class behind a name. Raises LinksimError: unknown name, or a plug-in that does not import."""
    if name in SCHEMES or "+" not in name:
        return SCHEMES.find(name)
    from linksim.refine.registry import find as find_refiner
    from linksim.schemes.refined import refined

    first, _, refiner = name.partition("+")
    system = refined(find(first), find_refiner(refiner))
    _check(system, name)
    return system


def plug_ins(system: type[System]) -> dict[str, str]:
    """What a result depends on of the code of plug-ins: `plug-in` -> hash, for a refiner `NAME plug-in` -> hash.

    linksim's own classes have none: their code goes by the version.
    """
    from linksim.schemes.refined import Refined

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
        return system(setting, system.Params(**dict(self.params)))


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
    if system.name in names() or "+" in name:
        name = system.name
    return Variant(name, tuple(values.items()), tuple(sorted(asked)), next(iter(envelope), None))


def expand(variants: Sequence[Variant]) -> tuple[list[Variant], dict[Variant, list[Variant]]]:
    """What to run for the variants asked for.

    Returns:
        the variants to run, each once, in order; and for each derived one (an envelope) its members among them.
    """
    run: dict[str, Variant] = {}
    derived: dict[Variant, list[Variant]] = {}
    for variant in variants:
        if variant.best_of is None:
            run.setdefault(variant.key, variant)
            continue
        values = find(variant.name).envelopes[variant.best_of]
        members = [variant.with_param(variant.best_of, value) for value in values]
        derived[variant] = [run.setdefault(member.key, member) for member in members]
    return list(run.values()), derived
