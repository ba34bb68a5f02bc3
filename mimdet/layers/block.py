"""The pre-norm transformer block of a plain ViT, and how a stack of blocks is run.

The constructors of all plain ViTs (MIMDet's encoder and decoder, Benchmarking-ViT, ViTDet, ViTAE,
MAE) share the arguments below, in this order. Their docstrings explain what is their own, or means
more than this:

* `img_size`: side of the square images in pixels, to whose token map position tables belong.
* `patch_size`: side of a token in pixels.
* `in_chans`: channels of the images.
* `embed_dim`: channels C of a token.
* `depth`: number of blocks.
* `num_heads`: attention heads of a block, which must divide `embed_dim`.
* `mlp_ratio`: hidden width of a block's MLP as a multiple of its channels.
* `qkv_bias`: give the joint projection to query, key and value a bias.
* `drop_path_rate`: probability with which a branch of the last block is dropped in training; it
  grows linearly from 0 at the first block (`drop_path_rates`). Published by MIMDet as `dpr`.
* `norm_layer`: called with a number of channels; makes the norms over them.
* `checkpointing`: recompute the activations of a block in the backward pass instead of keeping
  them. Published by Detectron2's ViTDet as `use_act_checkpoint`, by Benchmarking-ViT as `with_cp`.
  The "auto" of configs is decided before a training; a model built without that recomputes.
"""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from mimdet.layers.attention import Attention, BiasedAttention, Positions
from mimdet.layers.rel_pos import TableBias


# timm's Block gives the same numbers under the same names (tests/layers/test_block.py), but builds
# its attention itself, from the arguments of timm's own: there is no place for attention over a map
# (ViTDet, ViTAE) or with a bias from outside (Benchmarking-ViT). One block serves all of them.
class Block(nn.Module):
    """``x + attn(norm1(x))``, then ``x + mlp(norm2(x))``, by default with exact GELU in the MLP.

    Args:
        dim: channels of a token.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        qkv_bias: give the query-key-value projection a bias.
        drop_path: probability with which a branch is dropped for a sample in training.
        norm_layer: called with `dim`; makes the two norms.
        act_layer: makes the activation of the MLP.
        attn: attention to use in place of `Attention`, for tokens of any layout (B, ..., C).

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
        act_layer: Callable[[], nn.Module] = nn.GELU,
        attn: nn.Module | None = None,
    ):
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = Attention(dim, num_heads, qkv_bias) if attn is None else attn
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, hidden_features=int(dim * mlp_ratio), act_layer=act_layer)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, attended: Tensor | None = None) -> Tensor:
        """(B, ..., C) -> (B, ..., C); (B, L, C) with the default attention.

        `attended` is that of `Attention`, which alone takes one.
        """
        normed = self.norm1(x)
        x = x + self.drop_path(
            self.attn(normed) if attended is None else self.attn(normed, attended)
        )
        return x + self.drop_path(self.mlp(self.norm2(x)))


class BiasedBlock(Block):
    """A transformer block whose attention gets a bias and, where asked for, with layer scale.

    Args:
        dim: channels C.
        attn: the attention, called with the tokens and the bias.
        init_values: initial factor of both branches, learned for each channel; None for no factor.
        **kwargs: those of `Block`.

    Reference:
        Touvron et al. 2021, arXiv 2103.17239, section 2 for the layer scale.
    """

    def __init__(self, dim: int, attn: BiasedAttention, init_values: float | None, **kwargs):
        super().__init__(dim, attn.num_heads, attn=attn, **kwargs)
        self.gamma_1 = self.gamma_2 = None
        if init_values is not None:
            self.gamma_1 = nn.Parameter(torch.full((dim,), init_values))
            self.gamma_2 = nn.Parameter(torch.full((dim,), init_values))

    def forward(self, x: Tensor, bias: TableBias | Positions | None) -> Tensor:
        """(B, L, C) and what the attention makes its bias of -> (B, L, C)."""
        x = x + self.drop_path(_scaled(self.attn(self.norm1(x), bias), self.gamma_1))
        return x + self.drop_path(_scaled(self.mlp(self.norm2(x)), self.gamma_2))


def _scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else gamma * x


def mae_layer_norm(dim: int) -> nn.LayerNorm:
    """LayerNorm as MAE pretrains with it: eps 1e-6 instead of torch's 1e-5."""
    return nn.LayerNorm(dim, eps=1e-6)


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """The probabilities with which the blocks of a stack are dropped, in their order.

    Args:
        rate: that of the last block; it grows linearly from 0 at the first.
        depth: number of blocks. A single one is never dropped.

    Reference:
        Huang et al. 2016, arXiv 1603.09382, section 3 ("linear decay"), where it starts above 0.
    """
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


def run(module: nn.Module | partial, x: Tensor, checkpointing: bool) -> Tensor:
    """``module(x)``; with `checkpointing`, activations are recomputed in the backward pass.

    Recomputing leaves the running statistics of batch norms alone: a batch counts once.

    Args:
        module: a module, or a `partial` of one with further arguments by name.
        x: its input.
        checkpointing: recompute where gradients are wanted.
    """
    if not (checkpointing and torch.is_grad_enabled()):
        return module(x)
    root, arguments = (
        (module.func, module.keywords) if isinstance(module, partial) else (module, None)
    )
    buffers = dict(root.named_buffers())
    if not buffers:
        return checkpoint(module, x, use_reentrant=False)

    def on_copies(x: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        copies = {name: value.clone() for name, value in zip(buffers, values, strict=True)}
        return functional_call(root, copies, (x,), arguments), *copies.values()

    # Both passes start from the same values, and what the second makes of them nobody reads. A
    # `context_fn` could tell the passes apart as well, but torch.compile does not trace one.
    values = [buffer.clone() for buffer in buffers.values()]
    x, *updated = checkpoint(on_copies, x, *values, use_reentrant=False)
    with torch.no_grad():
        for buffer, value in zip(buffers.values(), updated, strict=True):
            buffer.copy_(value)
    return x


def run_all(
    blocks: Iterable[nn.Module], x: Tensor, checkpointing: bool, **context: Tensor | None
) -> Tensor:
    """Run `blocks` one after the other, each under `run` and with the same further arguments."""
    for block in blocks:
        x = run(partial(block, **context) if context else block, x, checkpointing)
    return x
