"""Data sets and the grouping of their images into users. Importing this package imports no network library."""

from linksim.data.cifar10 import load_cifar10_train
from linksim.data.datasets import DATASETS, DataSource, kind_of, load_dataset, register
from linksim.data.groups import Grouping
from linksim.data.images import FolderImages, ImageSet

__all__ = [
    "DATASETS",
    "DataSource",
    "FolderImages",
    "Grouping",
    "ImageSet",
    "kind_of",
    "load_cifar10_train",
    "load_dataset",
    "register",
]
