"""The interface of a scheme and the registry that finds schemes by name."""

from linksim.schemes.base import Params, Received, Reference, Scheme, System
from linksim.schemes.registry import register

__all__ = ["Params", "Received", "Reference", "Scheme", "System", "register"]
