"""linksim: an end-to-end link simulator for semantic multi-user image transmission.

import linksim
table = linksim.sweep(scheme="bpg-ldpc-qam-sic", channel="rayleigh", snr="0:20:5")
table = linksim.load("results/fig07")
"""

from linksim.api import compare, load, load_images, sweep
from linksim.data import register as register_dataset
from linksim.errors import LinksimError
from linksim.link.channels import register as register_channel
from linksim.link.config import LinkConfig, Setting, SideInfo
from linksim.link.fading import Channel, ChannelParams
from linksim.metrics import ImageMetric, SetMetric
from linksim.metrics import register as register_metric
from linksim.refine.base import Refiner
from linksim.refine.registry import register as register_refiner
from linksim.schemes import Params, Received, Reference, Scheme, register
from linksim.version import __version__

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
    "compare",
    "load",
    "load_images",
    "register",
    "register_channel",
    "register_dataset",
    "register_metric",
    "register_refiner",
    "sweep",
]
