"""Checkpoint files: read without running code that they may hold, written whole or not at all."""

import argparse
import os
import pickle
import re
import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Under which key files keep the state dict beside other things: ours and MAE, then mmcv and timm.
_WRAPPERS = ("model", "state_dict", "state_dict_ema")


def read_checkpoint(path: str, given_by: str) -> Any:
    """Read what a file of ``torch.save`` holds, with tensors on the CPU.

    Args:
        path: the file.
        given_by: the config key or option that names it, for messages.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no such checkpoint, or holds objects that loading would execute.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no checkpoint {path} ({given_by})")
    try:
        # MAE's training script saves its argparse.Namespace beside the model; it is plain data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
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


def read_tensors(path: str, given_by: str) -> dict[str, Tensor]:
    """Read the tensors of a state dict from a file, by their names in the file.

    Args:
        path: holds the state dict itself, or a dict with it under "model", "state_dict" or
            "state_dict_ema".
        given_by: the config key or option that names the file, for messages.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if `read_checkpoint` refuses the file, or it holds no state dict.
    """
    content = read_checkpoint(path, given_by)
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


def write_checkpoint(content: dict, output: str) -> None:
    """Save to a file beside `output` that takes its place when it is complete.

    Raises:
        FileNotFoundError: if the folder of `output` does not exist.
    """
    folder = os.path.dirname(os.path.abspath(output))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"there is no folder {folder} for {output}; make it first")
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # a temporary file is private, a checkpoint is not
        os.replace(temporary, output)
    except BaseException:
        os.unlink(temporary)
        raise
