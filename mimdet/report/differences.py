"""In which settings runs differ: of their evaluation, and of their configuration."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

# What an evaluation's protocol tells besides its rules: which weights, and whose programs.
_NO_RULES = ("weights.file", "weights.iteration", "versions.")
# Where a run lies and what it starts from by chance are no choices.
_NO_CHOICES = ("train.output_dir", "train.seed")

Rows = list[dict[str, Any]]
"""Each ``{"setting": its dotted name, "values": one per model}``."""


def protocol_differences(protocols: Sequence[Mapping[str, Any] | None]) -> tuple[Rows, Rows]:
    """Settings in which evaluations differ: the rules, and what else is told.

    With other rules the same weights may get another AP.

    Args:
        protocols: of ``results.json``; None where a run has none, which differs from all.
    """
    rows = _unlike([dict(_leaves(protocol)) for protocol in protocols])
    rules = [row for row in rows if not row["setting"].startswith(_NO_RULES)]
    return rules, [row for row in rows if row not in rules]


def config_differences(configs: Sequence[str]) -> Rows | None:
    """Settings in which the configurations of runs differ, without folder and seed.

    Args:
        configs: what ``config.yaml`` of each holds.

    Returns:
        None if one of them cannot be read.
    """
    read = [_read(config) for config in configs]
    if not all(isinstance(config, dict) for config in read):
        return None
    rows = _unlike([dict(_leaves(config)) for config in read])
    return [row for row in rows if row["setting"] not in _NO_CHOICES]


def _unlike(settings: Sequence[Mapping[str, Any]]) -> Rows:
    names = dict.fromkeys(name for of_one in settings for name in of_one)
    rows = [{"setting": n, "values": [of_one.get(n) for of_one in settings]} for n in names]
    return [row for row in rows if any(value != row["values"][0] for value in row["values"])]


def _leaves(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested dicts by dotted names; a list is a value, unless dicts are in it."""
    if isinstance(node, list) and any(isinstance(entry, dict) for entry in node):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        if name:
            yield name, node
        return
    for key, value in node.items():
        yield from _leaves(value, f"{name}.{key}" if name else str(key))


class _Plain(yaml.SafeLoader):
    """Reads names of Python objects as text, and so calls and imports nothing.

    Nor does it follow aliases, of which a few lines can stand for more than a memory holds; the
    ``config.yaml`` of a run has none.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


_Plain.add_multi_constructor(
    "tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix.partition(":")[2] or suffix
)


def _read(config: str) -> Any:
    try:
        return yaml.load(config, _Plain)
    except yaml.YAMLError:
        return None
