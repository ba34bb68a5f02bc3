"""Configs as Python files whose objects are described first and built later."""

import dataclasses
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cloudpickle
from omegaconf import DictConfig, ListConfig, OmegaConf

from detectron2.config.files import as_config, run_config_file
from detectron2.config.overrides import apply_override
from detectron2.config.python_text import dump_python
from detectron2.config.yaml_files import dump_yaml, load_yaml
from detectron2.utils.file_io import PathManager, atomic_write
from detectron2.utils.registry import dotted_name

logger = logging.getLogger("detectron2.config")


class LazyCall:
    """Describes a call instead of making it.

    `LazyCall(Linear)(in_features=4, out_features=2)` is a config with these two keys and
    `_target_`; `instantiate` makes the call.

    Args:
        target: what to call: a callable, its dotted name, or a config that builds a callable.

    Raises:
        TypeError: for any other target, and for positional arguments of the call.
    """

    def __init__(self, target: Callable | str | Mapping):
        if not (callable(target) or isinstance(target, str | Mapping)):
            raise TypeError(
                "the target of LazyCall must be a callable, a dotted name or a config of a "
                f"callable, got {target!r}"
            )
        self._target = target

    # With `/`, the target may have an argument called `self`.
    def __call__(self, /, **kwargs: Any) -> DictConfig:
        """The config of the call; its values may be any objects, among them other configs."""
        target = self._target
        if isinstance(target, type) and dataclasses.is_dataclass(target):
            # omegaconf would take the class for a schema of the values
            target = dotted_name(target)
        return as_config({**kwargs, "_target_": target})


class LazyConfig:
    """Loads, changes and saves configs."""

    @staticmethod
    def load(filename: str | os.PathLike, keys: str | Sequence[str] | None = None) -> Any:
        """Load a config file.

        A Python file is executed. Inside it a relative import names another file by its path from
        the importing file, without any `__init__.py`; it executes that file afresh, so that
        changing imported configs changes nothing elsewhere.

        Args:
            filename: file with the extension .py, .yaml or .yml.
            keys: name of one object to return, or several names. None returns all that are public
                configs, dicts or list configs (plain lists, numbers and strings are left out).

        Returns:
            A config of all objects, the one object, or a tuple of objects. Dicts become configs.

        Raises:
            ValueError: for another extension, or a YAML file that holds neither a mapping nor a
                list.
            yaml.YAMLError: for a YAML file that cannot be read, or asks for a call.
            FileNotFoundError: if there is no such file.
            SyntaxError: if a Python file cannot be parsed.
            ImportError: if a relative import names a folder, a missing file or a missing name.
            KeyError: if the file does not define one of `keys`.
        """
        filename = os.fspath(filename)
        extension = os.path.splitext(filename)[1]
        if extension not in (".py", ".yaml", ".yml"):
            raise ValueError(f"a config must be a .py, .yaml or .yml file, got {filename!r}")
        if extension == ".py":
            objects = run_config_file(filename)
        else:
            objects = _load_yaml_file(filename)
        if keys is None:
            return _public_configs(objects) if extension == ".py" else objects
        if isinstance(keys, str):
            return _pick(objects, keys, filename)
        return tuple(_pick(objects, key, filename) for key in keys)

    @staticmethod
    def load_rel(filename: str, keys: str | Sequence[str] | None = None) -> Any:
        """Load a config file by its path from the source file of the caller; see `load`.

        Raises:
            AssertionError: if the caller is not in a file.
        """
        caller = sys._getframe(1).f_code.co_filename
        assert not caller.startswith("<"), (
            f"load_rel needs a caller that lives in a file, it was called from {caller}; use load"
        )
        return LazyConfig.load(os.path.join(os.path.dirname(caller), filename), keys)

    @staticmethod
    def save(cfg: DictConfig | ListConfig, filename: str | os.PathLike) -> None:
        """Save a config as YAML that reads back to the same config.

        Where that is impossible (a lambda, a class defined in a config file, ...), a warning says
        why and the config is also written to `<filename>.pkl` by cloudpickle. Files are replaced
        at once, so an interrupted call leaves the old ones.

        Args:
            cfg: the config; it is not changed. Save it before built objects are put into it.
            filename: local path of the YAML file.
        """
        filename = os.fspath(filename)
        try:
            text, problems = dump_yaml(cfg)
        except Exception:
            logger.exception("The config cannot be written as YAML; %s is not written", filename)
            _save_pickle(cfg, f"{filename}.pkl")
            return
        with atomic_write(filename) as file:
            file.write(text)
        if problems:
            logger.warning(
                "The config saved to %s is for reading only, it cannot be loaded: %s",
                filename,
                "; ".join(problems),
            )
            _save_pickle(cfg, f"{filename}.pkl")

    @staticmethod
    def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
        """Change a config by `key=value` texts in the grammar of hydra.

        `a.b=5` sets a value, `a.c.0=9` a list element; `a.c=[7,8]` replaces a list and `a={x:1}`
        merges into a config. Quote values with `=`, `?` or a comma in them: `a.b="x,y"`.

        Args:
            cfg: the config, changed in place.
            overrides: the texts. A key that does not exist is created.

        Returns:
            The same config.

        Raises:
            hydra.errors.OverrideParseException: for a text outside the grammar.
            ValueError: for a sweep over values (`a=1,2`, `choice`, `range`).
            KeyError: if the path goes through a value that is not a config.
            IndexError: if a list has no such element.
            NotImplementedError: for a deletion, `~key`.
        """
        for text in overrides:
            apply_override(cfg, text)
        return cfg

    @staticmethod
    def to_py(cfg: DictConfig, prefix: str = "cfg.") -> str:
        """A config as text that reads like Python: `cfg.model = torch.nn.Linear(in_features=4)`.

        Args:
            cfg: the config.
            prefix: written before each of its keys.

        Returns:
            One assignment per key, for reading and comparing, not for execution.
        """
        return dump_python(cfg, prefix)


def _load_yaml_file(filename: str) -> DictConfig | ListConfig:
    with PathManager.open(filename, "rb") as file:
        content = load_yaml(file.read(), filename)
    if not isinstance(content, dict | list):
        raise ValueError(f"{filename} must hold a mapping or a list, it holds {content!r}")
    return OmegaConf.create(content, flags={"allow_objects": True})


def _public_configs(namespace: dict[str, Any]) -> DictConfig:
    return as_config(
        {
            name: as_config(value)
            for name, value in namespace.items()
            if not name.startswith("_") and isinstance(value, DictConfig | ListConfig | dict)
        }
    )


def _pick(objects: Mapping[str, Any], key: str, filename: str) -> Any:
    if key not in objects:
        raise KeyError(f"config file {filename} does not define {key!r}")
    return as_config(objects[key])


def _save_pickle(cfg: DictConfig | ListConfig, filename: str) -> None:
    try:
        content = cloudpickle.dumps(cfg)
    except Exception:
        logger.exception("The config cannot be pickled either; %s is not written", filename)
        return
    with atomic_write(filename, "wb") as file:
        file.write(content)
    logger.warning("The config is also saved to %s, to be loaded by cloudpickle", filename)
