"""Names with parameters, `name:key=value,...`: schemes and channels are asked for in this way."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from linksim.errors import LinksimError, shown, unknown

P = TypeVar("P", bound=BaseModel)


def split_list(text: str) -> list[str]:
    """The items of a list; a part with `=` and no name before it belongs to the item before.

    Example:
        >>> split_list("a:x=1,y=2,b")
        ['a:x=1,y=2', 'b']
    """
    items: list[str] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        if items and re.match(r"[^:=]+=", part):
            items[-1] += f"{',' if ':' in items[-1] else ':'}{part}"
        else:
            items.append(part)
    return items


def written_params(kind: str, text: str, known: Collection[str]) -> dict[str, str]:
    """What stands behind the colon of `text`.

    Args:
        kind: what `text` names, for messages: "scheme", "channel".
        known: parameters that there are.

    Raises:
        LinksimError: a part without `=`, an unknown parameter, one given twice.

    Example:
        >>> written_params("channel", "tdl-c:speed=3,delay_spread=1e-7", ["speed", "delay_spread"])
        {'speed': '3', 'delay_spread': '1e-7'}
    """
    name, _, rest = text.partition(":")
    found: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise LinksimError(f"{kind} {shown(text)}: write parameters as key=value")
        if key not in known:
            raise unknown(f"parameter of {name}", key, list(known))
        if key in found:
            raise LinksimError(f"{kind} {shown(text)}: {key} is given twice: leave one out")
        found[key] = value
    return found


def without_weights(variant: str) -> str:
    """A variant by its other parameters: those that differ in `weights` alone are trainings of one scheme.

    Example:
        >>> without_weights("kd:ablation=fa,weights=runs/a"), without_weights("klt")
        ('kd:ablation=fa', 'klt')
    """
    name, _, rest = variant.partition(":")
    others = [part for part in rest.split(",") if part and not part.startswith("weights=")]
    return ":".join(filter(None, [name, ",".join(others)]))


def settled(kind: str, text: str, params: type[P], asked: Mapping[str, str]) -> P:
    """Parameters with their types and defaults. Raises LinksimError for a value out of range."""
    try:
        return params(**asked)
    except ValidationError as error:
        where = error.errors()[0]["loc"][0]
        # A parameter that is a number or a word gives a message for each.
        said = " or ".join(found["msg"] for found in error.errors() if found["loc"][0] == where)
        said = said.replace("Value error, ", "")
        raise LinksimError(f"{kind} {shown(text)}: {where}: {said}") from None


def as_text(value: Any) -> str:
    """A parameter's value as one writes it.

    Example:
        >>> as_text(True), as_text(1e-7)
        ('true', '1e-07')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)
