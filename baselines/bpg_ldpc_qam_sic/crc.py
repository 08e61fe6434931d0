"""Cyclic redundancy checks of 5G NR (TS 38.212, section 5.1), vectorised over a batch of blocks."""

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from linksim.errors import unknown

if TYPE_CHECKING:
    from sionna.phy.fec.crc import CRCDecoder, CRCEncoder

LENGTHS = {"CRC16": 16, "CRC24A": 24}
"""The checks on offer and their number of parity bits: 0x1021 and 0x864CFB, most significant bit first."""


class Crc:
    """A CRC over blocks of bits, by Sionna's `CRCEncoder` and `CRCDecoder`.

    The register starts at zero, as 5G has it: a block of zeros therefore carries a parity of zeros and passes.

    Args:
        name: `"CRC16"` (D^16 + D^12 + D^5 + 1) or `"CRC24A"` (24 bits); any other is a `LinksimError`.
    """

    def __init__(self, name: str = "CRC16") -> None:
        if name not in LENGTHS:
            raise unknown("CRC", name, LENGTHS)
        self.name = name
        self.length = LENGTHS[name]

    @cached_property
    def _encoder(self) -> "CRCEncoder":
        from linksim.link.phy import sionna

        return sionna("fec.crc").CRCEncoder(self.name, precision="single", device="cpu")

    @cached_property
    def _decoder(self) -> "CRCDecoder":
        from linksim.link.phy import sionna

        return sionna("fec.crc").CRCDecoder(self._encoder, precision="single", device="cpu")

    def attach(self, bits: np.ndarray) -> np.ndarray:
        """Blocks with their parity: `bits` uint8 [B, k] in, uint8 [B, k + length] out, parity last."""
        import torch

        with torch.inference_mode():
            found: np.ndarray = self._encoder(torch.from_numpy(bits.astype(np.float32))).numpy().astype(np.uint8)
            return found

    def check(self, bits: np.ndarray) -> np.ndarray:
        """Which blocks pass: `bits` uint8 [B, k + length], as `attach` makes them, in; bool [B] out."""
        import torch

        with torch.inference_mode():
            _, valid = self._decoder(torch.from_numpy(bits.astype(np.float32)))
            found: np.ndarray = valid.numpy()[:, 0]
            return found
