"""Multi-head self-attention over tokens.

Shape letters: B batch, L tokens, C channels, N heads, D channels of a head.
"""

import torch.nn.functional as F
from torch import Tensor, nn


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
