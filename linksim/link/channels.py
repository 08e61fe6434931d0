"""Channels by name: `awgn`, `rayleigh`, `tdl-c:delay_spread=3e-07`, and those of plug-ins."""

from __future__ import annotations

import re

from linksim.errors import LinksimError
from linksim.grammar import as_text, settled, written_params
from linksim.link.config import LinkConfig
from linksim.link.fading import Awgn, Channel, ChannelParams, Rayleigh, RayleighFast, Rician
from linksim.link.tdl import TDL_CHANNELS
from linksim.registry import Registry
from linksim.source import source_digest


def _check(channel: type[Channel], name: str) -> None:
    """Raises LinksimError for a class whose parameters are none."""
    if not (isinstance(channel.Params, type) and issubclass(channel.Params, ChannelParams)):
        raise LinksimError(f"channel {name!r}: its Params are no linksim.ChannelParams")


_OWN: tuple[type[Channel], ...] = (Awgn, Rayleigh, Rician, RayleighFast, *TDL_CHANNELS)

#: Every channel by name; plug-ins by the entry-point group `linksim.channels` or `register_channel`.
CHANNELS: Registry[Channel] = Registry(
    "channel",
    "linksim.channels",
    lambda: Channel,
    "Channel",
    _check,
    builtin={kind.name: kind for kind in _OWN},
)


def register(channel: type[Channel]) -> type[Channel]:
    """Adds a channel for this process (a notebook, a test); installed plug-ins use an entry point.

    Raises LinksimError when linksim or an
    installed plug-in has the name.

    Example:
        >>> class Own(CHANNELS.find("rayleigh")):
        ...     name, summary = "own", "fading of one's own"
        >>> register(Own).name in CHANNELS
        True
        >>> CHANNELS.unregister("own")
    """
    return CHANNELS.register(channel)


def channel_class(text: str) -> type[Channel]:
    """The class that `name:key=value,...` names, whatever its parameters. Raises LinksimError for an unknown one.

    Example:
        >>> channel_class("rician:k_db=3").name
        'rician'
    """
    return CHANNELS.find(text.partition(":")[0])


def _params(text: str) -> tuple[type[Channel], dict[str, str], ChannelParams]:
    kind = channel_class(text)
    asked = written_params("channel", text, kind.Params.model_fields)
    return kind, asked, settled("channel", text, kind.Params, asked)


def channel_label(text: str) -> str:
    """The shortest text that asks for this channel, the same for equal ones.

    Raises LinksimError: an unknown channel or parameter, a value out of range.

    Example:
        >>> channel_label("rician:k_db=3")
        'rician:k_db=3.0'
    """
    kind, asked, params = _params(text)
    given = [f"{key}={as_text(getattr(params, key))}" for key in kind.Params.model_fields if key in asked]
    return f"{kind.name}:{','.join(given)}" if given else kind.name


def make_channel(link: LinkConfig) -> Channel:
    """The channel of a link. Raises LinksimError, see `channel_label`."""
    kind, _, params = _params(link.channel)
    return kind(link, params)


def is_local(text: str) -> bool:
    """True for a channel registered in this process alone, which worker processes cannot import."""
    return CHANNELS.is_local(text.partition(":")[0])


def digest(text: str) -> str:
    """Hash of the code of a plug-in's channel; empty for linksim's own."""
    return source_digest(channel_class(text))


def file_name(label: str) -> str:
    """A channel's label as part of a file's name.

    Example:
        >>> file_name("tdl-c:delay_spread=3e-07")
        'tdl-c-delay_spread-3e-07'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", label)
