"""Reads checkpoint files without running code from them."""

import codecs
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import torch

# The functions by which numpy restores arrays and scalars; they do nothing but build values. Files
# hold them under the module names of numpy 1 (core) or numpy 2 (_core).
_NUMPY_FUNCTIONS = {
    "multiarray._reconstruct": np.zeros(1).__reduce__()[0],
    "multiarray.scalar": np.float64(0).__reduce__()[0],
    "numeric._frombuffer": np.zeros(1).__reduce_ex__(5)[0],
}
_NUMPY_GLOBALS = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    **{f"numpy.core.{name}": function for name, function in _NUMPY_FUNCTIONS.items()},
    **{f"numpy._core.{name}": function for name, function in _NUMPY_FUNCTIONS.items()},
}
_PICKLE_GLOBALS = _NUMPY_GLOBALS | {
    "collections.OrderedDict": OrderedDict,
    # By which pickles of protocol 2 hold bytes, such as the content of arrays.
    "_codecs.encode": codecs.encode,
}


def read_torch(file: str) -> Any:
    """Read a file of `torch.save` with tensors, arrays and plain values, on the CPU.

    Raises:
        pickle.UnpicklingError: if it holds anything else.
    """
    # numpy has a class for each dtype, and torch wants each of them allowed.
    dtypes = [type(np.dtype(code)) for code in np.typecodes["AllInteger"] + "?efdSU"]
    numpy_globals = [(function, name) for name, function in _NUMPY_GLOBALS.items()]
    with torch.serialization.safe_globals([*numpy_globals, *dtypes]):
        return torch.load(file, map_location="cpu", weights_only=True)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads numpy arrays and plain containers, and refuses everything else."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The allowed object of this name."""
        full_name = f"{module_name}.{global_name}"
        if full_name not in _PICKLE_GLOBALS:
            raise pickle.UnpicklingError(f"a checkpoint must not hold {full_name}: it could be run")
        return _PICKLE_GLOBALS[full_name]


def read_pickle(file: str) -> dict[str, Any]:
    """Read a pickled checkpoint of numpy arrays.

    Raises:
        pickle.UnpicklingError: if it holds anything else.
        ValueError: if the names in it are those of Caffe2.
    """
    with open(file, "rb") as f:
        loaded = _ArrayUnpickler(f, encoding="latin1").load()  # many are from Python 2
    if "model" not in loaded:
        raise ValueError(
            f"{file} has no 'model': it looks like a Caffe2 checkpoint, whose names "
            "detectron2-lite cannot convert; load and save it once with upstream Detectron2"
        )
    return loaded
