"""The names of upstream Detectron2 that lite leaves out, and the way on without them."""

import sys
from collections.abc import Iterator
from functools import partial
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn


def _left_out() -> Iterator[tuple[str, str]]:
    """(dotted name, way on) of everything in the file of missing names, which says its format."""
    way_on = ""
    table = Path(__file__).with_name("missing_names.txt").read_text(encoding="utf-8")
    for line in table.splitlines():
        if not line.startswith(("#", " ")):
            way_on = line.removeprefix("-")
        elif line.startswith(" "):
            module, names = line.split(":")
            for name in names.split():
                yield f"detectron2.{module.strip()}.{name}".removesuffix(".*"), way_on


LEFT_OUT = dict(_left_out())
"""Dotted name -> the way on without it, "" where only upstream has the thing."""


def _refuse(dotted_name: str) -> None:
    if dotted_name in LEFT_OUT:
        way_on = LEFT_OUT[dotted_name]
        raise ImportError(
            f"{dotted_name} is not part of detectron2-lite; {way_on + ', or ' if way_on else ''}"
            "install upstream Detectron2 (uninstall detectron2-lite first: both provide "
            "`detectron2`)"
        )


def _get_missing(module: str, name: str) -> NoReturn:
    _refuse(f"{module}.{name}")
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


class _Finder(PathFinder):
    """Import hook by which modules and names that lite leaves out explain themselves.

    It gives every module its `__getattr__`. Written out in fifty files, that function would also
    make a mistyped name look valid to type checkers.
    """

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not fullname.startswith("detectron2."):
            return None
        _refuse(fullname)
        spec = super().find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            _let_explain(spec.loader)
        return spec


def _let_explain(loader: Loader) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        module.__getattr__ = partial(_get_missing, module.__name__)
        execute(module)

    loader.exec_module = exec_module


sys.meta_path.insert(0, _Finder)
