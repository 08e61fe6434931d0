"""Orthogonal embedding: users that superpose start as users in separate channel uses.

N users of bandwidth ratio rho begin as the orthogonal model of rho/N. User u owns the u-th N-th of the real maps and of
the imaginary maps, and its decoder looks at those alone (`Transceiver.embed`). What is left to learn is to send nothing
elsewhere: encoder and user planes are trained for some 2,000 steps to send what the orthogonal model would. What they
still send on others' maps is noise to those, and a short training after it does not make up for that. From there on the
users may share what time-sharing would keep apart. A superposing model that starts from an orthogonal one without this
stays for long where it cannot tell the users apart.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from linksim.devices import trains_in_bfloat16
from linksim.link.power import normalise
from linksim.models.batch import Transmission
from linksim.models.pool import Pool
from linksim.models.task import draw_seed
from linksim.nets.network import side_information, to_features, to_symbols
from linksim.nets.optimizers import Optimizer
from linksim.nets.precision import laid_out
from linksim.schemes.semnoma.network import Transceiver, own_maps
from linksim.schemes.semnoma.recipe import Recipe


def orthogonal_symbols(
    model: Transceiver, source: Transceiver, images: Tensor, side: Tensor, corners: Tensor | None = None
) -> Tensor:
    """What the orthogonal `source` would send, on each user's own maps of `model`, with zeros elsewhere.

    Args:
        model: N users with M maps each.
        source: the orthogonal model, M/N maps.
        images: float32 [B, N, C, H, W] in [0, 1].
        side: side information [B, N, D].
        corners: of image parts, see `with_planes`.

    Returns:
        complex64 [B, N, k], of unit mean power over all k symbols.
    """
    source.serve(model.shape.image_shape)
    sent = source.encode(images, side, (1.0,) * model.users, corners)
    maps = to_features(sent, (source.shape.channels, *source.shape.feature_side))
    wide = maps.new_zeros(*images.shape[:2], model.shape.channels, *model.shape.feature_side)
    for user in range(model.users):
        wide[:, user, own_maps(user, model.users, model.shape.channels)] = maps[:, user]
    return normalise(to_symbols(wide), (1.0,) * model.users)


def train_embedding(
    model: Transceiver, source: Transceiver, transmission: Transmission, recipe: Recipe, pool: Pool, seed: int,
    report: Callable[[int, int], None] | None = None,
) -> int:  # fmt: skip
    """Trains encoder and user planes of an embedded model to send what its source would; the decoders stay.

    Args:
        model: after `Transceiver.embed(source)`.
        source: the orthogonal model.
        transmission: of `model`.
        recipe: its `embed_steps`, batch and SNRs are read; rate and optimiser are the embedding's own.
        pool: training images.
        seed: of the draws.
        report: told the steps, done and in all.

    Returns:
        image groups that it took.
    """
    source = laid_out(source, pool.device)
    model.decoders.requires_grad_(False)
    optimizer = Optimizer(model, "muon", 2e-3, 1e-4)
    model.train()
    for step in range(recipe.embed_steps):
        # Not the draws of the steps that follow.
        torch.manual_seed(draw_seed(seed, step, stream=1))
        embedding_step(model, source, transmission, recipe, pool, optimizer, 2e-3 * _share(step, recipe.embed_steps))
        if report is not None:
            report(step + 1, recipe.embed_steps)
    model.decoders.requires_grad_(True)
    optimizer.zero_grad()
    return recipe.embed_steps * recipe.batch


def embedding_step(
    model: Transceiver, source: Transceiver, transmission: Transmission, recipe: Recipe, pool: Pool,
    optimizer: Optimizer, rate: float,
) -> None:  # fmt: skip
    """One step of `train_embedding`, at a learning rate; it draws from torch's own generator."""
    device = pool.device
    batch = transmission.draw(recipe, pool)
    side = transmission.side(batch)
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=trains_in_bfloat16(device)):
        sent = transmission.encoded(model, batch, (1.0,) * model.users)
        with torch.no_grad():
            wanted = orthogonal_symbols(model, source, batch.images, side, batch.corners)
    optimizer.zero_grad()
    ((sent - wanted).abs().square().mean() / wanted.abs().square().mean()).backward()
    optimizer.step(rate)


def embedding_error(
    model: Transceiver, source: Transceiver, images: NDArray[np.uint8], snr_db: float, h: Tensor
) -> tuple[float, float]:
    """How far an embedded model is from its source.

    Args:
        images: uint8 [B, N, C, H, W].
        snr_db: gamma that both are told.
        h: complex64 [B, N].

    Returns:
        error: power of what differs over the power sent, in dB.
        leakage: power on other users' maps over the power sent, in dB.
    """
    shown = torch.tensor(images).float() / 255
    side = side_information(torch.full((len(shown),), snr_db), h, model.side_dim)
    with torch.no_grad():
        wanted = orthogonal_symbols(model, source, shown, side)
        sent = model.encode(shown, side, (1.0,) * model.users)
    elsewhere = sent[wanted == 0]
    powers = [float(part.abs().square().sum()) for part in (sent - wanted, elsewhere, sent)]
    return 10 * float(np.log10(powers[0] / powers[2])), 10 * float(np.log10(powers[1] / powers[2]))


def _share(step: int, steps: int) -> float:
    """Of the rate: it rises over the first 3% of the steps and falls over the last 30%."""
    return min(1.0, (step + 1) / (0.03 * steps), (steps - step) / (0.3 * steps))
