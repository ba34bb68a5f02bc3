"""What a comparison compares: runs, or several runs of one training that differ by their seeds."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Model:
    """A model of a comparison.

    Attributes:
        name: on the page, unlike that of any other.
        runs: folders of its runs; several differ by nothing but their seeds.
    """

    name: str
    runs: list[Path]


def find_models(folders: Sequence[str | os.PathLike]) -> list[Model]:
    """The models that are in folders.

    Args:
        folders: of runs, or of folders ``seed_0``, ``seed_1``, ... with one run each, as
            `mimdet sweep` makes them.

    Raises:
        FileNotFoundError: if one is no folder.
        ValueError: if there are fewer than two, or one is there twice.
    """
    paths = [Path(folder).resolve() for folder in folders]
    for path in paths:
        if not path.is_dir():
            raise FileNotFoundError(f"a comparison needs folders of runs, and {path} is none")
    if len(set(paths)) < 2 or len(set(paths)) < len(paths):
        raise ValueError(
            "a comparison needs two or more folders of runs, each once, and got "
            f"{', '.join(map(str, folders)) or 'none'}"
        )
    return [
        Model(name, seeds_in(path) or [path])
        for name, path in zip(_short_names(paths), paths, strict=True)
    ]


def seeds_in(folder: Path) -> list[Path]:
    """The folders ``seed_N`` in a folder, by their numbers."""
    found = [path for path in folder.glob("seed_*") if path.is_dir() and path.name[5:].isdecimal()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of each path: as many as it takes for all of them to be unlike."""
    names: list[str] = []
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names
