"""Changes to a config from the command line."""

import difflib
import logging
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ValidationError

logger = logging.getLogger("detectron2.config")


def apply_override(cfg: DictConfig, text: str) -> None:
    """Change `cfg` as `LazyConfig.apply_overrides` describes, by one override."""
    override = _parse(text)
    key = override.key_or_group
    if override.is_delete():
        raise NotImplementedError(f"override {text!r} deletes a key, which is not supported")
    if not key:
        raise ValueError(f"override {text!r} has no key; write key=value")
    if override.is_sweep_override():
        raise ValidationError(
            f"override {text!r} is a sweep over several values, which is not supported; "
            "write a list as key=[1,2], or quote the value"
        )
    _check_parents(cfg, key)
    value = override.value()
    new_keys = [] if override.is_add() or override.is_force_add() else _new_keys(cfg, key, value)
    for new_key in new_keys:
        _warn_of_new_key(cfg, new_key, text)
    OmegaConf.update(cfg, key, value, merge=True)


def _parse(text: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        return OverridesParser.create().parse_overrides([text])[0]
    except OverrideParseException as e:
        message = f"cannot read the override {text!r}, which must be key=value: {e}"
        if any(sign in text.partition("=")[2] for sign in "=?"):
            message += "\nQuote the value: key='\"a=b?c\"' on the command line."
        raise OverrideParseException(override=text, message=message) from e


def _prefixes(key: str) -> Iterator[str]:
    """The proper prefixes of a dotted key: "a" and "a.b" for "a.b.c"."""
    parts = key.split(".")
    return (".".join(parts[:n]) for n in range(1, len(parts)))


def _check_parents(cfg: DictConfig, key: str) -> None:
    for prefix in _prefixes(key):
        value = OmegaConf.select(cfg, prefix)
        if value is None:
            return
        if not OmegaConf.is_config(value):
            raise KeyError(
                f"cannot set {key!r}: {prefix!r} is not a config but a {type(value).__name__} "
                f"({value!r})"
            )


def _new_keys(cfg: DictConfig, key: str, value: Any) -> list[str]:
    """The keys that do not exist yet and that setting `key` to `value` would create."""
    parent = cfg
    for prefix, part in zip([*_prefixes(key), key], key.split("."), strict=True):
        if isinstance(parent, DictConfig) and part not in parent.keys():
            return [key]
        # an interpolation that leads nowhere is a value that may be replaced
        parent = OmegaConf.select(cfg, prefix, throw_on_resolution_failure=False)
    if not isinstance(value, dict) or not isinstance(parent, DictConfig):
        return []
    return [new for name, inner in value.items() for new in _new_keys(cfg, f"{key}.{name}", inner)]


def _warn_of_new_key(cfg: DictConfig, key: str, text: str) -> None:
    keys = list(_dotted_keys(OmegaConf.to_container(cfg)))
    closest = difflib.get_close_matches(key, keys, n=1, cutoff=0.0)
    hint = f"; the closest existing key is {closest[0]!r}" if closest else ""
    logger.warning(
        "override %r creates the new key %r, which nothing may read%s. Write +%s to create it "
        "without this warning.", text, key, hint, text,
    )  # fmt: skip


def _dotted_keys(plain: Any, prefix: str = "") -> Iterator[str]:
    items = plain.items() if isinstance(plain, dict) else ()
    for name, value in items:
        yield f"{prefix}{name}"
        yield from _dotted_keys(value, f"{prefix}{name}.")
