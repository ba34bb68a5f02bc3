"""The attentions of the ViTs: over tokens, and over a map of tokens with relative positions.

All of them compute ``softmax(q k^T / sqrt(D) + bias) v``, and `attend` decides how. Read on from
there for the kernels, or go to the modules below.

Shape letters: B batch, N heads, D channels of a head, C = N * D channels, H W the token map and,
with a stroke (H' W'), the equal map of the keys, L = H * W queries, S = H' * W' keys.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mimdet.layers.cpu_attention import cpu_attention
from mimdet.layers.pos_embed import PosEmbedCache, TablesOfOneGrid
from mimdet.layers.rel_pos import (
    Bias,
    RelativeTerms,
    TableBias,
    joint_rows,
    look_up,
    relative_positions,
    relative_terms,
    resize_joint_table,
)
from mimdet.layers.window import window_partition, window_unpartition

ATTENTION_KERNELS = ("auto", "folded", "chunks")


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Bias | None = None, kernel: str = "auto"
) -> Tensor:
    """``softmax(q k^T / sqrt(D) + bias) v`` by the kernel that suits the device.

    Args:
        q: (B, N, L, D) queries, not scaled.
        k: (B, N, S, D) keys.
        v: (B, N, S, D) values.
        bias: of the logits, from relative positions.
        kernel: for a bias: "chunks" is `cpu_attention`, "folded" is torch's fused attention, with
            relative terms folded into queries and keys; "auto" takes what suits the device.

    Returns:
        (B, N, L, D).
    """
    if bias is None:
        return F.scaled_dot_product_attention(q, k, v)
    if q.is_meta:
        return _by_the_letter(q, k, v, bias)
    is_table = isinstance(bias, TableBias)
    if kernel == "auto":
        # On a CPU folding pays only where wider products are nearly free: in half precision. A
        # compiled graph would hold every chunk, and as many as the tokens at hand need.
        suits_cpu = is_table or q.dtype in (torch.float32, torch.float64)
        in_chunks = q.device.type == "cpu" and suits_cpu and not torch.compiler.is_compiling()
        kernel = "chunks" if in_chunks else "folded"
    if kernel == "chunks":
        return cpu_attention(q, k, v, bias)
    if is_table:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.values[None])
    return _folded(q, k, v, bias)


def _by_the_letter(q: Tensor, k: Tensor, v: Tensor, bias: Bias) -> Tensor:
    """For tensors without values, so that counts are those of the mathematics and of no trick."""
    every = slice(None)
    logits = q @ k.mT * q.shape[-1] ** -0.5 + bias.at(every, every, every)  # (B, N, L, S)
    return logits.softmax(dim=-1) @ v


def _folded(q: Tensor, k: Tensor, v: Tensor, bias: RelativeTerms) -> Tensor:
    """Relative terms for fused kernels, which on a GPU hold no logits but take no such bias.

    A query gets its terms for all rows and columns as H' + W' more channels, a key the one-hot
    code of its own row and column, so their product picks the two terms of the pair. Sums and
    softmax are float32 in these kernels, whatever the precision of the input.
    """
    (H, W), D = (x.shape[-1] for x in bias), q.shape[-1]
    row_codes = torch.eye(H, dtype=k.dtype, device=k.device).repeat_interleave(W, dim=0)  # (S, H')
    column_codes = torch.eye(W, dtype=k.dtype, device=k.device).repeat(H, 1)  # (S, W')
    codes = torch.cat([row_codes, column_codes], dim=1).expand(*k.shape[:2], -1, -1)
    # Fused kernels want values of the same width, and channels in eights: others they copy.
    width = -(-(D + H + W) // 8) * 8
    # Scaled here, with scale=1.0 below: the kernel's own factor would reach the terms too.
    q = torch.cat([q * D**-0.5, *bias], dim=-1)  # (B, N, L, D + H' + W')
    k = torch.cat([k, codes], dim=-1)
    q, k, v = (F.pad(x, (0, width - x.shape[-1])) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., :D]


class Attention(nn.Module):
    """Self-attention with one projection for query, key and value, as in timm's ViT.

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`.
        qkv_bias: give the joint projection a bias.

    Raises:
        ValueError: if `num_heads` does not divide `dim`.

    Reference:
        Dosovitskiy et al. 2020, arXiv 2010.11929, appendix A.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads must divide the width, got {num_heads} heads for {dim}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, attended: Tensor | None = None) -> Tensor:
        """(B, L, C) -> (B, L, C), every token attending to all, or to those of a mask.

        Args:
            x: (B, L, C).
            attended: (B, L) bool, False where a token is attended to by none; at least one of each
                sample is True.
        """
        q, k, v = self._split(self.qkv(x))
        if attended is None:
            return self.proj(_joined(attend(q, k, v)))
        mask = attended[:, None, None]  # the same for all heads and queries
        return self.proj(_joined(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))

    def _split(self, qkv: Tensor) -> Tensor:
        """Queries, keys and values of all heads, one behind the other in the first dimension."""
        return rearrange(qkv, "B L (three N D) -> three B N L D", three=3, N=self.num_heads)


def _joined(x: Tensor) -> Tensor:
    """The heads' outputs side by side."""
    return rearrange(x, "B N L D -> B L (N D)")


class BiasedAttention(Attention):
    """Self-attention with a bias that is given.

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`.
        qkv_bias: give the joint projection a bias.
        beit_qkv_bias: hold that bias as `q_bias` and `v_bias`, with none for the keys.

    Reference:
        Bao et al. 2021 (BEiT), arXiv 2106.08254, for the bias without keys.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool, beit_qkv_bias: bool):
        super().__init__(dim, num_heads, qkv_bias and not beit_qkv_bias)
        self.beit_qkv_bias = beit_qkv_bias
        if beit_qkv_bias:
            self.q_bias = nn.Parameter(torch.zeros(dim))
            self.v_bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, bias: TableBias | None) -> Tensor:
        """Attend among all tokens.

        Args:
            x: (B, L, C).
            bias: its values (N, L, L) are added to the logits of every entry of the batch; None
                for none.

        Returns:
            (B, L, C).
        """
        qkv = self.qkv(x)
        if self.beit_qkv_bias:
            # None for the keys: it adds the same to all logits of a query, which softmax ignores.
            qkv = qkv + torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        return self.proj(_joined(attend(*self._split(qkv), bias)))


