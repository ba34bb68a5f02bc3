from collections.abc import Callable, Collection
from typing import NoReturn


def missing_names(module: str, names: Collection[str]) -> Callable[[str], NoReturn]:
    """Make a module-level `__getattr__` that explains which names lite leaves out.

    Args:
        module: `__name__` of the module that gets the function.
        names: public names that upstream Detectron2 has in this module and detectron2-lite has not.

    Returns:
        A function to bind to `__getattr__` in that module. It raises ImportError for `names`, so
        that `from module import name` shows the explanation, and AttributeError for any other name.
    """

    def __getattr__(name: str) -> NoReturn:
        if name in names:
            raise ImportError(
                f"{module}.{name} is not part of detectron2-lite; install upstream Detectron2 to "
                "use it (uninstall detectron2-lite first: both provide `detectron2`)"
            )
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__
