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
    if not isinstance(value, dict | list):
        return repr(value)
    opening, closing = _brackets(value)
    entries = [f"{label}{_text(entry)}" for label, entry in _entries(value)]
    return f"{opening}{', '.join(entries)}{closing}"


def _entries(value: Any) -> list[tuple[str, Any]]:
    """(what stands before it, entry) of a dict or list; none of anything else."""
    if isinstance(value, list):
        return [("", entry) for entry in value]
    if not isinstance(value, dict):
        return []
    if not _has_names(value):
        return [(f"{key!r}: ", entry) for key, entry in value.items()]
    is_call = isinstance(value.get("_target_"), str)
    return [(f"{k}=", entry) for k, entry in value.items() if not (is_call and k == "_target_")]


def _brackets(value: dict | list) -> tuple[str, str]:
    if isinstance(value, list):
        return "[", "]"
    if not _has_names(value):
        return "{", "}"
    target = value.get("_target_")
    return f"{target if isinstance(target, str) else 'dict'}(", ")"


def _has_names(value: Mapping) -> bool:
    """Whether all keys could be the names of arguments."""
    return all(
        isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in value
    )
