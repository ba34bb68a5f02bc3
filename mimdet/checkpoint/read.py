"""Reading checkpoint files, without running code that they may hold."""

import argparse
import os
import pickle
import re
from collections.abc import Mapping

import torch
from torch import Tensor

# Under which key files keep the state dict beside other things: ours and MAE, then mmcv and timm.
_WRAPPERS = ("model", "state_dict", "state_dict_ema")


def read_tensors(path: str, given_by: str) -> dict[str, Tensor]:
    """Read the tensors of a state dict from a file of ``torch.save``, by their names in the file.

    Args:
        path: holds the state dict itself, or a dict with it under "model", "state_dict" or
            "state_dict_ema".
        given_by: the config key or option that names the file, for messages.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no such checkpoint, or holds objects that loading would execute.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no checkpoint {path} ({given_by})")
    try:
        # MAE's training script saves its argparse.Namespace beside the model; it is plain data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # of any type: torch reads whatever the bytes may mean to it
        refused = re.search(r"GLOBAL ([\w.]+)", str(e))  # the only place where torch says it
        reason = (
            f"contains {refused[1]}, and loading that could execute code"
            if refused
            else f"cannot be read as one ({type(e).__name__})"
        )
        # Of a file that it refuses torch tells at length how to load it all the same.
        cause = None if isinstance(e, pickle.UnpicklingError) else e
        raise ValueError(
            f"{path} must be a torch checkpoint of tensors ({given_by}), but it {reason}"
        ) from cause
    state_dict = content
    if isinstance(content, Mapping):
        state_dict = next((content[key] for key in _WRAPPERS if key in content), content)
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise ValueError(
            f"{path} must hold a state dict or a dict with one under "
            f"{', '.join(map(repr, _WRAPPERS))} ({given_by}), got {type(state_dict).__name__}"
        )
    tensors = {name: v for name, v in state_dict.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ValueError(f"{path} holds no tensors ({given_by})")
    return tensors
