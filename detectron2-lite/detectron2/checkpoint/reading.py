"""Reads checkpoint files without running code from them."""

import codecs
import logging
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

UNSAFE_LOAD_VARIABLE = "DETECTRON2_ALLOW_UNSAFE_LOAD"

logger = logging.getLogger(__name__)

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


def read_torch(file: str) -> Any:
    """Read a file of `torch.save` on the CPU, without executing code from it."""
    if _unsafe_load_allowed(file):
        return torch.load(file, map_location="cpu", weights_only=False)
    dtypes = [type(np.dtype(code)) for code in np.typecodes["AllInteger"] + "?efdSU"]
    numpy_globals = [(function, name) for name, function in _NUMPY_GLOBALS.items()]
    try:
        with torch.serialization.safe_globals([*numpy_globals, *dtypes]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as e:  # of any type: torch reads whatever the bytes may mean to it
        # Of a file that it refuses torch tells at length how to load it all the same.
        cause = None if isinstance(e, pickle.UnpicklingError) else e
        refused = re.search(r"GLOBAL ([\w.]+)", str(e))  # the only place where torch says it
        if refused:
            raise _refusal(file, refused[1]) from cause
        raise ValueError(
            f"{file} is damaged or not a checkpoint of torch.save ({type(e).__name__}); "
            "fetch or save it again"
        ) from cause


class _ArrayUnpickler(pickle.Unpickler):
    """Reads numpy arrays and plain containers, and refuses everything else."""

    _ALLOWED = _NUMPY_GLOBALS | {
        "collections.OrderedDict": OrderedDict,
        "_codecs.encode": codecs.encode,
    }

    def __init__(self, file: IO[bytes]):
        super().__init__(file, encoding="latin1")  # many of these files come from Python 2
        self._name = file.name

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The allowed object of this name."""
        full_name = f"{module_name}.{global_name}"
        if full_name not in self._ALLOWED:
            raise _refusal(self._name, full_name)
        return self._ALLOWED[full_name]


def read_pickle(file: str) -> Any:
    """Read a pickled checkpoint of numpy arrays, without executing code from it."""
    with open(file, "rb") as f:
        if _unsafe_load_allowed(file):
            loaded = pickle.load(f, encoding="latin1")
        else:
            try:
                loaded = _ArrayUnpickler(f).load()
            except (pickle.UnpicklingError, EOFError, AttributeError, IndexError) as e:
                raise ValueError(f"{file} is damaged or not a pickle: {e}") from e
    if isinstance(loaded, dict) and "model" not in loaded:
        raise ValueError(
            f"{file} has no 'model': it looks like a Caffe2 checkpoint, whose names "
            "detectron2-lite cannot convert; load and save it once with upstream Detectron2"
        )
    return loaded


def as_checkpoint(loaded: Any, file: str) -> dict[str, Any]:
    """Check that a loaded object is a dict whose `model` maps names to tensors or arrays."""
    if not isinstance(loaded, dict) or not isinstance(loaded.get("model"), Mapping):
        content = sorted(map(str, loaded))[:5] if isinstance(loaded, dict) else type(loaded)
        raise ValueError(
            f"{file} is not a checkpoint: it must hold a state dict, or a dict with the state dict "
            f"as 'model'; it holds {content}"
        )
    for name, value in loaded["model"].items():
        if not isinstance(name, str) or not isinstance(value, Tensor | np.ndarray):
            raise ValueError(
                f"{file} is not a checkpoint: a model state must map names to tensors or arrays, "
                f"its entry {name!r} is {type(value).__name__}. If the weights lie deeper, save "
                "them as {'model': state_dict}"
            )
    return loaded


def _unsafe_load_allowed(file: str) -> bool:
    if os.environ.get(UNSAFE_LOAD_VARIABLE) != "1":
        return False
    logger.warning(f"{UNSAFE_LOAD_VARIABLE}=1: code that {file} may contain is executed")
    return True


def _refusal(file: str, type_name: str) -> ValueError:
    return ValueError(
        f"{file} contains {type_name}, which a checkpoint must not: loading it could execute code "
        f"from the file. If you trust its source, set {UNSAFE_LOAD_VARIABLE}=1"
    )
