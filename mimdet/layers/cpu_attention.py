"""Attention with a bias on a CPU, in memory that does not grow with queries times keys.

torch's fused kernel for the CPU takes a bias but gives no gradient of it, and where one is wanted
torch computes and keeps all weights. Here the weights exist for a chunk of queries at a time, and
the backward pass makes them again from what is kept anyway, as flash attention does.

Shape letters: B batch, N heads, L queries, S keys, D channels of a head; b and c some of B and L.

Reference:
    Dao et al. 2022, arXiv 2205.14135, section 3.1, with whole rows of weights instead of tiles.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mimdet.layers.rel_pos import Bias, RelativeTerms, TableBias

# Weights that are made at a time: 2 MB in float32 stay in the cache of a CPU core.
_CHUNK = 2**19


def cpu_attention(q: Tensor, k: Tensor, v: Tensor, bias: Bias) -> Tensor:
    """``softmax(q k^T / sqrt(D) + bias) v`` with gradients of all four.

    The gradient of a `TableBias` goes to its table at once: its values, made from the table, are
    as many as the weights of one image, and would want a gradient of that size.

    Args:
        q: (B, N, L, D) queries, not scaled.
        k: (B, N, S, D) keys.
        v: (B, N, S, D) values.
        bias: of the logits.

    Returns:
        (B, N, L, D).
    """
    if isinstance(bias, TableBias):
        bias = bias._replace(values=bias.values.detach())
    return _CpuAttention.apply(type(bias), q, k, v, *bias)


class _CpuAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, kind: type[Bias], q: Tensor, k: Tensor, v: Tensor, *of_bias: Tensor) -> Tensor:
        bias = kind(*of_bias)
        B, N, L, D = q.shape
        out = q.new_empty(B, L, N, D).transpose(1, 2)  # heads side by side, as the projection wants
        for b, n, c in _chunks(B, N, L, k.shape[2]):
            out[b, n, c] = F.scaled_dot_product_attention(
                q[b, n, c], k[b, n], v[b, n], attn_mask=bias.at(b, n, c)
            )
        ctx.kind = kind
        ctx.save_for_backward(q, k, v, out, *of_bias)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    @torch.autocast("cpu", enabled=False)  # also where the loss is computed under autocast
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, *of_bias = ctx.saved_tensors
        q, k, v, grad = (x.contiguous() for x in (q, k, v, grad))
        bias = ctx.kind(*of_bias)
        (B, N, L, D), S = q.shape, k.shape[2]
        precise = torch.promote_types(q.dtype, torch.float32)  # sums over chunks need it
        grad_q, grad_k, grad_v = (x.new_zeros(x.shape, dtype=precise) for x in (q, k, v))
        grad_bias = _zeros(bias, precise)
        # Softmax passes weight * (gradient of the weight - mean) on. This mean, of the gradients
        # of a query's weights by these weights, is the product of the output and its gradient.
        mean = (grad.to(precise) * out).sum(dim=-1, keepdim=True)
        for b, n, c in _chunks(B, N, L, S):
            q_c, k_n, v_n, grad_c = (
                x.to(precise) for x in (q[b, n, c], k[b, n], v[b, n], grad[b, n, c])
            )
            # Not in place: of a float32 tensor `to` gives the saved one itself.
            q_c = q_c * D**-0.5
            # Whole rows: softmax needs no maximum or sum kept from the forward pass.
            logits = torch.baddbmm(bias.at(b, n, c).to(precise), q_c, k_n.mT)  # (b, c, S)
            weights = logits.softmax(dim=-1)
            grad_v[b, n].baddbmm_(weights.mT, grad_c)
            # in the memory of the logits, which are not wanted any more and still in the cache
            grad_logits = torch.bmm(grad_c, v_n.mT, out=logits).sub_(mean[b, n, c]).mul_(weights)
            grad_q[b, n, c] = grad_logits @ k_n
            grad_k[b, n].baddbmm_(grad_logits.mT, q_c)
            _add(grad_bias, grad_logits, bias, b, n, c)
        return None, grad_q.mul_(D**-0.5), grad_k, grad_v, *_in_order(bias, grad_bias)


def _chunks(B: int, N: int, L: int, S: int) -> Iterator[tuple[slice, int, slice]]:
    """Indices of (B, N, L) that have `_CHUNK` weights at most.

    They have one head each, because the values of a table differ between heads and are shared by
    the batch, over which the gradient of the table is summed.
    """
    # A row of weights stays whole, even where it alone has more than that.
    queries = min(max(_CHUNK // S, 1), L)
    together = max(_CHUNK // (S * queries), 1)
    for n in range(N):
        for first in range(0, B, together):
            for start in range(0, L, queries):
                yield slice(first, first + together), n, slice(start, start + queries)


def _zeros(bias: Bias, dtype: torch.dtype) -> list[Tensor]:
    """Where the gradients of by_row and by_column, or of the table, head first, are summed up."""
    summed = bias if isinstance(bias, RelativeTerms) else [bias.table.T.contiguous()]
    return [torch.zeros_like(x, dtype=dtype) for x in summed]


def _add(sums: list[Tensor], grad_logits: Tensor, bias: Bias, b: slice, n: int, c: slice) -> None:
    """Add what the logits (b, c, S) of a chunk contribute to the gradients of the bias."""
    if isinstance(bias, RelativeTerms):
        grid = grad_logits.unflatten(-1, (bias.by_row.shape[-1], bias.by_column.shape[-1]))
        # A chunk has all keys of its queries, so these sums are complete: written, not added.
        for axis, grad in zip((-1, -2), sums, strict=True):
            torch.sum(grid, dim=axis, out=grad[b, n, c])
    else:
        # Many pairs of tokens share one entry of the table: the batch is summed first, as it shares
        # all of them.
        sums[0][n].scatter_add_(0, bias.index[c].flatten(), grad_logits.sum(0).flatten())


def _in_order(bias: Bias, sums: list[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients for each tensor of the bias."""
    return tuple(sums) if isinstance(bias, RelativeTerms) else (None, sums[0].T, None)
