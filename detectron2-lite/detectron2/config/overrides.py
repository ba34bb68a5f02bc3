"""Changes to a config from the command line."""

from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ValidationError


def apply_override(cfg: DictConfig, text: str) -> None:
    """Change `cfg` as `LazyConfig.apply_overrides` describes, by one override."""
    # imported late: most callers have no overrides, and the parser of hydra takes a while to load
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = OverridesParser.create().parse_overrides([text])
    if override.is_delete():
        raise NotImplementedError(f"override {text!r} deletes a key, which is not supported")
    if override.is_sweep_override():  # the config would take it for an object like any other
        raise ValidationError(f"override {text!r} is a sweep over several values; quote the value")
    _check_parents(cfg, override.key_or_group)
    OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True)


def _check_parents(cfg: DictConfig, key: str) -> None:
    """OmegaConf would put a config in the place of a value on the way to the key."""
    parts = key.split(".")
    for prefix in (".".join(parts[:n]) for n in range(1, len(parts))):
        value: Any = OmegaConf.select(cfg, prefix)
        if value is None:
            return
        if not OmegaConf.is_config(value):
            raise KeyError(
                f"cannot set {key!r}: {prefix!r} is not a config but a {type(value).__name__} "
                f"({value!r})"
            )
