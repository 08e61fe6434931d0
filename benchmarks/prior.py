"""How good a diffusion prior is by itself: `python benchmarks/prior.py [PRIOR]`, as `--prior` of a sweep takes it.

Images that it draws from noise, unconditionally, are held against CIFAR-10's validation images: FID and KID (asset
inception-fid). Beside them stands the PSNR of images that it denoises, of a prior of linksim's schedule, which is what
a refinement asks of it.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from linksim.data.training import CIFAR10, TrainingData
from linksim.metrics import Fid, Kid
from linksim.models.spec import CIFAR10_SHAPE
from linksim.refine.ddim.priors import Checkpoint, find_prior
from linksim.refine.ddim.training import denoising_psnr
from linksim.refine.diffusion import OWN_SCHEDULE, Prior, sample, step_count

#: Images that are drawn at once.
_TOGETHER = 50


def drawn(prior: Prior, count: int, steps: int, shape: tuple[int, int, int] = CIFAR10_SHAPE, seed: int = 0) -> Tensor:
    """Images from noise alone, by DDIM without randomness (eta 0).

    Args:
        prior: what draws.
        count: T, images.
        steps: DDIM steps; they divide the original steps.
        shape: (C, H, W).
        seed: of the noise; that of an image does not depend on how many are drawn.

    Returns:
        float32 [T, C, H, W] in [0, 1].

    Raises:
        LinksimError: steps that do not fit.
    """
    total = int(prior.schedule["num_train_timesteps"])
    steps = step_count(total, steps, total)
    parts = []
    for start in range(0, count, _TOGETHER):
        images = range(start, min(count, start + _TOGETHER))
        noise = np.stack([
            np.random.Generator(np.random.Philox(key=[seed, image])).standard_normal(shape, np.float32)
            for image in images
        ])  # fmt: skip
        begin = torch.from_numpy(noise)
        parts.append(sample(prior, torch.full_like(begin, 0.5), partial(torch.clone, begin), total, steps, 0.0, "ddim"))
    return torch.cat(parts)


def main() -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", nargs="?", default="small")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--data-dir", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = find_prior(args.prior, Checkpoint(), CIFAR10_SHAPE)
    prior = found.load("cpu", "float32", CIFAR10_SHAPE)
    sent = TrainingData(CIFAR10, args.data_dir, None, None).load().held_out
    fid, kid = Fid(), Kid()
    own = fid.features(drawn(prior, args.images, args.steps))
    real = fid.features(torch.tensor(sent[: args.images]).float() / 255)
    said = f"FID {fid.distance(real, own):.1f}, KID {kid.distance(real, own):.4f}"
    print(f"{args.prior}: {said} of {args.images} images in {args.steps} steps, against {len(real)} validation images")
    if dict(prior.schedule) == dict(OWN_SCHEDULE):
        told = denoising_psnr(prior.network, sent[:512], "cpu")
        print("denoised: " + ", ".join(f"{value:.2f} dB at t = {step}" for step, value in told.items()))


if __name__ == "__main__":
    main()
