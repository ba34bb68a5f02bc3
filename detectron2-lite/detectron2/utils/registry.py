"""Objects by dotted name, and names of objects."""

import builtins
from typing import Any

from fvcore.common.registry import Registry

__all__ = ["Registry", "locate"]


def locate(name: str) -> Any:
    """Find the object that a dotted name such as "torch.nn.Linear" stands for.

    Args:
        name: package, submodules and attributes joined by dots, or the name of a builtin.

    Raises:
        ImportError: if the name stands for nothing, or a module on the way cannot be imported.
    """
    from hydra._internal.utils import _locate  # imported late: few need more than the registry

    if hasattr(builtins, name):
        return getattr(builtins, name)
    try:
        return _locate(name)
    except (ImportError, ValueError) as e:  # ValueError: an empty part of the name
        raise ImportError(f"cannot find {name!r}: {e}") from e


def dotted_name(obj: Any) -> str:
    """The shortest dotted name of a class or function.

    Args:
        obj: object with `__module__` and `__qualname__`.

    Returns:
        `prefix.qualname` for the shortest prefix of the object's module under which `locate` finds
        this very object, e.g. "torch.nn.Linear". If there is none (lambdas, local classes), the
        full module name and qualname, which `locate` cannot find.
    """
    packages = obj.__module__.split(".")
    for n in range(1, len(packages)):
        candidate = ".".join([*packages[:n], obj.__qualname__])
        if is_name_of(candidate, obj):
            return candidate
    return f"{obj.__module__}.{obj.__qualname__}"


def is_name_of(name: str, obj: Any) -> bool:
    """Whether `locate(name)` finds `obj`."""
    try:
        return locate(name) == obj  # not `is`: each access to a bound method makes a new object
    except ImportError:
        return False
