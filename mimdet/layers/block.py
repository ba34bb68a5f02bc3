"""The pre-norm transformer block of a plain ViT, and how a stack of blocks is run."""

from collections.abc import Callable, Iterable

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mimdet.layers.attention import Attention


class Block(nn.Module):
    """``x + attn(norm1(x))``, then ``x + mlp(norm2(x))``, with exact GELU in the MLP.

    Args:
        dim: channels of a token.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        qkv_bias: give the query-key-value projection a bias.
        drop_path: probability with which a branch is dropped for a sample in training.
        norm_layer: called with `dim`; makes the two norms.

    Reference:
        Dosovitskiy et al. 2020, arXiv 2010.11929, equations 2 and 3. Parameter names are timm's.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
    ):
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = Attention(dim, num_heads, qkv_bias)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, hidden_features=int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def run(module: Callable[[Tensor], Tensor], x: Tensor, checkpointing: bool) -> Tensor:
    """``module(x)``; with `checkpointing`, activations are recomputed in the backward pass."""
    if checkpointing and torch.is_grad_enabled():
        return checkpoint(module, x, use_reentrant=False)
    return module(x)


def run_all(blocks: Iterable[nn.Module], x: Tensor, checkpointing: bool) -> Tensor:
    """Run `blocks` one after the other, each under `run`."""
    for block in blocks:
        x = run(block, x, checkpointing)
    return x


def init_transformer_weights(module: nn.Module) -> None:
    """Initialise a Linear or LayerNorm the way MAE does; for ``Module.apply``.

    Linear: Xavier uniform weights, zero bias. LayerNorm: one and zero. Others are left alone.

    Reference:
        He et al. 2021, arXiv 2111.06377, appendix A.1.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
