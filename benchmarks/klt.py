"""Writes what the baseline klt knows of images: `python benchmarks/klt.py --data-dir DIR` (CIFAR-10's binary files)."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from baselines.klt.scheme import MOMENTS, moments_of
from linksim.data.cifar10 import load_cifar10_train


def main() -> None:
    """Measures on the training images and writes the file that the package ships."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path)
    found = moments_of(load_cifar10_train(parser.parse_args().data_dir))
    np.savez(MOMENTS, **found)  # type: ignore[arg-type]
    print(f"{MOMENTS}: {MOMENTS.stat().st_size >> 10} KiB")


if __name__ == "__main__":
    main()
