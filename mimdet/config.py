"""Configs of a command line: a file, and overrides that must name keys which it has."""

import difflib
import os
import pickle
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cloudpickle
import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from detectron2.config import LazyConfig
from mimdet.find_config import find_config
from mimdet.trusted import require_trusted
from mimdet.yaml_check import check_yaml

AUTO = "auto"  # what follows from the training data, or from the machine

# Keys that turn activation checkpointing on and off, by their last part: as published by MIMDet, by
# Detectron2's ViTDet and by Benchmarking-ViT.
SWITCHES = ("checkpointing", "use_act_checkpoint", "with_cp")

# The share of the tokens that MIMDet's encoder sees.
RATIO = "model.backbone.bottom_up.sample_ratio"

# Keys that may be "auto" instead of a value of their type, by their last part.
_AUTOMATIC = {"num_classes": int, **dict.fromkeys(SWITCHES, bool)}

# Keys of released configs that are none any more, by their last part, and what stands for them.
_GONE = {
    "pretrained": "give the file as mae_checkpoint.path=FILE, or for other parts of the model in "
    "train.starting_weights",
}

# Keys that a command line may set whatever the config has: a user's own, one of an earlier run.
_OF_EVERY_RUN = {"preflight": True, "train.overwrite": False, "train.resume_from_older": True}

# Classes that earlier versions wrote into a run's `config.yaml`, and where they are now.
_MOVED = {
    f"mimdet.modeling.backbone.timm.{name}": f"mimdet.modeling.backbone.{module}.{name}"
    for name, module in (("TimmBackbone", "timm_backbone"), ("PaddedSwin", "swin"))
}

# What a value of the config says about the one that replaces it. Other types, lists among them, say
# nothing: many of Detectron2's keys take one value or several.
_WANTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "a dict, as {key:value}",
}


def load_config(
    path: str,
    overrides: Sequence[str],
    adapt: Callable[[DictConfig], None] | None = None,
    trusted: Sequence[str] = (),
    source: str | None = None,
) -> DictConfig:
    """Load a config file, give it the keys of every run, and apply `overrides` to it.

    A YAML file may be a stranger's: it can name only what builds a run (`mimdet.trusted`), and is
    checked as a whole before anything of it is called. A Python file is code, and is executed.

    Args:
        path: the file, or the name of a config of mimdet.
        overrides: of the command line; the user's own, and unchecked.
        adapt: may change the config before the overrides.
        trusted: packages from which a YAML file may name everything.
        source: what to call the file in messages; None: its path.

    Raises:
        FileNotFoundError: if there is no such file, nor a config of mimdet with that name.
        KeyError, ValueError, NotImplementedError: see `apply_overrides`.
        ValueError: if a YAML file is none, too large, or names what a stranger's must not.
        ValueError: if the file has what an earlier version wrote and this one does not know, or
            nothing takes the weights of ``mae_checkpoint.path``.
    """
    path = find_config(path)
    source = source or path
    is_yaml = path.endswith((".yaml", ".yml"))
    if is_yaml:
        check_yaml(path, source, tuple(trusted))
    try:
        cfg = LazyConfig.load(path)
    # a date without such a month, a dict as a key, a partial function of a number, ...
    except (ValueError, TypeError, yaml.YAMLError) as e:
        if not is_yaml:
            raise
        raise ValueError(f"{source} cannot be read: {e}") from e
    if former := _former_parts(cfg):
        raise ValueError(f"{source} is a config of an earlier version: {'; '.join(former)}")
    if is_yaml:
        require_trusted(cfg, source, trusted)
    has_train = isinstance(cfg.get("train"), DictConfig)
    for key, default in _OF_EVERY_RUN.items():
        if (has_train or "." not in key) and OmegaConf.select(cfg, key) is None:
            OmegaConf.update(cfg, key, default, force_add=True)
    if adapt is not None:
        adapt(cfg)
    cfg = apply_overrides(cfg, overrides)
    _require_use_of_mae_file(cfg, source)
    return cfg


