"""Relative positions in attention: their tables, and the bias of logits that is looked up in them.

Two kinds of table are known. Decomposed ones hold a vector for each difference in rows and one for
each in columns; what a pair of tokens gets is their products with the query, so the bias differs
between images. A joint one holds a number for each head and difference in both, the same for all.

Shape letters: B batch, N heads, H W query grid and, with a stroke (H' W'), the equal key grid,
L = H * W queries, S = H' * W' keys, D channels of a head, R rows of a joint table.

Reference:
    Li et al. 2022 (ViTDet), arXiv 2203.16527, section 3, with the decomposition of Li et al. 2021
    (MViTv2), arXiv 2112.01526, section 4.1. Joint: Liu et al. 2021 (Swin), arXiv 2103.14030,
    section 3.2.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimdet.layers.pos_embed import interpolate_rel_pos_bias


class RelativeTerms(NamedTuple):
    """The bias of decomposed tables: one term for the key's row plus one for its column.

    Attributes:
        by_row: (B, N, L, H').
        by_column: (B, N, L, W').
    """

    by_row: Tensor
    by_column: Tensor

    def at(self, *index: slice | int) -> Tensor:
        """What is added to the logits at an index of (B, N, L): (..., S)."""
        by_row, by_column = self.by_row[index], self.by_column[index]
        return (by_row[..., :, None] + by_column[..., None, :]).flatten(-2)


class TableBias(NamedTuple):
    """The bias of a joint table, the same for all of the batch.

    Attributes:
        values: (N, L, S): ``values[n, i, j] == table[index[i, j], n]``.
        table: (R, N).
        index: (L, S) int64.
    """

    values: Tensor
    table: Tensor
    index: Tensor

    def at(self, batch: slice | int, *index: slice | int) -> Tensor:
        """What is added to the logits at an index of (B, N, L): (..., S) without the batch."""
        return self.values[index]


Bias = RelativeTerms | TableBias


def relative_positions(table: Tensor, size: int) -> Tensor:
    """Look up the entry of every pair of positions along one axis.

    Args:
        table: (2 S - 1, D) of a grid of side S; row ``S - 1 + d`` belongs to the difference d of
            query and key.
        size: side K of the grid at hand. If it is not S, the table is resized to 2 K - 1 rows,
            by linear interpolation in at least float32.

    Returns:
        (K, K', D), the query's position first.
    """
    rows = 2 * size - 1
    if table.shape[0] != rows:
        precise = torch.promote_types(table.dtype, torch.float32)
        resized = F.interpolate(table.T[None].to(precise), size=rows, mode="linear")  # (1, D, rows)
        table = resized[0].T.to(table.dtype)
    position = torch.arange(size, device=table.device)
    return table[position[:, None] - position[None, :] + size - 1]


def relative_terms(q: Tensor, rows: Tensor, columns: Tensor) -> RelativeTerms:
    """What each query adds to its logits for every row and every column of keys.

    Args:
        q: (B, N, H, W, D) queries that are not scaled.
        rows: (H, H', D) of `relative_positions`.
        columns: (W, W', D).
    """
    # Kept apart, H' + W' numbers for each query: their sums are as many as the logits.
    by_row = torch.einsum("bnhwd,hkd->bnhwk", q, rows)
    by_column = torch.einsum("bnhwd,wkd->bnhwk", q, columns)
    return RelativeTerms(by_row.flatten(2, 3), by_column.flatten(2, 3))


def joint_rows(grid_size: tuple[int, int]) -> int:
    """Rows of a joint table: one for each difference in rows and columns of the grid (h, w)."""
    h, w = grid_size
    return (2 * h - 1) * (2 * w - 1)


def joint_index(grid_size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """The row of a joint table for each query and key of the grid (h, w): (L, L) int64."""
    h, w = grid_size
    row = torch.arange(h, device=device).repeat_interleave(w)
    column = torch.arange(w, device=device).repeat(h)
    # A difference runs from -(h - 1) to h - 1: shifted, it counts rows of the table from 0.
    dy = row[:, None] - row[None, :] + h - 1
    dx = column[:, None] - column[None, :] + w - 1
    return dy * (2 * w - 1) + dx


def joint_index_with_class(
    grid_size: tuple[int, int], device: torch.device | None = None
) -> Tensor:
    """`joint_index` with a class token in front, for a table of three more rows.

    The differences of the class token have no direction, so one row serves all of its keys, one
    all queries that look at it, and one the class token itself.

    Returns:
        (1 + L, 1 + L) int64.
    """
    rows = joint_rows(grid_size)
    tokens = joint_index(grid_size, device)
    index = tokens.new_full((tokens.shape[0] + 1,) * 2, rows + 1)  # key: class token
    index[0] = rows  # query: class token
    index[0, 0] = rows + 2
    index[1:, 1:] = tokens
    return index


def resize_joint_table(table: Tensor, grids: tuple[tuple[int, int], tuple[int, int]]) -> Tensor:
    """Bring a joint table to another grid, bicubically; rows of a class token stay as they are.

    Args:
        table: (R, N), with or without the three rows of `joint_index_with_class` at its end.
        grids: (h, w) of the table and (H, W) of the wanted one.

    Returns:
        (R', N); the input itself when the grid is already the wanted one.
    """
    old, new = ((2 * h - 1, 2 * w - 1) for h, w in grids)
    if old == new:
        return table
    n = old[0] * old[1]
    image = table[:n].T.unflatten(1, old)  # (N, 2 h - 1, 2 w - 1)
    return torch.cat([interpolate_rel_pos_bias(image, new).flatten(1).T, table[n:]])


class RelativePositionBias(nn.Module):
    """A joint table: a learned number for each head and difference of positions.

    Args:
        grid_size: (h, w) of the tokens that attend to each other.
        num_heads: attention heads.

    `relative_position_index` (L, L) holds the row of the table for each query and key. It follows
    from `grid_size`, and is a buffer for the names of released checkpoints.

    Reference:
        Bao et al. 2021 (BEiT), arXiv 2106.08254, after Liu et al. 2021, arXiv 2103.14030,
        section 3.2.
    """

    def __init__(self, grid_size: tuple[int, int], num_heads: int):
        super().__init__()
        table = torch.zeros(joint_rows(grid_size), num_heads)
        self.relative_position_bias_table = nn.Parameter(table)
        self.register_buffer("relative_position_index", joint_index(grid_size))

    def forward(self) -> TableBias:
        """The bias of every query and key, made once for all attentions that share it."""
        return look_up(self.relative_position_bias_table, self.relative_position_index)


def look_up(table: Tensor, index: Tensor) -> TableBias:
    """Make the bias of a joint table, in the precision that attention will have.

    Args:
        table: (R, N).
        index: (L, S), rows of the table.
    """
    values = table.T.contiguous().index_select(1, index.flatten()).unflatten(1, index.shape)
    device = values.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        # once here instead of in every attention
        values = values.to(torch.get_autocast_dtype(device))
    return TableBias(values, table, index)
