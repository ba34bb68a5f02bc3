"""Which tensors of a file a part of a model takes, and how tables of another size are fitted."""

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from mimdet.checkpoint.convert.report import LoadReport, counted
from mimdet.checkpoint.convert.swin_table import interpolate_rel_pos_table
from mimdet.layers.pos_embed import interpolate_pos_embed, interpolate_rel_pos_bias

# The blocks of ViTs, Swin, PVTv2 and CMT, and what Swin's older files hold of a block besides: it
# is computed from sizes.
_BLOCKS = ("blocks.*", "layers.*", "stages.*", "blocks_[a-d].*")
_COMPUTED = ("*.relative_position_index", "*.attn_mask")

# Of neighbouring distances on the "geometric" grid: each family has its own bounds.
_SWIN_RATIOS, _BEIT_RATIOS = (0.5, 2.0), (1.01, 1.5)


def match(
    file: Mapping[str, Tensor],
    part: Mapping[str, Tensor],
    *,
    allow_missing: Sequence[str] = (),
    leave: Sequence[str] = (),
    grid: Sequence[int] | None = None,
    tables: str = "bicubic",
) -> tuple[dict[str, Tensor], LoadReport]:
    """Pick and fit the tensors that a part of a model takes from a file.

    Args:
        file: state dict of the file, under the names of the part.
        part: the part's own state dict, for names and shapes.
        allow_missing: `fnmatch` patterns of names that the file need not have, or not in the
            part's shape.
        leave: patterns of names that are not taken although the file has them.
        grid: (h, w) of the part's position table; by default it is square.
        tables: `mode` of `interpolate_rel_pos_table` for Swin's tables.

    Returns:
        The tensors to load, and the report.

    Raises:
        ValueError: if a tensor of the part is missing in the file or has another shape there, the
            file has more blocks than an encoder, or a position table is not square.
    """
    report, matched, wrong = LoadReport(), {}, []
    for name, own in part.items():
        value = None if _matches(name, leave) else file.get(name)
        if value is not None and value.shape != own.shape:
            value = resized_table(name, value, own, grid, tables)
            if value is None and not _matches(name, allow_missing):
                wrong.append(name)
        if value is None:
            report.initial.append(name)
            continue
        matched[name] = value
        (report.loaded if value is file[name] else report.resized).append(name)
    report.unused = sorted(set(file) - set(part))
    missing = [n for n in report.initial if not _matches(n, (*leave, *allow_missing, *wrong))]
    _check_complete(missing)
    _check_shapes(wrong, file, part)
    _check_depth(report.unused, part)
    return matched, report


def resized_table(
    name: str,
    value: Tensor,
    own: Tensor,
    grid: Sequence[int] | None = None,
    tables: str = "bicubic",
) -> Tensor | None:
    """A table in the size of the part's own; None if the tensor is no table or cannot fit.

    Args:
        name: of both; its last component tells the kind of table.
        value: of the file.
        own: of the part.
        grid: see `match`.
        tables: see `match`.

    Raises:
        ValueError: if a table is not that of a square map, where it has to be.
    """
    leaf = name.rpartition(".")[2]
    resized = None
    if leaf in ("pos_embed", "decoder_pos_embed") and value.ndim == own.ndim == 3:
        resized = _resized_positions(value, own, grid)
    elif leaf == "relative_position_bias_table":
        resized = _resized_offsets(value.float(), own, tables)
    elif leaf.startswith("relative_pos_"):  # of a stage of CMT
        resized = interpolate_rel_pos_bias(value.float(), own.shape[1:])
    return resized if resized is not None and resized.shape == own.shape else None


def _resized_offsets(table: Tensor, own: Tensor, tables: str) -> Tensor:
    """A table of relative positions, Swin's or one with BEiT's three rows for a class token."""
    extra = 3 if table.shape[0] % 2 == 0 else 0  # (2 w - 1)^2 is odd
    window = (math.isqrt(max(own.shape[0] - extra, 0)) + 1) // 2
    offsets, rest = table.tensor_split([table.shape[0] - extra])
    ratios = _BEIT_RATIOS if extra else _SWIN_RATIOS
    return torch.cat([interpolate_rel_pos_table(offsets, window, tables, ratios), rest])


def _resized_positions(table: Tensor, own: Tensor, grid: Sequence[int] | None) -> Tensor:
    """Bring a square position table to the part's grid; a class slot it lacks is left out."""
    side, extra = _square(table, "the file")
    if grid is None:
        own_side, own_extra = _square(own, "the model")
        grid = (own_side, own_side)
    else:
        own_extra = own.shape[1] - grid[0] * grid[1]
    resized = interpolate_pos_embed(
        table.float(), tuple(grid), num_extra_tokens=extra, orig_size=(side, side)
    )
    return resized[:, max(extra - own_extra, 0) :]


def _square(table: Tensor, owner: str) -> tuple[int, int]:
    """Side of the square grid of a table, and the slots that it has besides."""
    side = math.isqrt(table.shape[1])
    extra = table.shape[1] - side * side
    if extra > 2:  # for a class token and, in distilled ViTs, one for the teacher
        raise ValueError(
            f"the position table of {owner} must be that of a square map with up to two slots "
            f"more, got {table.shape[1]} slots; of a model whose map is not square, give the "
            "(h, w) in tokens as `grid`"
        )
    return side, extra


def _check_complete(missing: list[str]) -> None:
    if missing:
        raise ValueError(
            f"the file lacks {counted(missing)}; it is of another architecture or depth, or "
            "`allow_missing` must name what is new in the model"
        )


def _check_shapes(wrong: list[str], file: Mapping[str, Tensor], part: Mapping[str, Tensor]) -> None:
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{name} has shape {tuple(file[name].shape)} in the file and "
            f"{tuple(part[name].shape)} in the model; the file is of another model size"
        )


def _check_depth(unused: list[str], part: Mapping[str, Tensor]) -> None:
    """A decoder may use the first blocks only; an encoder uses them all."""
    if not any(_matches(name, _BLOCKS) for name in part):
        return
    surplus = [n for n in unused if _matches(n, _BLOCKS) and not _matches(n, _COMPUTED)]
    if surplus:
        raise ValueError(
            f"the file has encoder blocks that the model lacks ({counted(surplus)}); "
            "the file is of another model size"
        )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
