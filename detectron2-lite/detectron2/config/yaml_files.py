"""Configs as YAML text."""

import dataclasses
import enum
import functools
from typing import Any

import yaml
from omegaconf import Container, DictConfig, OmegaConf, SCMode

from detectron2.utils.registry import dotted_name, is_name_of

_PYTHON_TAG = "tag:yaml.org,2002:python/"


def dump_yaml(cfg: Container) -> tuple[str, list[str]]:
    """Write a config as YAML and try to read it back.

    Interpolations stay as they are written. A callable `_target_` becomes its dotted name and a
    dataclass instance a mapping with `_target_` and its fields, so most configs need no tags.

    Args:
        cfg: the config.

    Returns:
        The text, and the reasons why it does not read back (none if it does).

    Raises:
        Exception: whatever an object in the config raises when it is asked for its parts.
    """
    converter = PlainConverter()
    text = _dump_plain(converter.convert(cfg))
    return text, converter.problems + _read_back_problems(text)


def _dump_plain(plain: Any) -> str:
    # The innermost lists and mappings stand on one line; a line is never broken.
    return yaml.dump(plain, default_flow_style=None, allow_unicode=True, width=9999)


def _read_back_problems(text: str) -> list[str]:
    try:
        loaded = load_yaml(text, "the saved config")
    except (yaml.YAMLError, TypeError) as e:
        return [str(e)]
    # Texts are compared because values need not be: nan differs from itself.
    return [] if _dump_plain(loaded) == text else ["what is read differs from what was saved"]


class PlainConverter:
    """Turns configs into dicts, lists and values; `problems` collects names that find nothing."""

    def __init__(self):
        self.problems: list[str] = []

    def convert(self, cfg: Any) -> Any:
        """A copy of a config, or of a part of it, in dicts and lists; other values stay as is."""
        if isinstance(cfg, Container):
            if dataclasses.is_dataclass(OmegaConf.get_type(cfg)):
                return self._convert_dataclass(cfg)
            # Dataclasses deeper inside stay configs, and get their own `_target_` by the recursion.
            cfg = OmegaConf.to_container(cfg, structured_config_mode=SCMode.DICT_CONFIG)
        if isinstance(cfg, dict):
            plain = {key: self.convert(value) for key, value in cfg.items()}
            if hasattr(plain.get("_target_"), "__qualname__"):
                plain["_target_"] = self._name(plain["_target_"])
            return plain
        return [self.convert(value) for value in cfg] if isinstance(cfg, list) else cfg

    def _convert_dataclass(self, cfg: DictConfig) -> dict[str, Any]:
        kind = OmegaConf.get_type(cfg)
        as_written = OmegaConf.to_container(cfg, structured_config_mode=SCMode.DICT)
        plain = {"_target_": self._name(kind)}
        for name in (field.name for field in dataclasses.fields(kind) if field.init):
            literal = OmegaConf.is_interpolation(cfg, name) or OmegaConf.is_missing(cfg, name)
            plain[name] = as_written[name] if literal else self.convert(cfg[name])
        return plain

    def _name(self, target: Any) -> str:
        name = dotted_name(target)
        if not is_name_of(name, target):
            self.problems.append(
                f"_target_ {name!r} cannot be found by this name (a lambda, or something defined "
                "inside a config file or a function); move it into a module"
            )
        return name


class _Loader(yaml.FullLoader):
    """Reads values, tuples, names, objects and the calls that only hold values; runs no others."""

    def find_python_name(self, name: str, mark: yaml.Mark, unsafe: bool = False) -> Any:
        """The object of a dotted name, whose module need not have been imported before."""
        return super().find_python_name(name, mark, unsafe=True)


def load_yaml(text: str | bytes, filename: str) -> Any:
    """Read YAML as plain values, tuples, names, partial functions, enum members and objects.

    Args:
        text: the content of the file; bytes are UTF-8, or UTF-16 with a byte order mark.
        filename: what to call it in errors.

    Raises:
        yaml.YAMLError: if the text is not YAML, has a tag that calls something else, or names
            something that does not exist.
        TypeError: if a tag wants an object of something that is no plain class.
    """
    loader = _Loader(text)
    # Errors tell it with line and column.
    loader.name = filename
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _construct_object(loader: _Loader, name: str, node: yaml.MappingNode) -> Any:
    # Neither `__init__` nor `__setstate__` is called, which yaml would do: they may run any code.
    result = object.__new__(loader.find_python_name(name, node.start_mark))
    result.__dict__.update(loader.construct_mapping(node, deep=True))
    return result


def _construct_call(loader: _Loader, name: str, node: yaml.Node) -> Any:
    """The two kinds of call that do nothing but hold values: partial functions and enum members."""
    kind = loader.find_python_name(name, node.start_mark)
    if kind is functools.partial and isinstance(node, yaml.MappingNode):
        function, args, keywords, _ = loader.construct_mapping(node, deep=True)["state"]
        return functools.partial(function, *args, **keywords)
    if not isinstance(kind, enum.EnumMeta):
        raise yaml.constructor.ConstructorError(
            None, None, f"a config must not call {name} when it is read", node.start_mark
        )
    return kind(*loader.construct_sequence(node))


_Loader.add_multi_constructor(f"{_PYTHON_TAG}object:", _construct_object)
_Loader.add_multi_constructor(f"{_PYTHON_TAG}object/apply:", _construct_call)
