"""The former place of `strict.py` and of `file.py`: scripts that import from here go on working."""

import warnings
from typing import Any

from torch import Tensor

from mimdet.checkpoint import file, strict
from mimdet.checkpoint.convert.mae import strip_prefixes


def _read_state_dict(path: str) -> dict[str, Tensor]:
    return strip_prefixes(file.read_tensors(path, "mae_checkpoint.path"))


_MOVED = {
    "StrictCheckpointer": (strict.StrictCheckpointer, "mimdet.checkpoint.strict"),
    "read_state_dict": (_read_state_dict, "read_tensors in mimdet.checkpoint.file"),
}


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    moved, place = _MOVED[name]
    # not a DeprecationWarning, which Python shows for the main script only
    warnings.warn(f"{name} of {__name__} is now {place}", FutureWarning, stacklevel=2)
    return moved
