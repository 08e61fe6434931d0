"""What becomes of user planes on images larger than those of their training: `python benchmarks/planes.py FOLDER`.

Shipped KD-SemNOMA and SemNOMA (compact, rho 1/6, planes of 32x32) serve the images of a folder, cropped to 96x96, with
their planes side by side and, in their place, interpolated. Prints the mean PSNR of each.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional

import linksim
from linksim.nets import network


def interpolated(mode: str) -> Callable[..., Tensor]:
    """Planes of any size from those that were learned, in place of `linksim.nets.network.tiled`."""

    def planes_of(planes: Tensor, size: tuple[int, ...], corners: Tensor | None = None) -> Tensor:
        assert corners is None
        if planes.shape[-2:] == size:
            return planes
        return functional.interpolate(planes, torch.Size(size), mode=mode)

    return planes_of


WAYS = {"side by side": network.tiled, "bilinear": interpolated("bilinear"), "nearest": interpolated("nearest")}


def main() -> None:
    """Sweeps once for every way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--image-size", default="96")
    args = parser.parse_args()
    for way, planes_of in WAYS.items():
        with tempfile.TemporaryDirectory() as out, mock.patch.object(network, "tiled", planes_of):
            table = linksim.sweep(
                Path(out) / "x", scheme="kd,semnoma", channel="awgn,rayleigh", rho="1/6", snr="0,10,20", metrics="psnr",
                dataset=f"folder:{args.folder}", image_size=args.image_size, workers=1, progress=False,
            )  # fmt: skip
        print(f"\n{way}\n{table.pivot(index=['scheme', 'channel'], columns='snr_db', values='psnr_db').round(2)}")


if __name__ == "__main__":
    main()