class Positions(NamedTuple):
    """Where the tokens of a map are, the same for all blocks that attend over it.

    Attributes:
        hw: (H, W) of the map.
        index: (1 + L, 1 + L) int64 of `joint_index_with_class`.
    """

    hw: tuple[int, int]
    index: Tensor


class TableAttention(BiasedAttention, TablesOfOneGrid):
    """Self-attention whose bias comes from a joint table of its own.

    The tokens are a class token and a map. The table, (R + 3, N) for the R differences within
    `grid_size`, starts at zero and is resized for other maps (`resize_joint_table`).

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`.
        qkv_bias: give the joint projection a bias.
        grid_size: (h, w) of the map that the table describes.

    Reference:
        Bao et al. 2021 (BEiT), arXiv 2106.08254, whose fine-tuned models have a table per block.
    """

    tables_of_one_grid = ("relative_position_bias_table",)

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool, grid_size: tuple[int, int]):
        super().__init__(dim, num_heads, qkv_bias, beit_qkv_bias=False)
        self.grid_size = tuple(grid_size)
        rows = joint_rows(self.grid_size) + 3
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, num_heads))
        self._cache = PosEmbedCache(resize_joint_table)

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        """(B, 1 + L, C) and the positions of its tokens -> (B, 1 + L, C)."""
        grids = (self.grid_size, positions.hw)
        table = self._cache.get(self.relative_position_bias_table, grids)
        return super().forward(x, look_up(table, positions.index))


class RelPosAttention(Attention):
    """Self-attention over a token map, whole or in windows, with decomposed relative positions.

    Two tables, shared by all heads, give each pair of tokens a bias that depends on the query:
    ``q · rel_pos_h[row difference] + q · rel_pos_w[column difference]``, with the query before its
    scaling. A map that is no multiple of the window is padded by tokens that are zero; they are
    not masked, as released weights were trained with them.

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`.
        qkv_bias: give the joint projection a bias.
        use_rel_pos: have the tables; without them this is plain attention.
        rel_pos_zero_init: start with tables of zeros, else truncated normal of std 0.02.
        input_size: side of the square map that the tables of an attention without windows
            describe, in tokens; they are resized for other maps.
        window_size: side of the windows in tokens; 0 for none.
        attn_impl: the kernel, see `attend`: "auto" is right, the others are there to compare.

    Raises:
        ValueError: if `num_heads` does not divide `dim` or `attn_impl` is unknown.

    Reference:
        Li et al. 2022, arXiv 2203.16527, section 3. Names are Detectron2's; the projections run
        on the tokens of the map alone, and its padding is filled in between: a zero token's
        query, key and value are the bias.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool = True,
        *,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        input_size: int | None = None,
        window_size: int = 0,
        attn_impl: str = "auto",
    ):
        super().__init__(dim, num_heads, qkv_bias)
        if attn_impl not in ATTENTION_KERNELS:
            raise ValueError(f"attn_impl must be one of {ATTENTION_KERNELS}, got {attn_impl!r}")
        self.window_size = window_size
        self.use_rel_pos = use_rel_pos
        self.attn_impl = attn_impl
        if use_rel_pos:
            table = torch.zeros(2 * (window_size or input_size) - 1, dim // num_heads)
            self.rel_pos_h = nn.Parameter(table)
            self.rel_pos_w = nn.Parameter(table.clone())
            if not rel_pos_zero_init:
                nn.init.trunc_normal_(self.rel_pos_h, std=0.02)
                nn.init.trunc_normal_(self.rel_pos_w, std=0.02)
            self._cache = PosEmbedCache(relative_positions)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        H, W = x.shape[1:3]
        qkv = self.qkv(x)  # (B, H, W, 3 C)
        if not self.window_size:
            return self.proj(self._attend(qkv))
        windows, padded_hw = window_partition(qkv, self.window_size, padding=self.qkv.bias)
        return self.proj(window_unpartition(self._attend(windows), padded_hw, (H, W)))

    def _attend(self, qkv: Tensor) -> Tensor:
        """(B, H, W, 3 C) -> (B, H, W, C), every token of a map attending to all of it."""
        hw = H, W = qkv.shape[1:3]
        q, k, v = self._split(qkv.flatten(1, 2))  # (B, N, L, D) each
        bias = None
        if self.use_rel_pos:
            rows = self._cache.get(self.rel_pos_h, H)
            columns = self._cache.get(self.rel_pos_w, W)
            bias = relative_terms(q.unflatten(2, hw), rows, columns)
        return _joined(attend(q, k, v, bias, self.attn_impl)).unflatten(1, hw)
