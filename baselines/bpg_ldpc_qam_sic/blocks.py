"""Byte streams to code blocks and back: padding, checksum, LDPC, scrambling."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.bpg_ldpc_qam_sic.crc import Crc
from baselines.bpg_ldpc_qam_sic.ldpc import ldpc_code
from baselines.bpg_ldpc_qam_sic.mcs import Frame
from linksim.link.config import MAX_USERS

Bits = NDArray[np.uint8]


@functools.lru_cache(maxsize=32)
def scrambling(length: int) -> Bits:
    """Every user's scrambling sequence, uint8 [MAX_USERS, length] (TS 38.211, section 6.3.1.1, PUSCH).

    Without it the words of two users share what all streams share, the file's magic and the zeros that fill it up.
    There the users' symbols add up in phase instead of interfering, and the strong user of 0.8/0.2 seems to work 1 dB
    below what its signal-to-interference ratio allows.
    """
    import torch

    from linksim.link.phy import sionna

    # Sequences of neighbouring identifiers have 2% of agreement too much; of these no two differ from a fair coin.
    identifiers = [40503 * (user + 1) % 65536 for user in range(MAX_USERS)]
    scrambler = sionna("fec.scrambling").TB5GScrambler(n_rnti=identifiers, n_id=[1] * MAX_USERS, device="cpu")
    found: Bits = scrambler(torch.zeros(MAX_USERS, length)).numpy().astype(np.uint8)
    return found


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

        Zero bytes fill up a stream. An image that fits at no quality is sent as zeros alone: the receiver finds an
        empty stream, which no codec writes.
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

    def encode(self, info: Bits, users: NDArray[np.intp]) -> Bits:
        """Information bits of frames of `users` [F] to coded bits.

        uint8 [F, blocks, info_bits] to uint8 [F, blocks * coded_bits].
        """
        coded = self._code.encode(info.reshape(-1, self.frame.info_bits)).reshape(len(info), -1)
        found: Bits = coded ^ scrambling(coded.shape[1])[users]
        return found

    @functools.cached_property
    def _guess(self) -> tuple[Bits, Bits]:
        """What a decoder that is told nothing shall decide: a word that fails its checksum.

        Its information bits, uint8 [info_bits], are zeros and a checksum of ones; its coded bits, uint8
        [blocks * coded_bits], are repeated for every block.
        """
        info = np.zeros(self.frame.info_bits, np.uint8)
        info[-self.frame.crc_bits :] = 1
        return info, np.tile(self._code.encode(info[None])[0], self.frame.blocks)

    def decode(self, llr: NDArray[np.float32], users: NDArray[np.intp]) -> tuple[Bits, NDArray[np.bool_]]:
        """LLRs, log p(1)/p(0), of frames of `users` [F] to information bits.

        float32 [F, blocks * coded_bits] to uint8 [F, blocks, info_bits], and whether each block's checksum holds,
        bool [F, blocks].

        A decoder takes a bit of which it knows nothing, an LLR of zero or one that it rounds to zero, for a zero, and
        the word of zeros passes every CRC. So it decodes the difference from a word that does not. This is 5G's mask
        on the CRC (TS 38.212, section 7.3.2) with the mask's code word in the scrambling: the words that are sent are
        the same as without.
        """
        guess, coded = self._guess
        signs = 1 - 2 * (scrambling(llr.shape[1])[users] ^ coded).astype(np.float32)
        decoded = self._code.decode(np.ascontiguousarray((llr * signs).reshape(-1, self.frame.coded_bits), np.float32))
        info = decoded.bits ^ guess
        shape = (len(llr), self.frame.blocks)
        return info.reshape(*shape, self.frame.info_bits), self._crc.check(info).reshape(shape)
