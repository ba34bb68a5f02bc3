"""ViTAE: transformer cells with convolutions in parallel to their attention, in ViTDet's frame.

Two backbones have them: `PlainViTAE` (ViTAE-B) is a plain ViT of such cells; `ViTAE` (ViTAE-S)
makes its tokens by three reduction cells of dilated convolutions and linear attention. `NormedViT`
is the plain ViT that was trained beside them.

Shape letters: B batch, L tokens, C channels, E channels of a reduced token, M random features,
H W pixels of the padded batch, h w tokens of the map.

Reference:
    Xu et al. 2021, "ViTAE: Vision Transformer Advanced by Exploring Intrinsic Inductive Bias",
    arXiv 2106.03348; Zhang et al. 2022, "ViTAEv2", arXiv 2202.10108, for the plain one; the
    detectors of both in arXiv 2203.16527's frame are the unofficial ViTDet release's, whose names
    are used here below `net`.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron2.layers import get_norm
from detectron2.modeling import Backbone
from mimdet.layers.attention import RelPosAttention
from mimdet.layers.block import drop_path_rates, run, run_all
from mimdet.layers.init import init_linear
from mimdet.layers.layout import map_to_tokens, over_channels, tokens_to_map
from mimdet.modeling.backbone.vitdet import ViT, ViTBlock

_layer_norm = partial(nn.LayerNorm, eps=1e-6)

Norm = str | Callable[[int], nn.Module]


class NormedViT(ViT):
    """`ViT` whose map is normalised before it is handed on, as in the unofficial ViTDet.

    Args:
        **kwargs: those of `ViT`.
    """

    def __init__(self, *, norm_layer: Callable[[int], nn.Module] = _layer_norm, **kwargs):
        super().__init__(norm_layer=norm_layer, **kwargs)
        (shape,) = self.output_shape().values()
        self.norm = norm_layer(shape.channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, in_chans, H, W) normalised images -> ``{out_feature: (B, C, h, w)}``."""
        return {
            name: over_channels(self.norm, feature) for name, feature in super().forward(x).items()
        }


