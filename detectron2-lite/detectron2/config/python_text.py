"""Configs as text that reads like the Python files they come from."""

import keyword
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from detectron2.config.yaml_files import PlainConverter


def dump_python(cfg: DictConfig, prefix: str = "cfg.") -> str:
    """Write a config as assignments, one for each of its keys.

    A config with a `_target_` reads like the call that it describes, any other like `dict(...)`;
    interpolations stay as they are written. The text is for reading, and for comparing two
    configs, not for execution: it imports nothing.

    Args:
        cfg: the config.
        prefix: written before each key.
    """
    plain = PlainConverter().convert(cfg)
    return "".join(f"{prefix}{key} = {_text(value)}\n" for key, value in plain.items())


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if not isinstance(value, dict):
        return repr(value)
    if not _has_names(value):
        return "{" + ", ".join(f"{key!r}: {_text(entry)}" for key, entry in value.items()) + "}"
    function, arguments = "dict", dict(value)
    if isinstance(value.get("_target_"), str):
        function = arguments.pop("_target_")
    return f"{function}({', '.join(f'{key}={_text(entry)}' for key, entry in arguments.items())})"


def _has_names(value: Mapping) -> bool:
    """Whether all keys could be the names of arguments."""
    return all(
        isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in value
    )
