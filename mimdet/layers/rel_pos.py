"""Attention with decomposed relative positions: one term for rows plus one for columns.

To the logit of a pair of tokens the query adds its product with a vector that belongs to their
difference in rows, and one that belongs to their difference in columns. Two forms of this one
computation are here, neither of which holds the logits of all pairs.

Shape letters: B batch, N heads, H W query grid and, with a stroke (H' W'), the equal key grid,
L = H * W tokens, D channels of a head, G = B * N, g and c some of G and of L.

Reference:
    Li et al. 2022, arXiv 2203.16527, section 3, with the decomposition of Li et al. 2021 (MViTv2),
    arXiv 2112.01526, section 4.1.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

# Logits that `attend_in_chunks` makes at a time: 2 MB stay in the cache of a CPU core.
_CHUNK = 2**19


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


def relative_terms(q: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """What each query adds to its logits for every row and every column of keys.

    Args:
        q: (B, N, H, W, D) queries that are not scaled.
        rows: (H, H', D) of `relative_positions`.
        columns: (W, W', D).

    Returns:
        (B, N, L, H') and (B, N, L, W').
    """
    by_row = torch.einsum("bnhwd,hkd->bnhwk", q, rows)
    by_column = torch.einsum("bnhwd,wkd->bnhwk", q, columns)
    return by_row.flatten(2, 3), by_column.flatten(2, 3)


def attend(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Attention in the form that suits the tensors' device and precision.

    Args:
        q: (B, N, H, W, D) queries, not scaled; `k` and `v` likewise.
        k: keys.
        v: values.
        rows: (H, H', D) of `relative_positions`.
        columns: (W, W', D).

    Returns:
        (B, N, L, D).
    """
    single = q.device.type == "cpu" and q.dtype in (torch.float32, torch.float64)
    return (attend_in_chunks if single else attend_folded)(q, k, v, rows, columns)


def attend_folded(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """`attend` by `F.scaled_dot_product_attention`, for devices with fused kernels.

    A query gets its terms for all rows and columns as H' + W' more channels, a key the one-hot
    code of its own row and column, so their product picks the two terms of the pair. Values are
    padded with zeros to the same width, which fused kernels ask for. Sums and softmax are
    float32 there, whatever the precision of the input.
    """
    H, W, D = q.shape[2:]
    by_row, by_column = relative_terms(q, rows, columns)
    row_codes = torch.eye(H, dtype=k.dtype, device=k.device).repeat_interleave(W, dim=0)  # (L, H')
    column_codes = torch.eye(W, dtype=k.dtype, device=k.device).repeat(H, 1)  # (L, W')
    codes = torch.cat([row_codes, column_codes], dim=1).expand(*q.shape[:2], -1, -1)
    q, k, v = (x.flatten(2, 3) for x in (q, k, v))
    q = torch.cat([q * D**-0.5, by_row, by_column], dim=-1)  # (B, N, L, D + H' + W')
    k = torch.cat([k, codes], dim=-1)
    v = F.pad(v, (0, H + W))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., :D]


def attend_in_chunks(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """`attend` for CPUs: logits of as many queries at a time as the cache holds.

    The backward pass makes them again from what is kept, as flash attention does. On a CPU this
    is faster than the fused kernel, which would have to multiply three times wider matrices.

    Reference:
        Dao et al. 2022, arXiv 2205.14135, with whole rows of logits instead of tiles.
    """
    by_row, by_column = relative_terms(q, rows, columns)
    scaled = q.flatten(2, 3) * q.shape[-1] ** -0.5
    inputs = (scaled, k.flatten(2, 3), v.flatten(2, 3), by_row, by_column)
    out = _AttendInChunks.apply(*(x.flatten(0, 1) for x in inputs))  # (G, L, D)
    return out.unflatten(0, q.shape[:2])


class _AttendInChunks(torch.autograd.Function):
    """softmax(q k^T + by_row + by_column) v of q, k, v (G, L, D) and terms (G, L, H' or W')."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, by_row: Tensor, by_column: Tensor) -> Tensor:
        out, log_sum = torch.empty_like(q), torch.empty_like(q[..., :1])
        for g, c in _chunks(*q.shape[:2]):
            p = _logits(q[g, c], k[g], by_row[g, c], by_column[g, c])
            largest = p.amax(dim=-1, keepdim=True)
            total = p.sub_(largest).exp_().sum(dim=-1, keepdim=True)
            torch.div(p @ v[g], total, out=out[g, c])
            torch.add(largest, total.log_(), out=log_sum[g, c])
        ctx.save_for_backward(q, k, v, by_row, by_column, out, log_sum)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, ...]:
        q, k, v, by_row, by_column, out, log_sum = ctx.saved_tensors
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        grad_row, grad_column = torch.empty_like(by_row), torch.empty_like(by_column)
        mean = (grad * out).sum(dim=-1, keepdim=True)  # of the gradient to p, weighted by p
        for g, c in _chunks(*q.shape[:2]):
            p = _logits(q[g, c], k[g], by_row[g, c] - log_sum[g, c], by_column[g, c]).exp_()
            grad_v[g].baddbmm_(p.mT, grad[g, c])
            grad_logits = (grad[g, c] @ v[g].mT).sub_(mean[g, c]).mul_(p)
            torch.bmm(grad_logits, k[g], out=grad_q[g, c])
            grad_k[g].baddbmm_(grad_logits.mT, q[g, c])
            grid = grad_logits.unflatten(-1, (by_row.shape[-1], by_column.shape[-1]))
            torch.sum(grid, dim=-1, out=grad_row[g, c])
            torch.sum(grid, dim=-2, out=grad_column[g, c])
        return grad_q, grad_k, grad_v, grad_row, grad_column


def _chunks(groups: int, length: int) -> Iterator[tuple[slice, slice]]:
    """Slices of the groups, and of their queries, that have `_CHUNK` logits at most."""
    queries = min(max(_CHUNK // length, 1), length)
    together = max(_CHUNK // (length * queries), 1)
    for first in range(0, groups, together):
        for start in range(0, length, queries):
            yield slice(first, first + together), slice(start, start + queries)


def _logits(q: Tensor, k: Tensor, by_row: Tensor, by_column: Tensor) -> Tensor:
    """(g, c, D), (g, L, D), (g, c, H'), (g, c, W') -> (g, c, L)."""
    logits = q @ k.mT
    grid = logits.unflatten(-1, (by_row.shape[-1], by_column.shape[-1]))  # (g, c, H', W'), a view
    grid += by_row[..., :, None]
    grid += by_column[..., None, :]
    return logits
