"""Small networks of the real structure, for tests of what is done with any network."""

from collections.abc import Callable
from dataclasses import replace

from linksim.nets import layers
from linksim.schemes.semnoma import codec


def shrink(put: Callable[[object, str, object], None] = setattr) -> None:
    """Gives ConvNeXt transceivers one block a stage and a third of the width; `put` sets an attribute."""
    ones, widths = {depth: (1,) * depth for depth in (2, 4)}, {2: (16, 32), 4: (8, 16, 16, 16)}
    layouts = {
        depth: replace(shape, encoder_depths=ones[depth], decoder_depths=ones[depth], widths=widths[depth])
        for depth, shape in codec._LAYOUTS.items()
    }
    put(codec, "_LAYOUTS", layouts)
    put(codec, "_COMPACT", widths)
    put(layers, "_RESIDUAL_UNITS", 1)
