"""Multi-head self-attention over tokens, and over a map of tokens with relative positions.

Shape letters: B batch, L tokens, C channels, N heads, D channels of a head, H W the token map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimdet.layers.pos_embed import PosEmbedCache
from mimdet.layers.rel_pos import attend, attend_folded, attend_in_chunks, relative_positions
from mimdet.layers.window import window_partition, window_unpartition

_ATTENTION = {"auto": attend, "folded": attend_folded, "chunks": attend_in_chunks}


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

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C), every token attending to all; scale 1 / sqrt(D)."""
        B, L, C = x.shape
        qkv = self.qkv(x).view(B, L, 3, self.num_heads, C // self.num_heads)
        q_BNLD, k_BNLD, v_BNLD = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x_BNLD = F.scaled_dot_product_attention(q_BNLD, k_BNLD, v_BNLD)
        return self.proj(x_BNLD.transpose(1, 2).reshape(B, L, C))


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
        attn_impl: "folded" or "chunks", two forms of one computation, see `mimdet.layers.rel_pos`;
            "auto" takes what suits the device.

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
        if attn_impl not in _ATTENTION:
            raise ValueError(f"attn_impl must be one of {list(_ATTENTION)}, got {attn_impl!r}")
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
        B, H, W, _ = qkv.shape
        qkv = qkv.view(B, H, W, 3, self.num_heads, -1)
        q, k, v = qkv.permute(3, 0, 4, 1, 2, 5)  # (B, N, H, W, D) each
        if self.use_rel_pos:
            rows = self._cache.get(self.rel_pos_h, H)
            columns = self._cache.get(self.rel_pos_w, W)
            x = _ATTENTION[self.attn_impl](q, k, v, rows, columns)
        else:
            x = F.scaled_dot_product_attention(*(x.flatten(2, 3) for x in (q, k, v)))
        return x.transpose(1, 2).reshape(B, H, W, -1)
