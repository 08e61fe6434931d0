"""Between the schemes' float images and the codecs' 8-bit pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from baselines.codecs.rate_control import RateController

if TYPE_CHECKING:
    from torch import Tensor


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Images float [..., C, H, W] in [0, 1] to uint8 [..., H, W, C]."""
    scaled = (images.clamp(0, 1) * 255).round().byte().cpu().numpy()
    return np.ascontiguousarray(np.moveaxis(scaled, -3, -1))


def show(
    streams: Sequence[bytes | None], controller: RateController, like: Tensor, mean_colour: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """What a receiver shows of the streams that reached it.

    Args:
        streams: one an image, groups first, then users; None for a lost one.
        controller: decodes them.
        like: images float [B, N, C, H, W], for shape and device alone.
        mean_colour: shown in place of an image that is lost or does not decode.

    Returns:
        images float32 [B, N, C, H, W], and lost, bool [B, N].
    """
    import torch

    batch, users, channels, height, width = like.shape
    pixels = controller.decode(streams, (height, width))
    shown = torch.empty((batch * users, channels, height, width), dtype=torch.float32)
    shown[:] = torch.tensor(mean_colour, dtype=torch.float32)[:, None, None]
    lost = np.array([image is None for image in pixels])
    if not lost.all():
        arrived = np.stack([image for image in pixels if image is not None])
        shown[torch.from_numpy(~lost)] = torch.from_numpy(np.moveaxis(arrived, -1, 1).astype(np.float32) / 255)
    return shown.reshape(like.shape).to(like.device), torch.from_numpy(lost.reshape(batch, users)).to(like.device)
