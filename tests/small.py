"""Small networks of the real structure, for tests of what is done with any network."""

from collections.abc import Callable
from dataclasses import replace

from linksim.nets import layers
from linksim.refine.cgan import refiner as cgan
from linksim.refine.ddim import model as ddim
from linksim.refine.sft import network as sft
from linksim.schemes.semnoma import codec


def shrink(put: Callable[[object, str, object], None] = setattr) -> None:
    """Gives ConvNeXt transceivers one block a stage and a third of the width, and second stages a third to a quarter.

    `put` sets an attribute.
    """
    ones, widths = {depth: (1,) * depth for depth in (2, 4)}, {2: (16, 32), 4: (8, 16, 16, 16)}
    layouts = {
        depth: replace(shape, encoder_depths=ones[depth], decoder_depths=ones[depth], widths=widths[depth])
        for depth, shape in codec._LAYOUTS.items()
    }
    put(codec, "_LAYOUTS", layouts)
    put(codec, "_COMPACT", widths)
    put(layers, "_RESIDUAL_UNITS", 1)
    put(ddim, "_WIDTHS", {**ddim._WIDTHS, "small": ((32,) * 4, 1)})
    put(cgan, "_WIDTHS", {**cgan._WIDTHS, "compact": 8})
    put(sft, "SHAPES", {**sft.SHAPES, "compact": replace(sft.SHAPES["compact"], width=8, blocks=(1,) * 4)})
