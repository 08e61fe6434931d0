"""linksim: an end-to-end link simulator for semantic multi-user image transmission.

import linksim
table = linksim.sweep(scheme="bpg-ldpc-qam-sic", channel="rayleigh", snr="0:20:5")
table = linksim.load("results/fig07")
model = linksim.load_model("kd", channel="rayleigh", rho="1/6")  # a module of PyTorch
"""

import importlib
from typing import TYPE_CHECKING, Any

from linksim.api import compare, gallery, load, load_groups, load_images, sweep, unregister
from linksim.data import register as register_dataset
from linksim.errors import LinksimError
from linksim.link.channels import register as register_channel
from linksim.link.config import LinkConfig, Setting, SideInfo
from linksim.link.fading import Channel, ChannelParams
from linksim.metrics import ImageMetric, SetMetric
from linksim.metrics import make_metric as metric
from linksim.metrics import register as register_metric
from linksim.refine.base import Refiner
from linksim.refine.registry import register as register_refiner
from linksim.schemes import Params, Received, Reference, Scheme, register
from linksim.version import __version__

if TYPE_CHECKING:
    from linksim.cli.results import plot
    from linksim.cli.training import train_model
    from linksim.modules import channel, load_model, refiner
    from linksim.report.zoo import zoo

__all__ = [
    "Channel",
    "ChannelParams",
    "ImageMetric",
    "LinkConfig",
    "LinksimError",
    "Params",
    "Received",
    "Reference",
    "Refiner",
    "Scheme",
    "SetMetric",
    "Setting",
    "SideInfo",
    "__version__",
    "channel",
    "compare",
    "gallery",
    "load",
    "load_groups",
    "load_images",
    "load_model",
    "metric",
    "plot",
    "refiner",
    "register",
    "register_channel",
    "register_dataset",
    "register_metric",
    "register_refiner",
    "sweep",
    "train_model",
    "unregister",
    "zoo",
]


#: Where the rest is; what they need takes seconds to import.
_LATE = {
    "channel": "linksim.modules",
    "load_model": "linksim.modules",
    "plot": "linksim.cli.results",
    "refiner": "linksim.modules",
    "train_model": "linksim.cli.training",
    "zoo": "linksim.report.zoo",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module 'linksim' has no attribute {name!r}")
