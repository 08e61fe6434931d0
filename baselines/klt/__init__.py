"""KLT: linear transmission of image blocks, a reference without training."""

from baselines.klt.scheme import Klt

__all__ = ["Klt"]
