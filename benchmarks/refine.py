"""Seconds of a refinement: `python benchmarks/refine.py`.

64 images of 32x32 go through the small prior in 50 steps (T' = 200), the generator of SemNOMA-CGAN, ten steps of the
flow and diffbir-mini, in one process of one thread, as a sweep's workers do it.
"""

import tempfile
import warnings

import linksim

SCHEMES = ("kd+ddim:start=200,steps=50", "kd+cgan", "kd+flow:steps=10,strength=1", "semnoma+diffbir-mini")


def main() -> None:
    """Prints a line for each refiner."""
    warnings.simplefilter("ignore")
    for scheme in SCHEMES:
        with tempfile.TemporaryDirectory() as folder:
            table = linksim.sweep(f"{folder}/x", scheme=scheme, snr="0", groups=32, metrics="psnr", progress=False)
        row = table.iloc[-1]
        print(
            f"{scheme}: {row['refine_steps']:.0f} steps, {row['refine_seconds']:.1f} s for {row['n_images']} images, "
            f"{row['refine_images_per_s']:.1f} images/s"
        )


if __name__ == "__main__":
    main()
