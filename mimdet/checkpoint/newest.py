"""The checkpoint of a run's folder from which the run can go on."""

import fnmatch
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mimdet.checkpoint.file import read_checkpoint

TAG = "last_checkpoint"
"""The file in which Detectron2 names the newest checkpoint beside it."""

PATTERN = "model_*.pth"
"""The names of a run's checkpoints."""

_NUMBERED = re.compile(r"model_(\d{7,})\.pth")


@dataclass(frozen=True)
class Found:
    """The newest whole checkpoint of a folder.

    Attributes:
        name: of the file; None if there is no whole one.
        damaged: name -> fault, of those that would have come before it.
    """

    name: str | None
    damaged: dict[str, str] = field(default_factory=dict)


def checkpoints_in(folder: str | Path) -> list[str]:
    """Names of the files that the checkpointers of a run write; nothing is read."""
    return sorted(path.name for path in Path(folder).glob(PATTERN))


def tagged_checkpoint(folder: str | Path) -> str | None:
    """The name in `last_checkpoint`; None if there is no such file, "" if it names none.

    Raises:
        ValueError: if it is a folder, in whose place nothing can be written.
    """
    try:
        # a disk that is full leaves the file empty, a power failure leaves zeros in it
        name = Path(folder, TAG).read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise ValueError(
            f"{Path(folder, TAG)} must be a file that names a checkpoint beside it, but it is a "
            "folder: move it away; --resume then goes on from the newest whole checkpoint"
        ) from None
    # A path would lead out of the folder that this run owns.
    return name if name == Path(name).name else ""


def fault_of(path: Path) -> str | None:
    """Why a run cannot go on from a file, as the end of "it ..."; None if it can."""
    return _read(path)[1]


def _read(path: Path) -> tuple[Any, str | None]:
    """What a file holds, its tensors left in it, and what is wrong with it."""
    try:
        return read_checkpoint(str(path), "--resume", mapped=True), None
    except FileNotFoundError:
        return None, "is a folder" if path.is_dir() else "is missing"
    except (OSError, ValueError) as e:
        # of the whole message, which names the file once more and how to fetch another one
        what = " ".join(str(e).split()).rpartition(", but it ")[2].partition(": fetch ")[0]
        return None, f"cannot be read: it {what}" if ", but it " in str(e) else str(e)


def newest_whole(folder: str | Path, faults: Mapping[str, str] | None = None) -> Found:
    """The checkpoint of the latest iteration that is not damaged, whatever `last_checkpoint` says.

    Periodic ones have the iteration in their name. Others (``model_final.pth``, ``model_best.pth``)
    are of the iteration that they hold, and no file to go on from if they hold none.

    Args:
        folder: of the run.
        faults: name -> fault, of files that were read already and are not read again.
    """
    damaged = dict(faults or {})
    known = dict(_iterations(Path(folder), damaged))
    for name in sorted(known, key=lambda name: (known[name], name), reverse=True):
        # those without a number have just been read
        fault = fault_of(Path(folder, name)) if _NUMBERED.fullmatch(name) else None
        if fault is None:
            return Found(name, damaged)
        damaged[name] = fault
    return Found(None, damaged)


def _iterations(folder: Path, damaged: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Name and iteration of each checkpoint; what cannot be read for it goes to `damaged`."""
    for name in checkpoints_in(folder):
        if name in damaged:
            continue
        if match := _NUMBERED.fullmatch(name):
            yield name, int(match[1])
            continue
        content, fault = _read(folder / name)
        if fault:
            damaged[name] = fault
        elif isinstance(content, dict) and isinstance(content.get("iteration"), int):
            yield name, content["iteration"]


def read_of_run(path: str, given_by: str, mapped: bool = False) -> Any:
    """Read a checkpoint, see `read_checkpoint`; an error names a whole one beside it.

    Only beside ``model_*.pth``, the names that a run gives: other files are not alike.
    """
    try:
        return read_checkpoint(path, given_by, mapped)
    except (FileNotFoundError, ValueError) as e:
        folder, name = os.path.split(path)
        is_of_run = fnmatch.fnmatch(name, PATTERN)
        newest = newest_whole(folder or ".", {name: str(e)}).name if is_of_run else None
        if newest is None:
            raise
        message = f"{e}; the newest whole checkpoint of its folder is {newest}"
        raise type(e)(message) from e.__cause__
