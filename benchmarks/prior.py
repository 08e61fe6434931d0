"""How good a diffusion prior is by itself: `python benchmarks/prior.py [PRIOR]`, as `--prior` of a sweep takes it.

Images that it draws from noise, unconditionally, are held against CIFAR-10's validation images: FID and KID (asset
inception-fid). Beside them stands the PSNR of images that it denoises, of a prior of linksim's schedule, which is what
a refinement asks of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from linksim.data.training import CIFAR10, TrainingData
from linksim.models.spec import CIFAR10_SHAPE
from linksim.refine.ddim.priors import Checkpoint, find_prior
from linksim.refine.ddim.training import denoising_psnr, drawn_quality
from linksim.refine.diffusion import OWN_SCHEDULE


def main() -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", nargs="?", default="small")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--data-dir", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    prior = find_prior(args.prior, Checkpoint(), CIFAR10_SHAPE).load("cpu", "float32", CIFAR10_SHAPE)
    sent = TrainingData(CIFAR10, args.data_dir, None, None).load().held_out
    found = drawn_quality(prior, sent[: args.images], args.steps)
    said = ", ".join(f"{name.upper()} {value:.4g}" for name, value in found.items())
    print(f"{args.prior}: {said} of {args.images} images in {args.steps} steps, against as many validation images")
    if dict(prior.schedule) == dict(OWN_SCHEDULE):
        told = denoising_psnr(prior.network, sent[:512], "cpu")
        print("denoised: " + ", ".join(f"{value:.2f} dB at t = {step}" for step, value in told.items()))


if __name__ == "__main__":
    main()
