"""What becomes of each name when a file is loaded, and how messages list names."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class LoadReport:
    """What became of each name when a file was loaded into a module.

    Attributes:
        loaded: taken from the file as they are.
        resized: position tables, resized to the module's grid.
        initial: of the module, without a counterpart in MAE files: they keep their initial value.
        unused: of the file, without a place in the module.
    """

    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    initial: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        resized = f" ({', '.join(self.resized)} resized)" if self.resized else ""
        return (
            f"{len(self.loaded) + len(self.resized)} tensors loaded{resized}; "
            f"{counted(self.initial)} not in the file, kept as initialised; "
            f"{counted(self.unused)} of the file not used"
        )


def brief(names: Iterable[str], limit: int = 4) -> str:
    """The first `limit` names, and dots if there are more."""
    names = list(names)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def counted(names: Iterable[str]) -> str:
    """How many names there are, and the first of them."""
    names = list(names)
    return f"{len(names)} ({brief(names)})" if names else "0"
