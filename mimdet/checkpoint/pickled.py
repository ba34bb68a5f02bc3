"""Pickles of arrays (.pkl), as Detectron2's model zoo has them: read without running their code."""

import os
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from mimdet.checkpoint.content_check import Refused, check_content, check_pickle
from mimdet.checkpoint.foreign_values import VALUES
from mimdet.checkpoint.other_files import is_pickle, what_it_is


def _latin1(text: str, codec: str) -> bytes:
    if codec != "latin1":
        raise _Refusal(f"_codecs.encode with {codec:.20}")
    return text.encode("latin1")


_PAIRS = [v if isinstance(v, tuple) else (v, f"{v.__module__}.{v.__qualname__}") for v in VALUES]
_BY_NAME = {name: value for value, name in _PAIRS} | {
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _latin1,  # how the bytes of an array are kept for Python 2
}


class _Refusal(Exception):
    """Names what a file must not contain."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _BY_NAME:
            raise _Refusal(f"{module}.{name}")
        return _BY_NAME[f"{module}.{name}"]


def read_pickle(path: str, given_by: str) -> Mapping[str, Any]:
    """Read a pickled dict with arrays under "model".

    Args:
        path: the file.
        given_by: the config key or option that names it, for messages.

    Raises:
        ValueError: if the file is none, or needs more than `foreign_values.VALUES` to be read.
    """
    must = f"{path} must be a pickled dict of arrays ({given_by}), but it"
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            check_pickle(file, size)
            file.seek(0)
            # Many of these files are from Python 2, whose text is bytes here.
            content = _Unpickler(file, encoding="latin1").load()
        check_content(content, size)
    except _Refusal as e:
        raise ValueError(f"{must} contains {e}, and loading that could execute code") from None
    except Refused as e:
        raise ValueError(f"{must} contains {e}") from None
    except Exception as e:  # of any type: pickle does whatever the bytes may mean to it
        raise ValueError(f"{must} {_fault(path, e)}") from e
    if not isinstance(content, Mapping) or "model" not in content:
        raise ValueError(
            f"{must} has no 'model'; names of Caffe2 are not converted: load the file with "
            "upstream Detectron2 and save it again"
        )
    return content


def _fault(path: str, error: Exception) -> str:
    """Why a file could not be read, as the end of "it ..."."""
    what = "cut short or damaged: fetch it again" if is_pickle(path) else what_it_is(path)
    return f"is {what}" if what else f"cannot be read as one ({type(error).__name__})"
