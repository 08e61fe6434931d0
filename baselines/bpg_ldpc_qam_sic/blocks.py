"""Byte streams to code blocks and back: padding, checksum, LDPC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.bpg_ldpc_qam_sic.crc import Crc
from baselines.bpg_ldpc_qam_sic.ldpc import ldpc_code
from baselines.bpg_ldpc_qam_sic.mcs import Frame

Bits = NDArray[np.uint8]


class BlockCoder:
    """Codes the streams of frames; all frames of one coder have one layout.

    Args:
        frame: the layout.
        iterations: of the LDPC decoder, at the most.
        backend: "numba" or "sionna", see `ldpc_code`.
        device: of the "sionna" backend.
    """

    def __init__(self, frame: Frame, iterations: int, backend: str, device: str) -> None:
        self.frame = frame
        self._crc = Crc("CRC16" if frame.crc_bits == 16 else "CRC24A")
        self._code: Any = ldpc_code(
            frame.info_bits, frame.coded_bits, iterations=iterations, backend=backend, device=device
        )

    def pack(self, streams: Sequence[bytes | None]) -> Bits:
        """Streams of F frames, `frame.images` each, to checked information bits, uint8 [F, blocks, info_bits].

        Zero bytes fill up a stream. An image that fits at no quality is sent as zeros alone: the receiver finds an empty
        stream, which no codec writes.
        """
        frame = self.frame
        payload = np.zeros((len(streams), frame.image_bytes), np.uint8)
        for row, stream in zip(payload, streams, strict=True):
            if stream is not None:
                row[: len(stream)] = np.frombuffer(stream, np.uint8)
        bits = np.unpackbits(payload, axis=1).reshape(len(streams) // frame.images, -1)
        room = frame.blocks * (frame.info_bits - frame.crc_bits)
        bits = np.pad(bits, ((0, 0), (0, room - bits.shape[1])))
        checked = self._crc.attach(bits.reshape(-1, frame.info_bits - frame.crc_bits))
        return checked.reshape(-1, frame.blocks, frame.info_bits)

    def unpack(self, info: Bits) -> list[bytes]:
        """Information bits [F, blocks, info_bits] back to F * `frame.images` streams without the zeros at the end."""
        frame = self.frame
        bits = info[..., : frame.info_bits - frame.crc_bits].reshape(len(info), -1)
        bits = bits[:, : frame.images * frame.image_bytes * 8]
        payload = np.packbits(bits.reshape(-1, frame.image_bytes * 8), axis=1)
        return [row.tobytes().rstrip(b"\0") for row in payload]

    def encode(self, info: Bits) -> Bits:
        """Information bits [F, blocks, info_bits] to the frames' coded bits, uint8 [F, blocks * coded_bits]."""
        coded = self._code.encode(info.reshape(-1, self.frame.info_bits))
        return coded.reshape(len(info), -1)

    def decode(self, llr: NDArray[np.float32]) -> tuple[Bits, NDArray[np.bool_]]:
        """LLRs [F, blocks * coded_bits], log p(1)/p(0), to information bits [F, blocks, info_bits] and, for each block,
        whether its checksum holds [F, blocks]."""
        decoded = self._code.decode(np.ascontiguousarray(llr.reshape(-1, self.frame.coded_bits), np.float32))
        good = self._crc.check(decoded.bits)
        shape = (len(llr), self.frame.blocks)
        return decoded.bits.reshape(*shape, self.frame.info_bits), np.asarray(good).reshape(shape)