def load_config_text(
    text: str, overrides: Sequence[str] = (), trusted: Sequence[str] = (), source: str | None = None
) -> DictConfig:
    """`load_config` for a config that lies in the file `source`, as that of a checkpoint's card."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "config.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return load_config(path, overrides, trusted=trusted, source=source)


def _former_parts(cfg: DictConfig) -> list[str]:
    """What to do about the keys and classes of a config that are no more."""
    todo, gone = [], []
    for key in all_keys(cfg):
        parent, _, name = key.rpartition(".")
        value = OmegaConf.select(cfg, key) if name == "_target_" else None
        if isinstance(value, str) and value in _MOVED:
            todo.append(f"write {_MOVED[value]} for {value} ({key})")
        elif name in _GONE and _is_ours(OmegaConf.select(cfg, f"{parent}._target_")):
            gone.append(key)
    if gone:
        remedies = dict.fromkeys(_GONE[key.rpartition(".")[2]] for key in gone)
        todo.append(f"remove {', '.join(gone)} ({'; '.join(remedies)})")
    return todo


def _is_ours(target: Any) -> bool:
    """Whether a target is of mimdet; timm's models, for one, do have a key `pretrained`."""
    module = target if isinstance(target, str) else getattr(target, "__module__", "")
    return module.startswith("mimdet.")


def _require_use_of_mae_file(cfg: DictConfig, path: str) -> None:
    """A file that no part of the model starts from would leave it at random, unnoticed."""
    file = OmegaConf.select(cfg, "mae_checkpoint.path")
    entries = OmegaConf.select(cfg, "train.starting_weights") or ()
    if file and all(entry.get("path") != file for entry in entries):
        raise ValueError(
            f"mae_checkpoint.path={file} must be taken by an entry of train.starting_weights, and "
            f"there is none in {path}: take `train` from the config whose `model` it uses, or "
            'write an entry with path="${mae_checkpoint.path}" and the part of the model as `to`'
        )


class PackedConfig:
    """A config that can be sent to a new process, and is one word where arguments are printed.

    Args:
        cfg: the config. cloudpickle sends what its file defines itself by value, because that has
            no module which another process could import.
    """

    def __init__(self, cfg: DictConfig):
        self._content = cloudpickle.dumps(cfg)

    def unpack(self) -> DictConfig:
        """A copy of the config, the caller's own."""
        return pickle.loads(self._content)

    def __repr__(self) -> str:
        return "<config>"


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Apply `key=value` overrides, refusing keys that the config does not have.

    LazyConfig creates a mistyped key without a word and the run goes on with the default, so a new
    key has to be asked for: ``+key=value``.

    Args:
        cfg: the config, changed in place.
        overrides: in the grammar of ``LazyConfig.apply_overrides``.

    Returns:
        `cfg`.

    Raises:
        KeyError: if an override without ``+`` names a key that `cfg` does not have; the message
            gives the nearest existing one. Also if ``+`` leads through a value that is no config.
        ValueError: if an override is outside the grammar, a sweep over several values, or has a
            value of another type than the config's; ``++key=value`` sets that all the same.
        NotImplementedError: for a deletion, ``~key``.
    """
    for text in overrides:
        override = _parse(text)
        key, value = override.key_or_group, override.value()
        if override.is_add() or override.is_force_add():
            _require_parents(cfg, key)
        else:
            for changed in _keys(key, value):
                _require_key(cfg, changed, text)
            value = _of_same_type(cfg, key, value, override.input_line.partition("=")[2])
        # Merged: a dict changes the entries that it names, and keeps the others.
        OmegaConf.update(cfg, key, value, merge=True)
    return cfg


def _of_same_type(cfg: DictConfig, key: str, value: Any, written: str | None) -> Any:
    """`value` as the type that the config has at `key`: 1e3 is 1000 for a whole number.

    Args:
        cfg: the config.
        key: that is set.
        value: as the grammar reads it, where 20240101 is a number and no name of a folder.
        written: as the user wrote it; None inside of a dict, where that is not known any more.
    """
    wanted = _type_at(cfg, key)
    if isinstance(value, Mapping) and wanted is dict:
        return {k: _of_same_type(cfg, f"{key}.{k}", v, None) for k, v in value.items()}
    if wanted is None or value is None or isinstance(value, list) or type(value) is wanted:
        return value
    if isinstance(value, str) and ("${" in value or (value == AUTO and _automatic_type(key))):
        return value  # known only later
    if wanted is str and written and not isinstance(value, Mapping):
        return written.strip()
    if wanted is float and type(value) is int:
        return value
    if wanted is int and type(value) is float:
        if value.is_integer():
            return int(value)
        if OmegaConf.select(cfg, key) == 0:
            return value  # a 0 may stand for a share, such as a rate of drop path
    raise ValueError(
        f"{key} must be {_WANTED[wanted]}, got {value!r}; write ++{key}=... to set it all the same"
    )


def _type_at(cfg: DictConfig, key: str) -> type | None:
    """The type of the config's value, of those in `_WANTED`; None where it leaves that open."""
    try:
        value = OmegaConf.select(cfg, key)
    except InterpolationResolutionError:  # it leads nowhere, and is being replaced
        return None
    if value == AUTO and _automatic_type(key):
        return _automatic_type(key)
    if isinstance(value, DictConfig):
        # What a call computes, such as a learning rate, may be given instead of the call.
        return None if "_target_" in value else dict
    return type(value) if type(value) in _WANTED else None


