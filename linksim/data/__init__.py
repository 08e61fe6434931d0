"""Data sets and the grouping of their images into users. Importing this package imports no network library."""

from linksim.data.cifar10 import load_cifar10_train
from linksim.data.datasets import DATASETS, load_dataset
from linksim.data.groups import Grouping
from linksim.data.images import FolderImages, ImageSet

__all__ = ["DATASETS", "FolderImages", "Grouping", "ImageSet", "load_cifar10_train", "load_dataset"]
