"""Kinds of files that a part of a model can start from, and how they get the names of the part."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from mimdet.checkpoint.convert import fastmim
from mimdet.checkpoint.convert.beit import fit_beit, is_beit
from mimdet.checkpoint.convert.mae import strip_prefixes

StateDict = Mapping[str, Tensor]


def _is_mae(file: StateDict) -> bool:
    return not is_beit(file) and not fastmim.has_older_names(file)


# name -> whether a state dict, prefixes stripped, is of the format. Some files of FastMIM are of
# two: their names are MAE's.
FORMATS: dict[str, Callable[[StateDict], bool]] = {
    "beit": is_beit,
    "mae": _is_mae,
    "fastmim": fastmim.is_fastmim,
}


def detect_format(file: StateDict) -> str:
    """The first format that the names of a file, prefixes stripped, are of."""
    return next(name for name, holds in FORMATS.items() if holds(file))


def in_our_names(
    file: StateDict, format: str, part: StateDict, grid: Sequence[int] | None = None
) -> StateDict:
    """Give the tensors of a file the names, and of BEiT the layout, that a part of a model has.

    Args:
        file: state dict of the file, prefixes stripped.
        format: a key of `FORMATS`.
        part: the part's own state dict.
        grid: (h, w) of the part's token map; by default it is square.

    Raises:
        ValueError: if the file is of a kind that cannot be converted.
    """
    if format == "beit":
        return fit_beit(file, part, grid)
    if format == "fastmim":
        return strip_prefixes(fastmim.to_native(file))
    return file
