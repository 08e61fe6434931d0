"""Separate source and channel coding: BPG (or JPEG), 5G LDPC, QAM, and successive interference cancellation."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from baselines.bpg_ldpc_qam_sic.ldpc import tuned_alpha
from baselines.bpg_ldpc_qam_sic.mcs import ENVELOPE, JPEG_ENVELOPE, Frame, joint_images, lay_out, parse_mcs
from linksim import Params, Received, Scheme, Setting, SideInfo
from linksim.link.power import parse_split

if TYPE_CHECKING:
    from torch import Tensor

    from baselines.bpg_ldpc_qam_sic.blocks import BlockCoder
    from baselines.codecs.rate_control import RateController


class DigitalParams(Params):
    """Parameters of the digital baseline."""

    mcs: str = Field(
        "qpsk-1/2", description="modulation and LDPC code rate; `envelope`: the best of several at each SNR"
    )
    split: str = Field(
        "sic", description="users' shares of the power: 0.8/0.2, equal, or sic (4:1 ladder, 0.8/0.2 for two)"
    )
    block: Literal["image", "joint"] = Field("image", description="one code block an image, or joint ones of 4096 bits")
    codec: Literal["bpg", "jpeg"] = Field("bpg", description="source codec")
    count: Literal["file", "slice", "scan"] = Field(
        "file", description="bytes counted: the whole file, a BPG's slice payload alone, or a JPEG's scan alone"
    )
    search: Literal["auto", "bisect", "ladder"] = Field(
        "auto", description="rate control: bisection over QP (auto), or the best of all 52 encodings"
    )
    receiver: Literal["sic", "ml", "linear"] = Field(
        "sic",
        description="successive cancellation behind an MMSE receiver (sic), or each user by itself: from joint "
        "detection of small alphabets by maximum likelihood (ml), or behind the link's --detector (linear)",
    )
    iterations: int = Field(20, ge=1, le=200, description="LDPC decoder iterations, at the most")
    decoder: Literal["auto", "numba", "sionna"] = Field(
        "auto", description="LDPC decoder: layered min-sum (auto on a CPU) or Sionna's boxplus-phi (auto on a GPU)"
    )


class BpgLdpcQamSic(Scheme):
    """BPG + LDPC + QAM + SIC (KDD paper, section VI-A2).

    All users send at once with one MCS; the receiver orders them by received power in each frame, decodes with the rest
    as noise (of several antennas behind an MMSE receiver), re-encodes, subtracts. A checksum tells it which blocks are
    lost; a lost image shows the training set's mean colour. The transmitter knows nothing of the channel.
    """

    name: ClassVar[str] = "bpg-ldpc-qam-sic"
    summary: ClassVar[str] = "BPG, 5G LDPC, QAM, codeword-level successive interference cancellation"
    Params: ClassVar[type[Params]] = DigitalParams
    envelopes: ClassVar[Mapping[str, tuple[str, ...]]] = {"mcs": ENVELOPE}
    csi: ClassVar[str] = "receiver"

    def __init__(self, setting: Setting, params: DigitalParams) -> None:
        from baselines.codecs.select import check_count

        super().__init__(setting, params)
        check_count(params.codec, params.count)
        self._mcs = parse_mcs(params.mcs)
        self._split = parse_split(params.split, setting.link.users)
        if params.receiver != "sic":
            from linksim.link.detection import check_detector, check_joint

            if params.receiver == "ml":
                check_joint(setting.link.users, self._mcs.bits_per_symbol)
            else:
                check_detector(setting.link)
        self._joint = joint_images(self._mcs, setting.channel_uses) if params.block == "joint" else 1
        self.frame: Frame = lay_out(self._mcs, setting.channel_uses, self._joint)
        self._backend = params.decoder if params.decoder != "auto" else "numba" if setting.device == "cpu" else "sionna"

    @property
    def group_multiple(self) -> int:
        """Images of a joint block."""
        return self._joint

    @property
    def split(self) -> tuple[float, ...]:
        """Shares of the total power."""
        return self._split

    def provenance(self) -> dict[str, str]:
        """Codec build, code and decoder."""
        frame = self.frame
        return {
            "codec": self._controller.codec.settings,
            "code": f"5G LDPC ({frame.info_bits}, {frame.coded_bits}), {frame.blocks} blocks for {frame.images} "
            f"images, CRC-{frame.crc_bits}, {frame.image_bytes} bytes an image, scrambled by user",
            "decoder": f"{self._decoder}, {self.params.iterations} iterations",
        }

    @property
    def _decoder(self) -> str:
        """The LDPC decoder in words."""
        if self._backend == "sionna":
            return "sionna boxplus-phi"
        return f"numba layered normalised min-sum, alpha {tuned_alpha(self.frame.info_bits, self.frame.coded_bits):g}"

    def transmit(self, images: Tensor, side: SideInfo) -> Tensor:
        """See `Scheme.transmit`."""
        import torch

        from baselines.bpg_ldpc_qam_sic.modem import modem
        from baselines.bpg_ldpc_qam_sic.sic import modulate_frames
        from baselines.codecs.pixels import to_pixels

        batch, users = images.shape[:2]
        pixels = to_pixels(images.transpose(0, 1))
        symbols = torch.empty((users, batch, self.symbols_per_user), dtype=torch.complex64, device=images.device)
        for run, coder in self._frames(batch):
            part = pixels[:, run].reshape(-1, *pixels.shape[2:])
            encodings = self._controller.fit(part, coder.frame.image_bytes)
            info = coder.pack([None if encoding is None else encoding.stream for encoding in encodings])
            owners = np.repeat(np.arange(users), len(info) // users)
            qam = modem(self._mcs.bits_per_symbol, self.setting.device)
            sent = modulate_frames(coder, qam, info, owners, self.setting.device)
            symbols[:, run] = sent.reshape(users, -1, self.symbols_per_user)
        amplitudes = torch.tensor(self.powers, device=images.device).sqrt()
        return (symbols * amplitudes[:, None, None]).transpose(0, 1)

    def receive(self, received: Tensor, side: SideInfo) -> Received:
        """See `Scheme.receive`."""
        import torch

        from baselines.bpg_ldpc_qam_sic.modem import modem
        from baselines.bpg_ldpc_qam_sic.sic import cancel_successively, decode_apart
        from baselines.codecs.pixels import show

        batch, antennas, users, coefficients = side.h.shape
        powers = torch.tensor(self.powers, device=received.device)
        gains = side.h * powers.sqrt()[:, None]
        noise_var = self.noise(side)
        streams: list[list[bytes | None]] = [[None] * users for _ in range(batch)]
        clusters: list[tuple[int, int]] = []
        for run, coder in self._frames(batch):
            size = coder.frame.images
            heard = (
                received[run].reshape(-1, size, antennas, received.shape[-1]),
                gains[run].reshape(-1, size, antennas, users, coefficients),
                noise_var[run].reshape(-1, size),
                coder,
                modem(self._mcs.bits_per_symbol, self.setting.device),
            )
            if self.params.receiver == "sic":
                found = cancel_successively(*heard)
            else:
                linear = self.params.receiver == "linear"
                found = decode_apart(*heard, self.setting.link.detector if linear else None)
            # A frame's users share its noise, and its images' blocks the fading: no two frames share anything.
            clusters += [(frame.size, int((~frame).sum())) for frame in found.good]
            whole = np.asarray(found.good.all(axis=2))
            for user in range(users):
                for index, stream in enumerate(coder.unpack(found.info[:, user])):
                    if whole[index // size, user] and stream:
                        streams[run.start + index][user] = stream
        like = torch.empty((batch, users, *self.setting.image_shape), device=received.device)
        flat = [stream for group in streams for stream in group]
        shown, lost = show(flat, self._controller, like, self.setting.train_mean)
        blocks, errors = (sum(counts) for counts in zip(*clusters, strict=True))
        return Received(shown, lost, blocks, errors, tuple(clusters))

    def _frames(self, batch: int) -> list[tuple[slice, BlockCoder]]:
        """The runs of groups in a batch and their coders: whole frames, then what is left in a shorter frame."""
        whole = batch - batch % self._joint
        runs: list[tuple[slice, BlockCoder]] = []
        if whole:
            runs.append((slice(0, whole), self._coder(self._joint)))
        if whole < batch:
            runs.append((slice(whole, batch), self._coder(batch - whole)))
        return runs

    def _coder(self, images: int) -> BlockCoder:
        frame = self.frame if images == self._joint else lay_out(self._mcs, self.setting.channel_uses, images)
        return _coder(frame, self.params.iterations, self._backend, self.setting.device)

    @property
    def _controller(self) -> RateController:
        from baselines.codecs.select import controller

        search = "bisect" if self.params.search == "auto" else self.params.search
        return controller(self.params.codec, self.params.count, search)


class JpegParams(DigitalParams):
    """Parameters of the digital baseline with JPEG."""

    mcs: str = Field(
        "qpsk-3/4", description="modulation and LDPC code rate; `envelope`: the best of several at each SNR"
    )
    codec: Literal["bpg", "jpeg"] = Field("jpeg", description="source codec")
    count: Literal["file", "slice", "scan"] = Field(
        "scan", description="bytes counted: the whole file, or a JPEG's scan alone: no whole file fits a small image"
    )


class JpegLdpcQam(BpgLdpcQamSic):
    """JPEG + LDPC + QAM, the digital baseline of the GSC paper (section IV-A); several users as with BPG."""

    name: ClassVar[str] = "jpeg-ldpc-qam"
    summary: ClassVar[str] = "JPEG (its scan alone counted), 5G LDPC, QAM; several users by cancellation"
    Params: ClassVar[type[Params]] = JpegParams
    envelopes: ClassVar[Mapping[str, tuple[str, ...]]] = {"mcs": JPEG_ENVELOPE}


@functools.lru_cache(maxsize=64)
def _coder(frame: Frame, iterations: int, backend: str, device: str) -> BlockCoder:
    from baselines.bpg_ldpc_qam_sic.blocks import BlockCoder

    return BlockCoder(frame, iterations, backend, device)
