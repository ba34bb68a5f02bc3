"""Values besides tensors that checkpoints hold: what is restored, left empty, or refused.

A pickle describes objects and calls functions. What it may call is listed here, and does nothing
but build a value. Objects that it only describes (configs, loggers, metrics of a training script)
come as empty or plain dicts, without an import of their class. Any other call is refused.
"""

import argparse
import datetime
import decimal
import fractions
import pathlib
import pickle
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

# The functions by which numpy restores arrays and scalars, under the module names of numpy 1 (core)
# and numpy 2 (_core).
_NUMPY = {
    f"numpy.{core}.{name}": function
    for core in ("core", "_core")
    for name, function in (
        ("multiarray._reconstruct", np.zeros(1).__reduce__()[0]),
        ("multiarray.scalar", np.float64(0).__reduce__()[0]),
        ("numeric._frombuffer", np.zeros(1).__reduce_ex__(5)[0]),
    )
}
_DTYPES = [type(np.dtype(code)) for code in np.typecodes["All"]]
# Pure paths, because the other ones exist on their own system only.
_PATHS = {
    f"pathlib.{module}{name}": pure
    for module in ("", "_local.")  # of Python 3.13
    for name, pure in (
        *(("PosixPath", pathlib.PurePosixPath), ("PurePosixPath", pathlib.PurePosixPath)),
        *(("WindowsPath", pathlib.PureWindowsPath), ("PureWindowsPath", pathlib.PureWindowsPath)),
    )
}


def _dict(*args: Any) -> OrderedDict:
    return OrderedDict()  # the one type to which torch gives attributes as well as items


def _list(items: Iterable = (), *args: Any) -> list:
    return list(_written_out(items))


def _frozenset(items: Iterable = ()) -> frozenset:
    return frozenset(_written_out(items))


def _written_out(items: Iterable) -> list | tuple:
    # a tensor or an array may be expanded from one number to a trillion
    if not isinstance(items, list | tuple):
        raise pickle.UnpicklingError(f"GLOBAL {type(items).__name__}")
    return items


def _fraction(text: str) -> fractions.Fraction:
    return fractions.Fraction(*map(int, text.split("/")))  # an exponent could ask for any length


# torch gives no items to others than its own
_CONTAINERS = {
    **{"collections.defaultdict": _dict, "collections.deque": _list},
    **{"builtins.frozenset": _frozenset, "fractions.Fraction": _fraction},
}
_PLAIN = (
    *(np.ndarray, np.dtype, argparse.Namespace, decimal.Decimal, uuid.UUID),
    *(datetime.date, datetime.time, datetime.datetime, datetime.timedelta, datetime.timezone),
    complex,
)

VALUES: list[Callable | tuple[Callable, str]] = [
    *((function, name) for name, function in {**_NUMPY, **_PATHS, **_CONTAINERS}.items()),
    *_DTYPES,
    *_PLAIN,
]
"""What a checkpoint may call to build a value, as `torch.serialization.safe_globals` takes it."""


class _Described(type):
    """A class in the place of a foreign one: objects of it come as dicts, calling it is refused."""

    # Pickle makes an object that it describes by __new__, and calls everything else.
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise pickle.UnpicklingError(f"GLOBAL {cls.__name__}")


def described(name: str) -> tuple[type, str]:
    """What stands for a foreign class, as `torch.serialization.safe_globals` takes it.

    Args:
        name: of the class, dotted.
    """
    return _Described(name, (), {"__new__": _dict}), name
