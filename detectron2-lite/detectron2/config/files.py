"""Runs Python config files, which import names from each other by relative path."""

import builtins
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from omegaconf import DictConfig

from detectron2.utils.file_io import PathManager


# KeyError too, which is what upstream raises.
class ConfigNameError(ImportError, KeyError):
    """A config file imports a name that the other file does not define."""


def as_config(value: Any) -> Any:
    """A dict as a DictConfig that may hold any object; every other value as it is."""
    return DictConfig(value, flags={"allow_objects": True}) if isinstance(value, dict) else value


def run_config_file(filename: str, importers: tuple[str, ...] = ()) -> dict[str, Any]:
    """Execute a config file afresh.

    Args:
        filename: path of the file.
        importers: files on the way to this one, outermost first.

    Returns:
        Its namespace.

    Raises:
        FileNotFoundError: if there is no such file.
        SyntaxError: naming the file, if it is not Python.
        ImportError: if a relative import inside it cannot be done.
    """
    with PathManager.open(filename, "rb") as file:
        source = file.read()  # bytes: Python files are UTF-8, whatever the locale says
    try:
        code = compile(source, filename, "exec")
    except SyntaxError as e:
        raise SyntaxError(f"config file {filename} is not valid Python: {e}") from e
    # A namespace may bring its own builtins, and import statements look up `__import__` there. So
    # relative imports are redirected for this file alone, without touching the interpreter's.
    importer = _make_import((*importers, filename))
    namespace = {
        "__file__": filename,
        "__name__": f"_lazy_config.{os.path.splitext(os.path.basename(filename))[0]}",
        "__package__": "_lazy_config",
        "__builtins__": {**vars(builtins), "__import__": importer},
    }
    exec(code, namespace)
    return namespace


def _make_import(chain: tuple[str, ...]) -> Callable[..., ModuleType]:
    """The `__import__` for the config file `chain[-1]`, which was imported by `chain[:-1]`."""

    def config_import(
        name: str,
        globals: dict[str, Any] | None = None,
        locals: dict[str, Any] | None = None,
        fromlist: tuple[str, ...] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level == 0:
            return builtins.__import__(name, globals, locals, fromlist, level)
        path = _imported_path(name, level, chain)
        return _make_module(path, run_config_file(path, chain), fromlist, chain[-1])

    return config_import


def _imported_path(name: str, level: int, chain: tuple[str, ...]) -> str:
    """The file that `from {'.' * level}{name} import ...` means in the file `chain[-1]`."""
    filename, statement = chain[-1], f"from {'.' * level}{name} import ..."
    folder = os.path.dirname(filename)
    for _ in range(level - 1):
        folder = os.path.join(folder, os.pardir)
    path = os.path.normpath(os.path.join(folder, *name.split(".")))
    if not name or (os.path.isdir(path) and not os.path.exists(f"{path}.py")):
        raise ImportError(
            f"`{statement}` in {filename} means the folder {path}, but a config can import from "
            "files only; name the file after the dots"
        )
    path = f"{path}.py"
    if not PathManager.exists(path):
        raise ImportError(f"`{statement}` in {filename} needs the file {path}, which is missing")
    if os.path.abspath(path) in map(os.path.abspath, chain):
        circle = " -> ".join([*chain, path])
        raise ImportError(f"config files import each other in a circle: {circle}")
    return path


def _make_module(
    path: str, namespace: dict[str, Any], names: tuple[str, ...] | None, importer: str
) -> ModuleType:
    """A module with the imported names of a config file; dicts among them become configs."""
    module = ModuleType(namespace["__name__"])
    names = list(names or ())
    if "*" in names:
        public = [name for name in namespace if not name.startswith("_")]
        names = list(namespace.get("__all__", public))
        module.__all__ = names
    for name in names:
        if name not in namespace:
            raise ConfigNameError(
                f"{importer} imports {name!r} from {path}, which does not define it"
            )
        setattr(module, name, as_config(namespace[name]))
    return module
