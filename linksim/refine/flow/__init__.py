"""Posterior-mean rectified flow (Ohayon, Michaeli and Elad, ICLR 2025) from a first stage's images to images."""
