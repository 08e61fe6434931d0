"""A transceiver's model at work: the draws of a training step, what it shows of them, and a fixed validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from linksim.link.draws import FreshDraws, KeyedDraws
from linksim.link.realisation import Realisation, realise
from linksim.link.units import channel_uses, noise_variance
from linksim.metrics import mse, psnr_from_mse
from linksim.nets.network import Network, side_information

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from linksim.link.config import Access
    from linksim.models.pool import Pool
    from linksim.models.recipe import LinkRecipe
    from linksim.models.spec import ModelSpec
    from linksim.models.task import Share

VALIDATION_SNRS_DB = (0.0, 10.0, 20.0)
_VALIDATION_GROUPS = 256
_VALIDATION_PIXELS = 2**22
_VALIDATION_SEED = 2**40


@dataclass(frozen=True)
class Batch:
    """One step's draws.

    Args:
        images: float32 [B, N, C, H, W] in [0, 1].
        snr_db: gamma, [B].
        channel: of both student and teacher.
        teacher_channel: the same fading, seen by orthogonal users.
        noise: unit noise of the student, complex [B, 1, k] or [B, 1, N, k].
        teacher_noise: of the teacher, complex [B, 1, N, k].
        corners: of image parts in the images that they are of, [B, N, 2]; None for whole images.
    """

    images: Tensor
    snr_db: Tensor
    channel: Realisation
    teacher_channel: Realisation
    noise: Tensor
    teacher_noise: Tensor
    corners: Tensor | None = None

    def part(self, share: Share) -> Batch:
        """The image groups of a share."""
        share.begin()
        rows = share.rows(len(self.images))
        return Batch(
            self.images[rows], self.snr_db[rows], replace(self.channel, h=self.channel.h[rows]),
            replace(self.teacher_channel, h=self.teacher_channel.h[rows]), self.noise[rows], self.teacher_noise[rows],
            None if self.corners is None else self.corners[rows],
        )  # fmt: skip

    @property
    def h(self) -> Tensor:
        """Coefficients, complex [B, N]."""
        return self.channel.h[:, 0, :, 0]

    @property
    def noise_var(self) -> Tensor:
        """sigma^2 per complex symbol, [B]."""
        return 10 ** (-self.snr_db / 10)


@dataclass(frozen=True)
class Transmission:
    """How a transceiver's model sends.

    Args:
        spec: the model.
        access: "noma", its users superpose, or "oma", each has its own channel uses.
        image_shape: (C, H, W) of what is sent, where that is not what the model is for.
    """

    spec: ModelSpec
    access: Access
    image_shape: tuple[int, int, int] | None = None

    @property
    def powers(self) -> tuple[float, ...]:
        """Power of each user over its own symbols."""
        return self.spec.powers(self.access)

    @property
    def symbols(self) -> int:
        """Complex symbols of one user."""
        return self.spec.symbols if self.image_shape is None else channel_uses(self.spec.rho, self.image_shape)

    def cut(self, crop: int) -> Transmission:
        """Of parts of images, `crop` pixels a side; 0: as it is."""
        return replace(self, image_shape=(self.spec.image_shape[0], crop, crop)) if crop else self

    def whole(self, crop: int) -> Transmission:
        """Of whole images, by a network that is trained on parts of `crop` pixels; 0: as it is."""
        return replace(self, image_shape=self.spec.image_shape) if crop else self

    def laid_for(self, network: Network) -> Network:
        """The network, ready for what is sent here."""
        if self.image_shape is not None:
            network.serve(self.image_shape)
        return network

    def encoded(self, network: Network, batch: Batch, powers: tuple[float, ...] | None = None) -> Tensor:
        """What a network sends of a batch, complex [B, N, k], of its users' powers unless others are given."""
        place = {"corners": batch.corners} if network.placed and batch.corners is not None else {}
        symbols: Tensor = self.laid_for(network).encode(batch.images, self.side(batch), powers or self.powers, **place)
        return symbols

    def draw(self, recipe: LinkRecipe, pool: Pool) -> Batch:
        """The draws of a step, from torch's own generator.

        Args:
            recipe: its batch, range of SNRs, `flip` and `crop` are read.
            pool: training images.
        """
        spec, symbols = self.spec, self.symbols
        drawn = pool.draw((recipe.batch, spec.users), recipe.flip, recipe.crop)
        images = drawn.images / 255
        low, high = recipe.snr_db
        snr_db = low + (high - low) * torch.rand(recipe.batch, device=pool.device)
        channel = realise(spec.link, FreshDraws(recipe.batch, pool.device), symbols, self.access)
        apart = replace(channel, access="oma")
        noise, teacher_noise = channel.noise(symbols), apart.noise(symbols)
        return Batch(images, snr_db, channel, apart, noise, teacher_noise, drawn.corners)

    def side(self, batch: Batch) -> Tensor:
        """What each end is told, float32 [B, N, D]."""
        return side_information(batch.snr_db, batch.h, self.spec.side_dim)

    def received(self, network: Network, batch: Batch) -> Tensor:
        """The received signal, complex [B, k] or [B, N, k]; gradients reach the network."""
        symbols = self.encoded(network, batch)
        return batch.channel.through(symbols, batch.noise_var, batch.noise)[:, 0]

    def images(self, network: Network, batch: Batch) -> Tensor:
        """What the receiver shows, float32 [B, N, C, H, W]; gradients reach the network."""
        return network.receive(self.received(network, batch), self.side(batch))

    @torch.no_grad()
    def shown(self, network: Network, batch: Batch) -> Tensor:
        """What a frozen transceiver shows of a batch, float32 [B * N, C, H, W] in [0, 1]."""
        return self.images(network, batch).float().clamp(0, 1).flatten(0, 1)

    def groups(self, images: int) -> int:
        """Image groups that a validation on that many images is on; of large images fewer."""
        _, height, width = self.image_shape or self.spec.image_shape
        bounded = max(1, _VALIDATION_PIXELS // (self.spec.users * height * width))
        return min(_VALIDATION_GROUPS, images // self.spec.users, bounded)

    def held_out(
        self, network: Network, images: NDArray[np.uint8], device: str, snr_db: float
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """What was sent and what is shown, float32 [M, C, H, W] in [0, 1], on fixed groups, fading and noise."""
        return ((sent, shown) for sent, shown, _ in self.held_out_each(network, images, device, snr_db))

    @torch.no_grad()
    def held_out_each(
        self, network: Network, images: NDArray[np.uint8], device: str, snr_db: float
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """As `held_out`, and the SNR at which each image is received, in dB [M]."""
        self.laid_for(network).eval()
        spec, groups, symbols = self.spec, self.groups(len(images)), self.symbols
        together = max(1, 64 * 32 * 32 // (images.shape[2] * images.shape[3]))
        chosen = torch.tensor(images[: groups * spec.users]).unflatten(0, (spec.users, groups)).transpose(0, 1)
        for part in torch.arange(groups).split(together):
            draws = KeyedDraws(_VALIDATION_SEED, part.tolist(), device)
            channel = realise(spec.link, draws, symbols, self.access)
            sent = chosen[part].to(device).float() / 255
            gamma = torch.full((len(part),), snr_db, device=device)
            side = side_information(gamma, channel.h[:, 0, :, 0], spec.side_dim)
            received = channel.through(
                network.encode(sent, side, self.powers), torch.full_like(gamma, noise_variance(snr_db))
            )[:, 0]
            shown = network.receive(received, side).float().clamp(0, 1)
            received_db = snr_db + 10 * channel.h[:, 0, :, 0].abs().square().clamp_min(1e-30).log10()
            yield sent.flatten(0, 1), shown.flatten(0, 1), received_db.flatten()

    def psnr(
        self, network: Network, images: NDArray[np.uint8], device: str, snrs_db: Sequence[float] = VALIDATION_SNRS_DB
    ) -> dict[float, float]:
        """Mean per-image PSNR in dB at each SNR, on fixed groups, fading and noise, in float32."""
        return {
            snr_db: float(
                torch.cat([psnr_from_mse(mse(*pair)) for pair in self.held_out(network, images, device, snr_db)]).mean()
            )
            for snr_db in snrs_db
        }
