"""Checkpoints that would make much memory of few bytes are refused.

Which functions a file may call at all is decided in `foreign_values` and by torch. Of these some
can return any multiple of what they are given: pickles are searched for them before they are
loaded, without calling anything. Tensors are compared with the file afterwards, as long as their
numbers are still in it.
"""

import pickletools
from collections.abc import Mapping
from encodings.aliases import aliases
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from mimdet.shown import shown

# They allocate as much as a number says, or an expanded tensor. No state dict needs them.
_GREEDY = {
    *("bytearray", "Counter"),
    *("_rebuild_device_tensor_from_numpy", "_rebuild_device_tensor_from_cpu_tensor"),
}
# `_codecs.encode`, by which pickles of protocol 2 keep bytes as text, takes bytes with these
# codecs: applied again and again they double them each time.
_OF_BYTES = {"hex_codec", "base64_codec", "quopri_codec", "uu_codec"}
_OF_BYTES |= {alias for alias, codec in aliases.items() if codec in _OF_BYTES}
# A set is made of a list that is written out behind it, not of a tensor, which may be expanded from
# one number to a trillion. At the other places here the class is not called.
_BEHIND_SET = {"EMPTY_LIST", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "STOP"}
_BEHIND_SET |= {"APPEND", "APPENDS", "SETITEM", "SETITEMS"}

_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
_SMALL_MEMO = 1 << 20

# Tied weights and averages lie in a file once or twice; a few small tables are expanded.
_TIMES_OF_FILE, _SMALL_FILE = 10, 1 << 20
_LONGEST_NAME = 500


class Refused(Exception):
    """Says what a file must not contain, and why."""


class TooMuch(Refused):
    """Names what would take memory out of proportion to the file."""

    def __str__(self) -> str:
        return f"{self.args[0]}, and loading that could take all memory"


def check_pickle(file: BinaryIO, size: int) -> set[str]:
    """Refuse a pickle that would take memory out of proportion to its bytes.

    Args:
        file: at the beginning of the pickle; at its end afterwards.
        size: of the file in bytes.

    Returns:
        The dotted names of the classes and functions in it.

    Raises:
        TooMuch: if it would.
        Exception: of any type, if it is no pickle.
    """
    names: set[str] = set()
    codecs: set[str] = set()
    places_of_set: set[int] = set()  # in the memo
    is_set = False  # whether the class `set` was put on the stack just now
    for operation, argument, _ in pickletools.genops(file):
        if operation.name in _PUTS:
            # Python's unpickler in C keeps its memo in an array as long as the largest number.
            if int(argument) > max(size, _SMALL_MEMO):
                raise TooMuch(f"a memo of {int(argument):,} entries")
            if is_set:
                places_of_set.add(int(argument))
            continue
        if is_set and operation.name not in _BEHIND_SET:
            raise TooMuch("a set of something that is no list")
        is_set = operation.name in _GETS and int(argument) in places_of_set
        if operation.name == "GLOBAL":
            name = argument.partition(" ")[2]
            is_set = name == "set"
            names.add(argument.replace(" ", "."))
            if name in _GREEDY:
                raise TooMuch(argument.replace(" ", "."))
        elif isinstance(argument, str) and len(argument) < 20:
            codecs |= {argument.lower().replace("-", "_").replace(" ", "_")} & _OF_BYTES
        if codecs and "_codecs.encode" in names:
            raise TooMuch(f"_codecs.encode with {min(codecs)}")
    return names


def check_content(content: Any, size: int) -> None:
    """Refuse tensors and arrays that would be many times as large as their file, once copied.

    A tensor may be expanded from one number to any shape, many may share their numbers, and a
    sparse one or one without numbers has any shape. Their names are printed in many places.

    Args:
        content: what the file holds; its tensors may be mapped.
        size: of the file in bytes.

    Raises:
        Refused: if they would, or if their names cannot be printed as they are.
    """
    told, seen, stack = 0, set(), [content]
    while stack:  # no recursion: a file may be nested deeply, and refer to itself
        value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            told += value.numel() * value.element_size()
        elif isinstance(value, np.ndarray):
            told += value.nbytes
        elif isinstance(value, Mapping):
            stack += value.values()
            _check_names(value)
        elif isinstance(value, list | tuple | set | frozenset):
            stack += value
    if told > _TIMES_OF_FILE * max(size, _SMALL_FILE):
        raise TooMuch(f"tensors of {told:,} bytes in {size:,}")


def _check_names(entries: Mapping) -> None:
    for name, value in entries.items():
        is_tensor = isinstance(value, Tensor | np.ndarray)
        if is_tensor and isinstance(name, str) and name != shown(name, _LONGEST_NAME):
            raise Refused(
                f"a tensor whose name is longer than {_LONGEST_NAME} or has control characters "
                f"({shown(name)!r}): no module has such names"
            )
