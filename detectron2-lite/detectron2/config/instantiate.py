"""Builds what configs describe."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from detectron2.utils.registry import dotted_name, locate

logger = logging.getLogger(__name__)


def instantiate(cfg: Any) -> Any:
    """Build what a config describes.

    Args:
        cfg: a mapping with `_target_` is called with its other keys, which are built first. The
            elements of a list are built one by one. A dataclass config becomes its instance.
            Everything else is returned as it is, also a mapping without `_target_` whatever is
            inside, and a tuple.

    Returns:
        The result; a list config stays a list config.

    Raises:
        ImportError: if `_target_` is a dotted name that stands for nothing.
        AssertionError: if `_target_` is not callable.
        Exception: whatever the call raises, with a note of the config key and the callable.
    """
    if isinstance(cfg, ListConfig):
        return ListConfig([instantiate(x) for x in cfg], flags={"allow_objects": True})
    if isinstance(cfg, list):
        return [instantiate(x) for x in cfg]
    if isinstance(cfg, DictConfig) and dataclasses.is_dataclass(OmegaConf.get_type(cfg)):
        return OmegaConf.to_object(cfg)
    if isinstance(cfg, Mapping) and "_target_" in cfg:
        return _call(cfg)
    return cfg


def _call(cfg: Mapping) -> Any:
    arguments = {key: instantiate(value) for key, value in cfg.items() if key != "_target_"}
    target = instantiate(cfg["_target_"])
    if isinstance(target, str):
        target = locate(target)
    assert callable(target), f"_target_ must be callable, got {target!r} ({_place(cfg)})"
    try:
        return target(**arguments)
    except Exception as e:
        name = dotted_name(target) if hasattr(target, "__qualname__") else repr(target)
        if isinstance(e, TypeError):  # most often a wrong argument name
            logger.error("Error when instantiating %s!", name)
        # A note leaves the exception as it is, for those who catch it.
        e.add_note(f"while instantiating {_place(cfg)} -> {name}")
        raise


def _place(cfg: Mapping) -> str:
    key = cfg._get_full_key(None) if isinstance(cfg, DictConfig) else ""
    return f"config key {key!r}" if key else "a config"
