"""RGB to 4:2:0 YCbCr and back in integers, so that every machine gets the same bytes.

BT.601 matrix over the full range (that of JPEG; BPG's color_space 0 with limited_range_flag 0, HEVC's
matrix_coeffs 5 with video_full_range_flag 1). Chroma samples lie in the middle of their four pixels (BPG's
pixel_format 1).
"""

import numpy as np
import numpy.typing as npt

_BITS = 14
_HALF = 1 << (_BITS - 1)


def _fixed(x: float) -> int:
    return round(x * (1 << _BITS))


# Catmull-Rom weights in 1/128 a quarter sample before a sample, of its neighbours at -2, -1, 0, +1.
_TAPS = (-3, 29, 111, -9)


def _up2(chroma: npt.NDArray[np.int32], axis: int) -> npt.NDArray[np.int32]:
    """128 times the cubic interpolation a quarter sample before and after each sample; `axis` doubles."""
    n = chroma.shape[axis]
    at = np.arange(n)
    before, after = (
        sum(
            tap * chroma.take(np.clip(at + side * offset, 0, n - 1), axis)
            for tap, offset in zip(_TAPS, (-2, -1, 0, 1), strict=True)
        )
        for side in (1, -1)
    )
    pairs = np.stack([before, after], axis + 1)
    return pairs.reshape(*chroma.shape[:axis], 2 * n, *chroma.shape[axis + 1 :])


def rgb_to_yuv420(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Images [B, H, W, 3], H and W even, as planar frames [B, H * 3 / 2, W]: Y, then Cb, then Cr.

    Each chroma sample is the mean of its four pixels, rounded once.
    """
    batch, height, width, _ = images.shape
    r, g, b = (images[..., i].astype(np.int32) for i in range(3))
    y = (_fixed(0.299) * r + _fixed(0.587) * g + _fixed(0.114) * b + _HALF) >> _BITS
    sums = images.reshape(batch, height // 2, 2, width // 2, 2, 3).sum((2, 4), dtype=np.int32)
    r, g, b = (sums[..., i] for i in range(3))
    chroma = []
    for weights in (
        (-0.299 / 1.772, -0.587 / 1.772, 0.5),
        (0.5, -0.587 / 1.402, -0.114 / 1.402),
    ):
        wr, wg, wb = map(_fixed, weights)
        mean = (wr * r + wg * g + wb * b + (_HALF << 2)) >> (_BITS + 2)
        chroma.append(np.clip(mean + 128, 0, 255).astype(np.uint8).reshape(batch, -1))
    planes = [np.clip(y, 0, 255).astype(np.uint8).reshape(batch, -1), *chroma]
    return np.concatenate(planes, 1).reshape(batch, height * 3 // 2, width)


def yuv420_to_rgb(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Planar frames [B, H * 3 / 2, W] as images [B, H, W, 3]; chroma is interpolated cubically."""
    batch, rows, width = frames.shape
    height = rows * 2 // 3
    flat = frames.reshape(batch, -1)
    y = (frames[:, :height].astype(np.int32) << _BITS) + _HALF
    chroma = flat[:, height * width :].reshape(batch, 2, height // 2, width // 2).astype(np.int32) - 128
    # 128 * 128 times its value after two interpolations, 256 times after this: the products below fit 32 bits
    cb, cr = ((_up2(_up2(chroma, 2), 3) + (1 << 5)) >> 6).transpose(1, 0, 2, 3)
    rgb = np.empty((batch, height, width, 3), np.uint8)
    for i, (from_cb, from_cr) in enumerate(
        (
            (0.0, 1.402),
            (-0.114 * 1.772 / 0.587, -0.299 * 1.402 / 0.587),
            (1.772, 0.0),
        )
    ):
        offset = (_fixed(from_cb) * cb + _fixed(from_cr) * cr) >> 8
        rgb[..., i] = np.clip((y + offset) >> _BITS, 0, 255)
    return rgb
