"""Checkpoint files: read without running code that they may hold, written whole or not at all."""

import io
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mimdet.checkpoint.address import local_file
from mimdet.checkpoint.content_check import Refused, check_content, check_pickle
from mimdet.checkpoint.foreign_values import VALUES, described
from mimdet.checkpoint.other_files import is_pickle, what_it_is
from mimdet.checkpoint.pickled import read_pickle
from mimdet.checkpoint.records import damage_of_records, excess_of_records
from mimdet.whole_files import written_whole

# Under which key files keep the state dict beside other things: ours and MAE, then mmcv and timm.
_WRAPPERS = ("model", "state_dict", "state_dict_ema")


def read_checkpoint(path: str, given_by: str, mapped: bool = False) -> Any:
    """Read what a file of ``torch.save``, or a pickle of arrays (.pkl), holds, on the CPU.

    Of values that are neither tensors nor plain data see `mimdet.checkpoint.foreign_values`.

    Args:
        path: the file, or an address, see `mimdet.checkpoint.address.local_file`.
        given_by: the config key or option that names it, for messages.
        mapped: leave the tensors in the file until they are used, where its format allows it (that
            of torch 1.6 and later); for who wants names and shapes. Checksums are compared anyway.

    Raises:
        OSError: if there is no such file, or nothing can be fetched from the address.
        ValueError: if the file is no such checkpoint, is damaged, or holds objects that loading
            would execute.
    """
    file = local_file(path, given_by)
    if os.path.isdir(file):
        few = sorted(name for name in os.listdir(file) if name.endswith((".pth", ".pkl")))[-3:]
        raise FileNotFoundError(
            f"there is no checkpoint {path} ({given_by}): that is a folder; name a file"
            + (f" in it, like {', '.join(few)}" if few else "")
        )
    if not os.path.isfile(file):
        raise FileNotFoundError(f"there is no checkpoint {path} ({given_by})")
    if file.endswith(".pkl"):
        return read_pickle(file, given_by)
    must = f"{path} must be a torch checkpoint of tensors ({given_by}), but it"
    is_zip = zipfile.is_zipfile(file)
    if is_zip and what_it_is(file) is None and (excess := excess_of_records(file)):
        raise ValueError(f"{must} {excess}")
    if not (is_zip or is_pickle(file)) and (what := what_it_is(file)):
        raise ValueError(f"{must} is {what}")
    try:
        _check_pickles(file, is_zip)
        # At first its tensors stay in the file: one that is refused is not read to its end.
        content = _read_torch(file, is_zip, is_zip)
        check_content(content, os.path.getsize(file))
    except Refused as e:
        raise ValueError(f"{must} contains {e}") from None
    except Exception as e:  # of any type: torch reads whatever the bytes may mean to it
        is_foreign = isinstance(e, pickle.UnpicklingError)
        if is_zip and (damage := damage_of_records(file, with_tensors=not is_foreign)):
            raise ValueError(_damaged(must, damage)) from None
        # Of a file that it refuses torch tells at length how to load it all the same.
        cause = None if is_foreign else e
        raise ValueError(f"{must} {_fault(file, e)}") from cause
    # torch compares no checksums: a flipped bit would be another weight without a word.
    if is_zip and (damage := damage_of_records(file)):
        raise ValueError(_damaged(must, damage))
    return content if mapped or not is_zip else _read_torch(file, is_zip, False)


def _damaged(must: str, damage: str) -> str:
    return f"{must} is damaged ({damage}): fetch or save it again"


def _check_pickles(path: str, is_zip: bool) -> None:
    size = os.path.getsize(path)
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            for record in archive.infolist():
                if record.filename.endswith("/data.pkl"):
                    record.CRC = record.CRC or None  # 0 where torch has saved without checksums
                    check_pickle(io.BytesIO(archive.read(record)), size)
        return
    # Before torch 1.6: a magic number, the version, the machine, the content and the names of its
    # storages, a pickle each, with the numbers behind them.
    with open(path, "rb") as file:
        for _ in range(5):
            check_pickle(file, size)


def _read_torch(path: str, is_zip: bool, mapped: bool) -> Any:
    with torch.serialization.safe_globals(VALUES):
        # Of older files nobody tells the names before reading them; they keep to VALUES.
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path) if is_zip else []
        with torch.serialization.safe_globals([described(name) for name in foreign]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _fault(path: str, error: Exception) -> str:
    """Why a file could not be read, as the end of "it ..."."""
    if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):  # the only place where torch says it
        return (
            f"contains {refused[1]}, and loading that could execute code; whoever trusts it can "
            "save its weights alone: torch.save({'model': state_dict}, FILE)"
        )
    what = what_it_is(path)
    return f"is {what}" if what else f"cannot be read as one ({type(error).__name__})"


def read_tensors(path: str, given_by: str, mapped: bool = False) -> dict[str, Tensor]:
    """Read the tensors of a state dict from a file, by their names in the file.

    Args:
        path: holds the state dict itself, or a dict with it under "model", "state_dict" or
            "state_dict_ema".
        given_by: the config key or option that names the file, for messages.
        mapped: see `read_checkpoint`.

    Raises:
        OSError: if there is no such file, or nothing can be fetched from the address.
        ValueError: if `read_checkpoint` refuses the file, or it holds no state dict.
    """
    return tensors_in(read_checkpoint(path, given_by, mapped), path, given_by)


def tensors_in(content: Any, path: str, given_by: str) -> dict[str, Tensor]:
    """The tensors of the state dict in what a file holds, see `read_tensors`."""
    state_dict = state_dict_of(content)
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise ValueError(
            f"{path} must hold a state dict or a dict with one under "
            f"{', '.join(map(repr, _WRAPPERS))} ({given_by}), got {type(state_dict).__name__}"
        )
    tensors = {n: torch.as_tensor(v) for n, v in state_dict.items() if _is_numeric(v)}
    if not tensors:
        raise ValueError(f"{path} holds no tensors ({given_by})")
    return tensors


def _is_numeric(value: Any) -> bool:
    is_array = isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
    return is_array or isinstance(value, Tensor)


def state_dict_of(content: Any) -> Any:
    """The state dict in what a file holds, without its wrapper; unchecked."""
    if not isinstance(content, Mapping):
        return content
    return next((content[key] for key in _WRAPPERS if key in content), content)


def write_checkpoint(content: dict, output: str) -> None:
    """Save to a file beside `output` that takes its place when it is complete.

    Raises:
        FileNotFoundError: if the folder of `output` does not exist.
    """
    folder = os.path.dirname(os.path.abspath(output))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"there is no folder {folder} for {output}; make it first")
    with written_whole(output, "wb") as file:
        torch.save(content, file)
