import sys
from collections.abc import Callable
from typing import NoReturn

_left_out: set[str] = set()


def missing_names(module: str, names: str) -> Callable[[str], NoReturn]:
    """Make a module-level `__getattr__` that explains which names lite leaves out.

    Args:
        module: `__name__` of the module that gets the function.
        names: public names and submodules, separated by blanks, that upstream Detectron2 has in
            this module and detectron2-lite has not.

    Returns:
        A function to bind to `__getattr__` in that module. It raises ImportError for these, so
        that `from module import name` shows the explanation, and AttributeError for any other name.
    """
    _left_out.update(f"{module}.{name}" for name in names.split())

    def __getattr__(name: str) -> NoReturn:
        _refuse(f"{module}.{name}")
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__


def _refuse(dotted_name: str) -> None:
    if dotted_name in _left_out:
        raise ImportError(
            f"{dotted_name} is not part of detectron2-lite; install upstream Detectron2 to "
            "use it (uninstall detectron2-lite first: both provide `detectron2`)"
        )


class _LeftOutModules:
    """Import hook that gives `import detectron2.model_zoo` the same explanation."""

    @staticmethod
    def find_spec(fullname: str, path: object = None, target: object = None) -> None:
        _refuse(fullname)


# Last, so that it is asked only about modules that nobody else finds.
sys.meta_path.append(_LeftOutModules)