class NormalCell(ViTBlock):
    """A transformer block over a token map, with convolutions beside its attention.

    ``x + attn(norm1(x)) + PCM(x)``, then ``x + mlp(norm2(x))``. The convolutions see the block's
    input as it is, and the whole map where the attention is windowed: by them windows exchange
    information.

    Args:
        dim: channels C.
        num_heads: attention heads.
        attn: the attention over (B, h, w, C).
        residual: follows the block; None for nothing.
        mlp_ratio: hidden width of the MLP and of the convolutions as a multiple of `dim`.
        groups: of the convolutions.
        norm: normalises the convolutions, see `detectron2.layers.get_norm`.
        third_conv: have a third convolution (ViTAE-S).
        **kwargs: those of `mimdet.layers.block.Block`.

    Reference:
        Xu et al. 2021, arXiv 2106.03348, section 3.4.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        attn: nn.Module,
        residual: nn.Module | None = None,
        *,
        mlp_ratio: float,
        groups: int,
        norm: Norm,
        third_conv: bool = False,
        **kwargs,
    ):
        super().__init__(dim, num_heads, attn, residual, mlp_ratio=mlp_ratio, **kwargs)
        hidden = int(dim * mlp_ratio)
        layers = [
            _conv(dim, hidden, groups=groups),
            get_norm(norm, hidden),
            nn.SiLU(),
            _conv(hidden, dim, groups=groups),
        ]
        if third_conv:
            layers += [get_norm(norm, dim), nn.SiLU(), _conv(dim, dim, groups=groups), nn.SiLU()]
        self.PCM = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, h, w, C)."""
        convolved = self.PCM(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        # Dropped apart: a sample may lose its attention and keep its convolutions.
        x = x + self.drop_path(self.attn(self.norm1(x))) + self.drop_path(convolved)
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x if self.residual is None else self.residual(x)


def _conv(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups)


class PlainViTAE(NormedViT):
    """A plain ViT of `NormalCell`s with two convolutions each (ViTAE-B).

    Args:
        pcm_groups: groups of the convolutions; ViTAE-B has ``embed_dim / 4``.
        pcm_norm: their norm. The released model was trained with "SyncBN".
        **kwargs: those of `ViT`.

    Reference:
        Zhang et al. 2022, arXiv 2202.10108. The release has no key bias in global blocks; here
        all blocks are alike, as a key bias does not change attention weights.
    """

    def __init__(self, *, pcm_groups: int, pcm_norm: Norm = "BN", **kwargs):
        cell = partial(NormalCell, groups=pcm_groups, norm=pcm_norm)
        super().__init__(block_layer=cell, **kwargs)


class Reduction(NamedTuple):
    """How a reduction cell's dilated convolutions reduce a map."""

    stride: int
    kernel_size: int
    dilations: tuple[int, ...]


_REDUCTIONS = (
    Reduction(stride=4, kernel_size=7, dilations=(1, 2, 3, 4)),
    Reduction(stride=2, kernel_size=3, dilations=(1, 2, 3)),
    Reduction(stride=2, kernel_size=3, dilations=(1, 2)),
)
_STRIDE = math.prod(reduction.stride for reduction in _REDUCTIONS)


class PyramidReduction(nn.Module):
    """Strided convolutions of several dilations side by side, whose outputs are concatenated.

    Args:
        in_chans: channels of the map.
        embed_dim: channels of each convolution's output.
        reduction: stride, kernel and dilations.

    Reference:
        Xu et al. 2021, arXiv 2106.03348, section 3.3.
    """

    def __init__(self, in_chans: int, embed_dim: int, reduction: Reduction):
        super().__init__()
        stride, kernel_size, dilations = reduction
        self.convs = nn.ModuleList()
        for dilation in dilations:
            # the padding with which every dilation gives h = H / stride
            padding = math.ceil(((kernel_size - 1) * dilation + 1 - stride) / 2)
            conv = nn.Conv2d(in_chans, embed_dim, kernel_size, stride, padding, dilation)
            self.convs.append(nn.Sequential(conv, nn.GELU()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, len(dilations) * embed_dim, H / stride, W / stride)."""
        return torch.cat([conv(x) for conv in self.convs], dim=1)


class PerformerBlock(nn.Module):
    """A block of linear attention that changes the width of tokens, and adds another branch.

    Attention weights are products of positive random features, ``exp(w u - |u|^2 / 2)``, so that
    sums over keys are taken once for all queries. The values are the shortcut: the input itself
    has another width.

    Args:
        in_dim: channels of the input.
        dim: channels E of the output. There are half as many random features; their directions
            are orthogonal, of length sqrt(M), and not trained.
        dropout: of projection and MLP.
        subtract_max: scale each feature of the keys by its largest value in the image, and the
            features of a query to a largest one of 1. That leaves the quotient as it is, but for
            the 1e-8 in its denominator, which otherwise takes over where tokens are so long that
            all their features underflow.

    Reference:
        Choromanski et al. 2020 (Performer), arXiv 2009.14794, lemma 1, in the form of Yuan et al.
        2021 (T2T-ViT), arXiv 2101.11986.
    """

    def __init__(self, in_dim: int, dim: int, dropout: float = 0.1, *, subtract_max: bool = False):
        super().__init__()
        self.subtract_max = subtract_max
        self.norm1 = nn.LayerNorm(in_dim)
        self.kqv = nn.Linear(in_dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim), nn.Dropout(dropout)
        )
        num_features = dim // 2
        w = nn.init.orthogonal_(torch.empty(num_features, dim)) * math.sqrt(num_features)
        # In the state dict, though never trained: weights fit only the features they grew up with.
        self.w = nn.Parameter(w, requires_grad=False)

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """(B, L, in_dim) tokens and (B, L, E) of the other branch -> (B, L, E)."""
        # Keys first, unlike everywhere else: the order of the released weights.
        k, q, v = self.kqv(self.norm1(x)).chunk(3, dim=-1)
        x = v + self.dropout(self.proj(self._attend(q, k, v))) + branch
        return x + self.mlp(self.norm2(x))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Linear attention of (B, L, E) tensors, in float32 also under autocast."""
        with _without_autocast(q.device.type):
            q, k = self._log_features(q), self._log_features(k)
            if self.subtract_max:
                # What is taken from the logarithm of a key's feature is given to the query's, so
                # that their product stays; the last factor cancels in the quotient.
                largest = k.amax(dim=1, keepdim=True)  # (B, 1, M)
                k, q = k - largest, q + largest
                q = q - q.amax(dim=2, keepdim=True)
            scale = self.w.shape[0] ** -0.5
            q_BLM, k_BLM = q.exp() * scale, k.exp() * scale
            context = k_BLM.transpose(1, 2) @ v.float()  # (B, M, E)
            total = k_BLM.sum(dim=1)[..., None]  # (B, M, 1)
            return q_BLM @ context / (q_BLM @ total + 1e-8)

    def _log_features(self, x: Tensor) -> Tensor:
        x = x.float()
        return x @ self.w.float().T - x.square().sum(dim=-1, keepdim=True) / 2  # (B, L, M)


def _without_autocast(device_type: str) -> contextlib.AbstractContextManager:
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()  # such as on meta, where models are only counted


class ReductionCell(nn.Module):
    """Makes a coarser map: dilated convolutions, attention on them, plain convolutions in parallel.

    Args:
        in_chans: channels of the map.
        embed_dim: channels of each dilated convolution.
        token_dim: channels of the output; None for the dilated convolutions alone, whose output
            has ``embed_dim * len(dilations)`` channels.
        reduction: stride, kernel and dilations.
        norm: normalises the plain convolutions, see `detectron2.layers.get_norm`.
        subtract_max: see `PerformerBlock`.

    Reference:
        Xu et al. 2021, arXiv 2106.03348, section 3.3. Sides must be multiples of the stride, to
        which `ViTAE` pads images; the release pads in each cell instead.
    """

    def __init__(
        self,
        in_chans: int,
        embed_dim: int,
        token_dim: int | None,
        reduction: Reduction,
        norm: Norm,
        *,
        subtract_max: bool = False,
    ):
        super().__init__()
        self.PRM = PyramidReduction(in_chans, embed_dim, reduction)
        self.PCM = self.attn = None
        if token_dim is not None:
            self.PCM = nn.Sequential(
                # The two strides make that of the dilated branch, to which this one is added.
                _conv(in_chans, embed_dim, stride=2),
                nn.SiLU(),
                _conv(embed_dim, embed_dim, stride=reduction.stride // 2),
                get_norm(norm, embed_dim),
                nn.SiLU(),
                _conv(embed_dim, token_dim),
                nn.SiLU(),
            )
            width = embed_dim * len(reduction.dilations)
            self.attn = PerformerBlock(width, token_dim, subtract_max=subtract_max)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, C, H / stride, W / stride)."""
        reduced = self.PRM(x)
        if self.attn is None:
            return reduced
        tokens = self.attn(map_to_tokens(reduced), map_to_tokens(self.PCM(x)))
        return tokens_to_map(tokens, reduced.shape[-2:])


class ViTAE(Backbone):
    """Three reduction cells, then normal cells at stride 16 (ViTAE-S).

    Arguments not explained here are those of every plain ViT, see `mimdet.layers.block`; blocks are
    the normal cells.

    Args:
        img_size: side of the square image that the tables of relative positions describe.
        embed_dims: channels of each dilated convolution in the three reduction cells. The last
            cell has two: the normal cells' tokens have twice its number of channels.
        token_dims: channels of the first two cells' outputs.
        window_size: side of a window in tokens.
        global_block_indexes: normal cells whose attention is over the whole map.
        pcm_groups: groups of the normal cells' convolutions.
        pcm_norm: norm of all cells' convolutions. The released model was trained with "SyncBN".
        use_act_checkpoint: `checkpointing`, of all cells.
        out_feature: name of the output.
        subtract_max: see `PerformerBlock`; False for the released model.
        attn_impl: see `mimdet.layers.attention.RelPosAttention`.

    Raises:
        ValueError: if an index names no normal cell, or there are not three reduction cells.

    Reference:
        Xu et al. 2021, arXiv 2106.03348, table 2. Images of any size are taken: they are padded to
        a multiple of 16, where the release takes images of `img_size` only.
    """

    def __init__(
        self,
        *,
        img_size: int = 1024,
        in_chans: int = 3,
        embed_dims: Sequence[int] = (64, 64, 192),
        token_dims: Sequence[int] = (96, 192),
        depth: int = 14,
        num_heads: int = 6,
        mlp_ratio: float = 3.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = _layer_norm,
        window_size: int = 14,
        global_block_indexes: Sequence[int] = (2, 5, 8, 13),
        pcm_groups: int = 96,
        pcm_norm: Norm = "BN",
        use_act_checkpoint: bool = False,
        out_feature: str = "last_feat",
        subtract_max: bool = False,
        attn_impl: str = "auto",
    ):
        super().__init__()
        wrong = [i for i in global_block_indexes if not 0 <= i < depth]
        if wrong:
            raise ValueError(
                f"global_block_indexes must be in 0..{depth - 1} for {depth} normal cells, "
                f"got {wrong} (model.backbone.net.global_block_indexes)"
            )
        if (len(embed_dims), len(token_dims)) != (3, 2):
            raise ValueError(
                f"embed_dims must have 3 numbers and token_dims 2, got {list(embed_dims)} and "
                f"{list(token_dims)} (model.backbone.net)"
            )
        self.checkpointing = use_act_checkpoint
        embed_dim = embed_dims[-1] * len(_REDUCTIONS[-1].dilations)
        widths = zip(
            (in_chans, *token_dims), embed_dims, (*token_dims, None), _REDUCTIONS, strict=True
        )
        # A list of dicts for the names of the release: layers.0.RC, ..., layers.2.NC.13.
        self.layers = nn.ModuleList(
            nn.ModuleDict({"RC": ReductionCell(*width, pcm_norm, subtract_max=subtract_max)})
            for width in widths
        )
        self.layers[-1]["NC"] = nn.ModuleList(
            NormalCell(
                embed_dim,
                num_heads,
                RelPosAttention(
                    embed_dim,
                    num_heads,
                    qkv_bias,
                    use_rel_pos=True,
                    input_size=img_size // _STRIDE,
                    window_size=0 if i in global_block_indexes else window_size,
                    attn_impl=attn_impl,
                ),
                mlp_ratio=mlp_ratio,
                groups=pcm_groups,
                norm=pcm_norm,
                third_conv=True,
                drop_path=drop_path,
                norm_layer=norm_layer,
            )
            for i, drop_path in enumerate(drop_path_rates(drop_path_rate, depth))
        )
        self.norm = norm_layer(embed_dim)
        self._out_features = [out_feature]
        self._out_feature_channels = {out_feature: embed_dim}
        self._out_feature_strides = {out_feature: _STRIDE}
        self.apply(init_linear)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, in_chans, H, W) normalised images -> ``{out_feature: (B, C, h, w)}``."""
        H, W = x.shape[-2:]
        x = F.pad(x, (0, -W % _STRIDE, 0, -H % _STRIDE))
        for layer in self.layers:
            x = run(layer["RC"], x, self.checkpointing)
        x = run_all(self.layers[-1]["NC"], x.permute(0, 2, 3, 1), self.checkpointing)
        return {self._out_features[0]: self.norm(x).permute(0, 3, 1, 2)}
