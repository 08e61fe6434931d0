"""Reads pickles that hold plain arrays and containers, and refuses every other one.

CIFAR-10's python version and several weight files are pickles. Python's own unpickler runs whatever such a file names;
this one resolves the two constructors of a numpy array and nothing else.
"""

import io
import pickle
from typing import Any

import numpy as np

# numpy renamed the module that holds it, so it is taken from the object rather than imported by name.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no array") from None


def load_arrays(content: bytes) -> Any:
    """The object in a pickle of dicts, lists, numbers, strings and numpy arrays.

    Strings that Python 2 wrote come back as bytes.

    Raises:
        ValueError: the content is no such pickle, or it names anything but an array.
    """
    try:
        return _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # damaged pickles raise almost any type
        raise ValueError(f"not a pickle of plain arrays ({error})") from error