def _automatic_type(key: str) -> type | None:
    """The type for which "auto" may stand at a key, if it may."""
    return _AUTOMATIC.get(key.rpartition(".")[2])


def key_behind(cfg: DictConfig, key: str) -> str:
    """The key that a user sets to change `key`: where its value is taken from, or `key` itself.

    Args:
        cfg: the config.
        key: dotted, an entry of one of its dicts.
    """
    parent, _, name = key.rpartition(".")
    values = OmegaConf.to_container(OmegaConf.select(cfg, parent), resolve=False)
    source = re.fullmatch(r"\$\{(\w[\w.]*)\}", str(values.get(name)))
    return key_behind(cfg, source[1]) if source else key


def _parse(text: str) -> Any:
    # hydra's parser takes a while to import and most callers have no overrides
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(_in_grammar(text))
    except HydraException as e:
        raise ValueError(
            f"an override must be key=value, got {text!r} ({e}); a value with = or ? in it needs "
            "quotes: key='\"a=b?c\"' on the command line"
        ) from e
    if override.is_delete():
        raise NotImplementedError(f"override {text!r} deletes a key, which is not supported")
    if override.is_sweep_override():
        raise ValueError(
            f"override {text!r} is a sweep over several values, which is not supported; "
            "write a list as key=[1,2], or quote the value"
        )
    return override


def _in_grammar(text: str) -> str:
    """An override with what hydra's grammar lacks: letters beyond ASCII, and places as ``[0]``."""
    key, equals, value = text.partition("=")
    key = re.sub(r"\[(\d+)\]", r".\1", key)
    # Quoted values, lists, dicts and sweeps are left to the grammar.
    if not value.isascii() and not re.search(r"""['"\[{(,\\]""", value):
        value = f"'{value}'"
    return f"{key}{equals}{value}"


def _require_parents(cfg: DictConfig, key: str) -> None:
    """A new key must lie in a config, or in nothing yet."""
    parts = key.split(".")
    for length in range(1, len(parts)):
        parent = ".".join(parts[:length])
        value = OmegaConf.select(cfg, parent)
        if value is not None and not OmegaConf.is_config(value):
            raise KeyError(
                f"cannot set {key!r}: {parent!r} is not a config but a {type(value).__name__} "
                f"({value!r})"
            )


def _keys(key: str, value: Any) -> Iterator[str]:
    """The keys that an override sets: its own, or for a dict value (merged) those inside."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _keys(f"{key}.{name}", inner)
    else:
        yield key


def _require_key(cfg: DictConfig, key: str, override: str) -> None:
    if _has_key(cfg, key.split(".")):
        return
    *_, last = key.split(".")
    if last in _GONE:
        raise KeyError(f"{key!r} is gone (from {override!r}): {_GONE[last]}")
    nearest = difflib.get_close_matches(key, list(all_keys(cfg)), n=1, cutoff=0.0)
    raise KeyError(
        f"an override must name a key of the config, and there is no {key!r} (from {override!r}); "
        f"the nearest one is {nearest[0] if nearest else 'none'!r}. "
        f"Write +{key}=... to create a new key on purpose"
    )


def _has_key(node: Any, parts: list[str]) -> bool:
    head, *rest = parts
    if isinstance(node, ListConfig) and head.isdigit() and int(head) < len(node):
        name: str | int = int(head)
    elif isinstance(node, DictConfig) and head in node.keys():  # noqa: SIM118
        name = head  # `head in node` is False for a value that is still missing
    else:
        return False
    # setting a key behind an interpolation would replace the whole of it
    ends_here = OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name)
    return not rest or (not ends_here and _has_key(node[name], rest))


def all_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a config, list indices included."""
    if isinstance(node, ListConfig):
        names = range(len(node))
    elif isinstance(node, DictConfig):
        names = node.keys()
    else:
        return
    for name in names:
        yield f"{prefix}{name}"
        if not (OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name)):
            yield from all_keys(node[name], f"{prefix}{name}.")
