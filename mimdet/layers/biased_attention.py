"""Attention with a bias from a table, without keeping the attention weights for its gradient.

Shape letters: B batch, N heads, L queries, S keys, D channels of a head, R rows of the table.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Attention weights that the backward pass makes at a time: 1 MB in float32, which caches hold.
_CHUNK_ELEMENTS = 2**18


class TableBias(NamedTuple):
    """A bias of attention logits that is looked up in a table.

    Attributes:
        values: (N, L, S), for all of the batch: ``values[n, i, j] == table[index[i, j], n]``.
        table: (R, N).
        index: (L, S) int64.
    """

    values: Tensor
    table: Tensor
    index: Tensor


def look_up(table: Tensor, index: Tensor) -> TableBias:
    """Make the bias once for all attentions that share it, in the precision of attention.

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


def attend_with_bias(q: Tensor, k: Tensor, v: Tensor, bias: TableBias) -> Tensor:
    """``softmax(q k^T / sqrt(D) + bias) v`` in memory that does not grow with L times S.

    This is `F.scaled_dot_product_attention`. Its kernel for the CPU gives no gradient of a bias,
    so torch would compute and keep all weights there; our own backward pass makes them anew, some
    queries of a head at a time, and adds the gradient of the bias to that of the table at once.

    Args:
        q: (B, N, L, D) queries.
        k: (B, N, S, D) keys.
        v: (B, N, S, D) values.
        bias: from `look_up`.

    Returns:
        (B, N, L, D).

    Reference:
        Dao et al. 2022, arXiv 2205.14135, section 3.1 for the recomputation of the weights.
    """
    if bias.values.requires_grad and torch.is_grad_enabled() and q.device.type == "cpu":
        return _RecomputedWeights.apply(q, k, v, bias.values.detach(), bias.table, bias.index)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.values[None])


class _RecomputedWeights(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, table: Tensor, index: Tensor
    ) -> Tensor:
        ctx.save_for_backward(q, k, v, bias, table, index)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        *qkv, bias, table, index = ctx.saved_tensors
        # the sums over chunks need more than half precision
        precise = torch.promote_types(bias.dtype, torch.float32)
        q, k, v, grad_output = (x.to(precise) for x in (*qkv, grad_output))
        N, L, D = q.shape[1:]
        q = q * D**-0.5
        grad_q, grad_k, grad_v = (torch.empty_like(x) for x in (q, k, v))
        grad_table = torch.zeros_like(table.T, dtype=precise, memory_format=torch.contiguous_format)
        rows = max(1, _CHUNK_ELEMENTS // (q.shape[0] * k.shape[2]))
        for n in range(N):
            # of this head: (B, L or S, D)
            q_n, k_n, v_n, grad_n = (x[:, n].contiguous() for x in (q, k, v, grad_output))
            grad_q_n, grad_k_n, grad_v_n = (torch.zeros_like(x) for x in (q_n, k_n, v_n))
            for start in range(0, L, rows):
                chunk = slice(start, start + rows)
                q_c, grad_c = q_n[:, chunk], grad_n[:, chunk]
                weights = (q_c @ k_n.mT).add_(bias[n, chunk]).softmax(dim=-1)  # (B, rows, S)
                grad_v_n.baddbmm_(weights.mT, grad_c)
                # softmax: a logit's gradient is weight * (gradient - weighted mean of gradients)
                grad_logits = grad_c @ v_n.mT
                grad_logits -= (grad_logits * weights).sum(dim=-1, keepdim=True)
                grad_logits *= weights
                grad_q_n[:, chunk] = grad_logits @ k_n
                grad_k_n.baddbmm_(grad_logits.mT, q_c)
                grad_table[n].scatter_add_(0, index[chunk].flatten(), grad_logits.sum(0).flatten())
            grad_q[:, n], grad_k[:, n], grad_v[:, n] = grad_q_n * D**-0.5, grad_k_n, grad_v_n
        return grad_q, grad_k, grad_v, None, grad_table.T, None
