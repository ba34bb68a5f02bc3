"""Checkpoint files from other people's names to ours and back."""

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor

from mimdet.checkpoint.average import averaged_weights, choose_weights
from mimdet.checkpoint.convert import SOURCES, Source, detect_source
from mimdet.checkpoint.file import read_checkpoint, tensors_in, write_checkpoint

NATIVE = "native"
_GIVEN_BY = "the checkpoint to convert"


def convert_file(
    path: str,
    output: str,
    *,
    to: str = NATIVE,
    source: str | None = None,
    renames: Sequence[Sequence[str]] = (),
    drop: Sequence[str] = (),
    overwrite: bool = False,
    weights: str | None = None,
) -> str:
    """Write a converted copy of a checkpoint, whole or not at all.

    Args:
        path: the checkpoint; of it only the state dict is read.
        output: the file to write: ``{"model": state_dict}`` with our names, or
            ``{source.wrapper: state_dict}`` with those of others, as mmcv and timm read it.
        to: "native", or the name of the source whose names are wanted.
        source: whose names the file has, where `to` is "native"; recognised by default.
        renames: (regular expression, replacement) pairs for names of the file, applied in this
            order before all else; for files whose names differ from what a source expects.
        drop: `fnmatch` patterns of renamed names that are left out, such as those of a classifier.
        overwrite: replace `output` if it exists.
        weights: "ema" or "raw" of a file of ours that has an average of its weights; by default
            the average where there is one.

    Returns:
        A report of what was read, converted and written.

    Raises:
        FileNotFoundError: if there is no `path`, or no folder for `output`.
        FileExistsError: if `output` exists and is not to be replaced.
        ValueError: if the file cannot be read, its names are not recognised, a name is left over,
            a pattern of `drop` matches none, or the wanted direction does not exist.
    """
    _check_output(path, output, overwrite)
    content = read_checkpoint(path, _GIVEN_BY)
    kind = choose_weights(content, weights, path)
    taken = averaged_weights(content) if kind == "ema" else content
    tensors = _rename(tensors_in(taken, path, _GIVEN_BY), renames)
    tensors = _without(tensors, drop)
    if to == NATIVE:
        converter = _source_of(tensors, path) if source is None else _named(source)
        converted, wrapper = converter.to_native(tensors), "model"
    else:
        converter = _named(to)
        if converter.from_native is None:
            raise ValueError(f"{to} must have a way back from our names, but it has none")
        converted, wrapper = converter.from_native(tensors), converter.wrapper
    write_checkpoint({wrapper: converted}, output)
    read = f"{path}, its averaged weights (EMA)" if kind == "ema" else path
    return _report(read, tensors, output, converted, converter.name, to)


def _check_output(path: str, output: str, overwrite: bool) -> None:
    if os.path.exists(output) and (not overwrite or os.path.samefile(path, output)):
        raise FileExistsError(
            f"{output} must not exist, or be another file than {path} and --overwrite be given"
        )


def _rename(tensors: Mapping[str, Tensor], renames: Sequence[Sequence[str]]) -> dict[str, Tensor]:
    """Names without the "module." of a distributed wrapper, after the user's own renaming."""
    renamed = {}
    for name, value in tensors.items():
        new_name = name.removeprefix("module.")
        for pattern, replacement in renames:
            try:
                new_name = re.sub(pattern, replacement, new_name)
            except (re.error, IndexError) as e:
                raise ValueError(
                    f"{pattern!r} -> {replacement!r} must be a substitution: {e}"
                ) from e
        if new_name in renamed:
            raise ValueError(f"renaming must keep names apart, but gives {new_name} twice")
        renamed[new_name] = value
    return renamed


def _without(tensors: Mapping[str, Tensor], patterns: Sequence[str]) -> dict[str, Tensor]:
    dropped: set[str] = set()
    for pattern in patterns:
        matching = fnmatch.filter(tensors, pattern)
        if not matching:
            raise ValueError(f"every pattern of --drop must match a name, {pattern!r} matches none")
        dropped.update(matching)
    return {name: value for name, value in tensors.items() if name not in dropped}


def _source_of(tensors: Mapping[str, Tensor], path: str) -> Source:
    source = detect_source(tensors)
    if source is None:
        parts = Counter(name.split(".")[0] for name in tensors)
        raise ValueError(
            f"the names of {path} must be of a known source ({_names()}), but they are of none: "
            f"{len(tensors)} tensors, most below {', '.join(p for p, _ in parts.most_common(4))}; "
            "say which one it is by --from, or rename by --rename"
        )
    return source


def _named(name: str) -> Source:
    for source in SOURCES:
        if source.name == name:
            return source
    raise ValueError(f"a source must be one of {_names()}, got {name!r}")


def _names() -> str:
    return ", ".join(source.name for source in SOURCES)


def _report(
    path: str,
    tensors: Mapping[str, Tensor],
    output: str,
    converted: Mapping[str, Tensor],
    name: str,
    to: str,
) -> str:
    given = {id(value) for value in tensors.values()}
    same = sum(id(value) in given for value in converted.values())
    before, after = (name, "our names") if to == NATIVE else ("our names", name)
    return (
        f"{path}: {len(tensors)} tensors taken, {_numel(tensors):,} numbers ({before})\n"
        f"{output}: {len(converted)} tensors written, {_numel(converted):,} numbers ({after}); "
        f"{same} with the values of the file, {len(converted) - same} computed from them"
    )


def _numel(tensors: Mapping[str, Tensor]) -> int:
    return sum(value.numel() for value in tensors.values())
