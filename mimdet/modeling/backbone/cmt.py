"""CMT: convolutions and attention in every block.

Shape letters: B batch, C channels, H W cells of a map, L = H * W its tokens, M tokens of the
reduced map that gives keys and values, N heads, D channels of a head.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import DropPath, PatchEmbed, trunc_normal_
from torch import Tensor, nn

from detectron2.modeling import Backbone
from mimdet.layers.block import drop_path_rates, run
from mimdet.layers.layout import map_to_tokens, over_channels, split_heads, tokens_to_map
from mimdet.layers.pos_embed import interpolate_rel_pos_bias

_STAGES = "abcd"


class CMT(Backbone):
    """Stem of three convolutions, then four stages of CMT blocks at strides 4, 8, 16 and 32.

    Each stage has one table of relative positions for the tokens of `img_size`, used by all its
    blocks; for images of another size it is resized as the table of a file is.

    Args:
        img_size: side of the images, in pixels, for which the position tables are made.
        stem_channels: channels of the stem.
        embed_dims: channels of each stage.
        depths: blocks of each stage.
        num_heads: attention heads of each stage.
        sr_ratios: by how much each stage reduces the map that gives keys and values.
        mlp_ratio: hidden width of an MLP as a multiple of its input.
        drop_path_rate: drop rate of the last block; those before have evenly less.
        out_features: which of ``c2..c5`` to return.
        final_norm: normalise the last map, as pretraining does.
        checkpointing: recompute the activations of a block in the backward pass.

    Raises:
        ValueError: if `img_size` is not a multiple of 32, or an output is unknown.

    Reference:
        Guo et al. 2021, arXiv 2107.06263. Parameter names are those of its released code.
    """

    def __init__(
        self,
        img_size: int = 224,
        stem_channels: int = 32,
        embed_dims: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (3, 3, 16, 3),
        num_heads: Sequence[int] = (1, 2, 4, 8),
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        out_features: Sequence[str] = ("c2", "c3", "c4", "c5"),
        final_norm: bool = False,
        checkpointing: bool = False,
    ):
        super().__init__()
        names = [f"c{k + 2}" for k in range(4)]
        if img_size % 32:
            raise ValueError(f"img_size of CMT must be a multiple of 32, got {img_size}")
        if unknown := set(out_features) - set(names):
            raise ValueError(f"out_features of CMT must be among {names}, got {sorted(unknown)}")
        self.sr_ratios = tuple(sr_ratios)
        self.checkpointing = checkpointing
        self._out_features = list(out_features)
        self._out_feature_channels = dict(zip(names, embed_dims, strict=True))
        self._out_feature_strides = {name: 4 * 2**k for k, name in enumerate(names)}

        for k in (1, 2, 3):
            in_channels, stride = (3, 2) if k == 1 else (stem_channels, 1)
            conv = nn.Conv2d(in_channels, stem_channels, 3, stride, padding=1)
            setattr(self, f"stem_conv{k}", conv)
            setattr(self, f"stem_norm{k}", nn.BatchNorm2d(stem_channels))
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        in_channels = stem_channels
        for k, stage in enumerate(_STAGES):
            dim, side = embed_dims[k], img_size // (4 * 2**k)
            # Rows are queries, columns the cells of the reduced map: the table is not square.
            tokens, reduced = side**2, (side // sr_ratios[k]) ** 2
            blocks = [
                CMTBlock(dim, num_heads[k], sr_ratios[k], mlp_ratio, next(rates))
                for _ in range(depths[k])
            ]
            halving = PatchEmbed(
                None, 2, in_channels, dim, norm_layer=nn.LayerNorm, output_fmt="NHWC"
            )
            setattr(self, f"patch_embed_{stage}", halving)
            # Not small, as tables of positions usually start: the release draws deviation 1.
            bias = nn.Parameter(torch.randn(num_heads[k], tokens, reduced))
            setattr(self, f"relative_pos_{stage}", bias)
            setattr(self, f"blocks_{stage}", nn.ModuleList(blocks))
            in_channels = dim
        self.norm = nn.LayerNorm(in_channels, eps=1e-6) if final_norm else nn.Identity()
        self.apply(_init_weights)

    @property
    def size_divisibility(self) -> int:
        """Image sides must be multiples of this many pixels."""
        return 32

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, height, width) -> the maps ``{name: (B, C, H, W)}`` of `out_features`.

        Raises:
            ValueError: if a side of the images is not a multiple of 32.
        """
        if x.shape[-2] % 32 or x.shape[-1] % 32:
            raise ValueError(
                f"images for CMT must have sides that are multiples of 32, got "
                f"{x.shape[-2]}x{x.shape[-1]}; pad them (size_divisibility)"
            )
        for k in (1, 2, 3):
            # Convolution, activation, norm: in this order in stem and MLP.
            x = getattr(self, f"stem_norm{k}")(F.gelu(getattr(self, f"stem_conv{k}")(x)))
        maps = {}
        for name, stage, r in zip(self._out_feature_strides, _STAGES, self.sr_ratios, strict=True):
            x = getattr(self, f"patch_embed_{stage}")(x).permute(0, 3, 1, 2)  # back to (B, C, H, W)
            H, W = x.shape[-2:]
            table = getattr(self, f"relative_pos_{stage}")
            # Resized once for the stage, whose blocks share the table.
            bias = interpolate_rel_pos_bias(table, (H * W, (H // r) * (W // r)))
            for block in getattr(self, f"blocks_{stage}"):
                x = run(partial(block, bias=bias), x, self.checkpointing)
            maps[name] = x
        maps["c5"] = over_channels(self.norm, x)
        return {name: maps[name] for name in self._out_features}


class CMTClassifier(CMT):
    """CMT with the head of its paper: a wide 1x1 convolution, global average, linear classes.

    Args:
        num_classes: classes K.
        head_channels: channels of the wide convolution.
        drop_rate: dropout before the linear layer.
        **kwargs: those of `CMT`.
    """

    def __init__(
        self, num_classes: int = 1000, head_channels: int = 1280, drop_rate: float = 0.1, **kwargs
    ):
        super().__init__(out_features=("c5",), **kwargs)
        self._fc = nn.Conv2d(self._out_feature_channels["c5"], head_channels, 1)
        self._bn = nn.BatchNorm2d(head_channels)
        self.drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(head_channels, num_classes)
        for module in (self._fc, self.head):
            _init_weights(module)

    def get_classifier(self) -> nn.Linear:
        """The last layer, under timm's name for it."""
        return self.head

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, height, width) -> logits (B, K)."""
        x = F.silu(self._bn(self._fc(super().forward(x)["c5"])))
        return self.head(self.drop(x.mean(dim=(2, 3))))


class CMTBlock(nn.Module):
    """A depthwise convolution, attention and a convolutional MLP, each added to its input.

    Args:
        dim: channels C.
        num_heads: attention heads.
        sr_ratio: by how much the map for keys and values is reduced.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        drop_path: probability with which attention or MLP is dropped for a sample in training.
    """

    def __init__(
        self, dim: int, num_heads: int, sr_ratio: int, mlp_ratio: float, drop_path: float = 0.0
    ):
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = _Attention(dim, num_heads, sr_ratio)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = _Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); `bias` (N, L, M) are the stage's positions."""
        x = x + self.proj(x)
        x = x + self.drop_path(self.attn(over_channels(self.norm1, x), bias))
        return x + self.drop_path(self.mlp(over_channels(self.norm2, x)))


class _Attention(nn.Module):
    """Attention of all cells to the cells of a reduced map."""

    def __init__(self, dim: int, num_heads: int, sr_ratio: int):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads must divide the width, got {num_heads} heads for {dim}")
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.sr = nn.Identity()
        if sr_ratio > 1:
            # Kernel and stride are equal: each cell of the reduced map sees cells of its own.
            reduce = nn.Conv2d(dim, dim, sr_ratio, stride=sr_ratio, groups=dim)
            self.sr = nn.Sequential(reduce, nn.BatchNorm2d(dim))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); `bias` (N, L, M) is added to the scaled logits."""
        H, W = x.shape[-2:]
        reduced_BMC = map_to_tokens(self.sr(x))
        q_BNLD = self._split(self.q(map_to_tokens(x)))
        k_BNMD, v_BNMD = self._split(self.k(reduced_BMC)), self._split(self.v(reduced_BMC))
        x_BNLD = F.scaled_dot_product_attention(
            q_BNLD, k_BNMD, v_BNMD, attn_mask=bias.to(q_BNLD.dtype)
        )
        x_BLC = self.proj(x_BNLD.transpose(1, 2).flatten(2))
        return tokens_to_map(x_BLC, (H, W))

    def _split(self, x_BLC: Tensor) -> Tensor:
        return split_heads(x_BLC, self.num_heads)


class _Mlp(nn.Module):
    """Two 1x1 convolutions with a depthwise 3x3, added to its input, between them."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(dim, hidden, 1), nn.GELU(), nn.BatchNorm2d(hidden))
        self.proj = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.proj_bn = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Sequential(nn.Conv2d(hidden, dim, 1), nn.BatchNorm2d(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.conv2(self.proj_bn(F.gelu(x + self.proj(x))))


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
