"""A YAML file from anywhere, looked at before it is read: its size, its aliases and its tags."""

import enum
import functools
import os
from collections.abc import Iterator
from typing import TextIO

import yaml

from mimdet.trusted import find_builder, is_in

_PYTHON_TAG = "tag:yaml.org,2002:python/"

# Far above what configs need (the longest of mimdet's own has 20 KB, 700 values, 14 levels).
_MAX_BYTES = 2 << 20
_MAX_VALUES = 50_000
_MAX_DEPTH = 60
_MAX_TEXT = 4000  # also less digits than Python reads as a number


def check_yaml(path: str, source: str | None = None, packages: tuple[str, ...] = ()) -> None:
    """Refuse a YAML file that would run code, or take much time or memory to read.

    Args:
        path: the file.
        source: what to call it in messages; None: its path.
        packages: more packages whose names tags may have.

    Raises:
        ValueError: naming the file, and the line where there is one.
    """
    source = source or path
    if (size := os.path.getsize(path)) > _MAX_BYTES:
        raise ValueError(
            f"{source} must be a config, of at most {_MAX_BYTES >> 20} MiB, got {size >> 20} MiB"
        )
    with open(path, encoding="utf-8") as file:
        count = _Count(source)
        for event in _events(file, source):
            _check_tag(event, source, packages)
            count.add(event)


def _events(file: TextIO, source: str) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(file)
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ValueError(f"{source} must be YAML: {e}") from e


class _Count:
    """Counts the values of a file as if each alias were written out, by arithmetic alone."""

    def __init__(self, source: str):
        self._source = source
        self._total = 0
        self._open: list[tuple[str | None, int, int]] = []  # anchor, total before, depth inside
        self._sizes: dict[str, tuple[int, int]] = {}  # of anchors: values and levels

    def add(self, event: yaml.Event) -> None:
        """Take one more event of the file."""
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before, depth = self._open.pop()
            self._close(anchor, self._total - before, depth + 1)
            return
        if not isinstance(event, yaml.NodeEvent):
            return
        size, depth = 1, 0
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._sizes:
                self._refuse(event, f"the alias *{event.anchor[:40]} stands for what it is part of")
            size, depth = self._sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent) and len(event.value) > _MAX_TEXT:
            self._refuse(event, f"a text has {len(event.value)} characters, above {_MAX_TEXT}")
        self._total += size
        if self._total > _MAX_VALUES:
            self._refuse(event, f"it has more than {_MAX_VALUES} values, counting aliases in full")
        if len(self._open) + depth > _MAX_DEPTH:
            self._refuse(event, f"its values are nested more than {_MAX_DEPTH} levels deep")
        if isinstance(event, yaml.CollectionStartEvent):
            # Less the collection itself, which is part of what its alias stands for.
            self._open.append((event.anchor, self._total - 1, 0))
        else:
            anchor = None if isinstance(event, yaml.AliasEvent) else event.anchor
            self._close(anchor, size, depth)

    def _close(self, anchor: str | None, size: int, depth: int) -> None:
        if anchor is not None:
            self._sizes[anchor] = (size, depth)
        if self._open:
            outer, before, levels = self._open[-1]
            self._open[-1] = (outer, before, max(levels, depth))

    def _refuse(self, event: yaml.Event, why: str) -> None:
        raise ValueError(
            f"{self._source} must be a config, and is none: {why} (line "
            f"{event.start_mark.line + 1})"
        )


def _check_tag(event: yaml.Event, source: str, packages: tuple[str, ...]) -> None:
    """Refuse tags that run code; upstream's LazyConfig follows every tag."""
    tag = getattr(event, "tag", None) or ""
    if tag.startswith(_PYTHON_TAG) and not _is_harmless(tag.removeprefix(_PYTHON_TAG), packages):
        raise ValueError(
            f"tag !!{tag.removeprefix('tag:yaml.org,2002:')[:200]} is not allowed ({source}, line "
            f"{event.start_mark.line + 1}): reading a config must run no code; load the "
            "Python config file instead"
        )


def _is_harmless(tag: str, packages: tuple[str, ...]) -> bool:
    """Whether a tag of Python only holds values: tuples, names, partial functions and enums."""
    kind, _, name = tag.partition(":")
    if kind == "tuple" or (name == functools.partial.__module__ + ".partial" and kind != "module"):
        return True
    if kind == "name":
        return is_in(name, packages) or find_builder(name) is not None
    return kind == "object/apply" and isinstance(find_builder(name), enum.EnumMeta)
