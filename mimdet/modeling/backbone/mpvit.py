"""MPViT: every stage looks at patches of several sizes at once, one transformer for each size.

A stage embeds its input by a chain of 3x3 convolutions, so that the k-th output sees patches of
side 2k + 3. Each output goes through a transformer of its own, the first one also through a
convolution block; a 1x1 convolution joins them.

Maps are kept channels-last, so that a map (B, C, H, W) and its tokens (B, L, C) are two views of
one memory and no step between convolutions and transformers copies.

Shape letters: B batch, L tokens (L = H * W, row-major), C channels, N heads, D channels of a head,
H W cells of a map.

Reference:
    Lee et al. 2022, "MPViT: Multi-Path Vision Transformer for Dense Prediction", arXiv 2112.11010.
    Written from the paper and from facts about the release; parameter names are the release's.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from detectron2.layers import get_norm
from detectron2.modeling import Backbone
from mimdet.layers.block import drop_path_rates, run
from mimdet.layers.init import init_linear
from mimdet.layers.layout import map_to_tokens, split_heads, tokens_to_map

# Side of the depthwise window -> heads whose values it mixes.
_HEADS_OF_WINDOW = {3: 2, 5: 3, 7: 3}
_NUM_HEADS = sum(_HEADS_OF_WINDOW.values())


class Size(NamedTuple):
    """One row of the table of published sizes; a number per stage.

    Attributes:
        embed_dims: channels.
        num_layers: transformer blocks of each path.
        num_path: paths.
        mlp_ratios: hidden width of an MLP as a multiple of the channels.
    """

    embed_dims: tuple[int, ...]
    num_layers: tuple[int, ...]
    num_path: tuple[int, ...]
    mlp_ratios: tuple[float, ...]


# The paper's table of detectors (17M and 28M parameters, 196 and 216 GFLOPs) has a T with MLP ratio
# 4; the T of the release, which has the 5.8M parameters of the ImageNet table, has 2.
SIZES = {
    "mpvit_tiny": Size((64, 96, 176, 216), (1, 2, 4, 1), (2, 3, 3, 3), (2, 2, 2, 2)),
    "mpvit_xsmall": Size((64, 128, 192, 256), (1, 2, 4, 1), (2, 3, 3, 3), (4, 4, 4, 4)),
    "mpvit_small": Size((64, 128, 216, 288), (1, 3, 6, 3), (2, 3, 3, 3), (4, 4, 4, 4)),
    "mpvit_base": Size((128, 224, 368, 480), (1, 3, 8, 3), (2, 3, 3, 3), (4, 4, 4, 4)),
}


class ConvNorm(nn.Module):
    """Convolution without bias, normalisation and, unless switched off, Hardswish.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        norm: normalisation, as `detectron2.layers.get_norm` takes it.
        kernel_size: side of the window; the map is padded to keep its size.
        stride: step of the window.
        act: end with Hardswish.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: str,
        kernel_size: int = 1,
        stride: int = 1,
        act: bool = True,
    ):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False
        )
        self.bn = get_norm(norm, out_channels)
        self.act = nn.Hardswish() if act else nn.Identity()
        _init_conv(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride)."""
        return self.act(self.bn(self.conv(x)))


class SeparableConvNorm(nn.Module):
    """Depthwise 3x3 and pointwise convolution, normalisation, Hardswish.

    Args:
        channels: channels C of input and output.
        norm: normalisation, as `detectron2.layers.get_norm` takes it.
        stride: step of the depthwise window.
    """

    def __init__(self, channels: int, norm: str, stride: int = 1):
        super().__init__()
        self.dwconv = _depthwise(channels, 3, stride=stride, bias=False)
        self.pwconv = nn.Conv2d(channels, channels, kernel_size=1, bias=False)
        self.bn = get_norm(norm, channels)
        self.act = nn.Hardswish()
        _init_conv(self.dwconv)
        _init_conv(self.pwconv)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / stride, W / stride)."""
        return self.act(self.bn(self.pwconv(self.dwconv(x))))


class PatchEmbedStage(nn.Module):
    """Patches of growing size, each from the one before.

    Args:
        channels: channels C of input and outputs.
        num_path: number of patch sizes: 3, 5, 7, ... cells of the first output's grid.
        norm: normalisation, as `detectron2.layers.get_norm` takes it.
        stride: stride of the first convolution; the others have 1.

    Reference:
        Lee et al. 2022, arXiv 2112.11010, section 3.2.
    """

    def __init__(self, channels: int, num_path: int, norm: str, stride: int):
        super().__init__()
        strides = [stride] + [1] * (num_path - 1)
        # Dicts for the names of the release: patch_embeds.0.patch_conv.
        self.patch_embeds = nn.ModuleList(
            nn.ModuleDict({"patch_conv": SeparableConvNorm(channels, norm, s)}) for s in strides
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> `num_path` maps (B, C, H / stride, W / stride)."""
        outputs = []
        for embed in self.patch_embeds:
            x = embed["patch_conv"](x)
            outputs.append(x)
        return outputs


class ConvPosEnc(nn.Module):
    """Position as a residual: each token gets a depthwise 3x3 convolution of its neighbours.

    Args:
        channels: channels C.

    Reference:
        Chu et al. 2021, arXiv 2102.10882.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.proj = _depthwise(channels, 3)

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Tokens (B, L, C) of a map of `hw` cells -> (B, L, C)."""
        return x + map_to_tokens(self.proj(tokens_to_map(x, hw)))


class ConvRelPosEnc(nn.Module):
    """Sums of the values around each token, weighted by relative position, per channel.

    The heads look 3, 5 and 7 cells wide, as `_HEADS_OF_WINDOW` says.

    Args:
        channels: channels C, head after head.

    Reference:
        Xu et al. 2021 (CoaT), arXiv 2104.06399, section 3.2.
    """

    def __init__(self, channels: int):
        super().__init__()
        self._split = [channels // _NUM_HEADS * heads for heads in _HEADS_OF_WINDOW.values()]
        self.conv_list = nn.ModuleList(
            _depthwise(part, window)
            for part, window in zip(self._split, _HEADS_OF_WINDOW, strict=True)
        )

    def forward(self, v: Tensor, hw: tuple[int, int]) -> Tensor:
        """Values (B, L, C) of a map of `hw` cells -> (B, L, C)."""
        # By channels instead of by heads: head after head, they lie in the same order.
        parts = tokens_to_map(v, hw).split(self._split, dim=1)
        maps = [conv(part) for conv, part in zip(self.conv_list, parts, strict=True)]
        return map_to_tokens(torch.cat(maps, dim=1))


class FactorizedAttention(nn.Module):
    """Attention whose cost grows linearly with the number of tokens.

    Keys are softmaxed over the tokens and multiplied with the values first: a D x D matrix per
    head, by which the queries are then multiplied. The relative position term is added unscaled.

    Args:
        dim: channels C; a multiple of 8, the number of heads.

    Raises:
        ValueError: if `dim` is not a multiple of 8.

    Reference:
        Xu et al. 2021 (CoaT), arXiv 2104.06399, section 3.1, without its class token.
    """

    def __init__(self, dim: int):
        super().__init__()
        if dim % _NUM_HEADS:
            raise ValueError(
                f"embed_dims must be multiples of {_NUM_HEADS}, the number of heads, got {dim} "
                "(model.backbone.bottom_up)"
            )
        self.scale = (dim // _NUM_HEADS) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, hw: tuple[int, int], crpe: ConvRelPosEnc) -> Tensor:
        """(B, L, C) -> (B, L, C).

        Args:
            x: normalised tokens.
            hw: cells (H, W) of their map.
            crpe: the relative position encoding, which the blocks of a path share.
        """
        q, k, v = self.qkv(x).chunk(3, dim=2)  # each (B, L, C)
        q_BNLD, k_BNLD, v_BNLD = (split_heads(x, _NUM_HEADS) for x in (q, k, v))
        # keys and values first: a D x D matrix for each head, not one of L x L
        context_BNDD = k_BNLD.softmax(dim=2).transpose(2, 3) @ v_BNLD
        # the scale goes to the D x D numbers of a head, not to the L x D of its queries
        factorized_BNLD = q_BNLD @ (self.scale * context_BNDD)
        relative_BNLD = split_heads(q * crpe(v, hw), _NUM_HEADS)
        # the first summand's layout is kept: joining the heads is a view
        return self.proj((relative_BNLD + factorized_BNLD).transpose(1, 2).flatten(2))


class MPViTBlock(nn.Module):
    """Pre-norm transformer block with factorised attention.

    Args:
        dim: channels C.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        drop_path: probability with which a branch is dropped for a sample in training.
    """

    def __init__(self, dim: int, mlp_ratio: float, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.factoratt_crpe = FactorizedAttention(dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, hidden_features=int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, hw: tuple[int, int], cpe: ConvPosEnc, crpe: ConvRelPosEnc
    ) -> Tensor:
        """Tokens (B, L, C) of a map of `hw` cells -> (B, L, C), with the path's encodings."""
        x = cpe(x, hw)
        x = x + self.drop_path(self.factoratt_crpe(self.norm1(x), hw, crpe))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PathEncoder(nn.Module):
    """The transformer of one path; its blocks share the two position encodings.

    Args:
        dim: channels C.
        mlp_ratio: see `MPViTBlock`.
        drop_path_rates: one per block.
        checkpointing: recompute the blocks in the backward pass instead of keeping activations.

    The encodings are registered here only; released files hold them under the blocks' names too
    (`mimdet.checkpoint.convert.mpvit`).
    """

    def __init__(
        self, dim: int, mlp_ratio: float, drop_path_rates: Sequence[float], checkpointing: bool
    ):
        super().__init__()
        self.checkpointing = checkpointing
        self.cpe = ConvPosEnc(dim)
        self.crpe = ConvRelPosEnc(dim)
        self.MHCA_layers = nn.ModuleList(
            MPViTBlock(dim, mlp_ratio, rate) for rate in drop_path_rates
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        hw, tokens = x.shape[-2:], map_to_tokens(x)
        for block in self.MHCA_layers:
            block = partial(block, hw=hw, cpe=self.cpe, crpe=self.crpe)
            tokens = run(block, tokens, self.checkpointing)
        return tokens_to_map(tokens, hw)


class ConvBlock(nn.Module):
    """Inverted residual without expansion: the local features beside the paths' global ones.

    Args:
        channels: channels C of input and output.
        norm: normalisation, as `detectron2.layers.get_norm` takes it.
    """

    def __init__(self, channels: int, norm: str):
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, norm)
        self.dwconv = _depthwise(channels, 3, bias=False)
        self.norm = get_norm(norm, channels)
        self.act = nn.Hardswish()
        self.conv2 = ConvNorm(channels, channels, norm, act=False)
        _init_conv(self.dwconv, groups=channels)  # see `_init_conv` for why only here

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.conv2(self.act(self.norm(self.dwconv(self.conv1(x)))))


class MultiPathStage(nn.Module):
    """Transformers and one convolution block side by side, and their aggregation.

    Args:
        dim: channels C of the paths.
        out_dim: channels of the output.
        num_path: number of paths.
        mlp_ratio: see `MPViTBlock`.
        drop_path_rates: one per block; the same for every path.
        norm: normalisation, as `detectron2.layers.get_norm` takes it.
        checkpointing: see `PathEncoder`.

    Reference:
        Lee et al. 2022, arXiv 2112.11010, section 3.3.
    """

    def __init__(
        self,
        dim: int,
        out_dim: int,
        num_path: int,
        mlp_ratio: float,
        drop_path_rates: Sequence[float],
        norm: str,
        checkpointing: bool,
    ):
        super().__init__()
        self.mhca_blks = nn.ModuleList(
            PathEncoder(dim, mlp_ratio, drop_path_rates, checkpointing) for _ in range(num_path)
        )
        self.InvRes = ConvBlock(dim, norm)
        self.aggregate = ConvNorm((num_path + 1) * dim, out_dim, norm)

    def forward(self, embedded: Sequence[Tensor]) -> Tensor:
        """`num_path` maps (B, C, H, W) -> (B, out_dim, H, W)."""
        paths = [encoder(x) for encoder, x in zip(self.mhca_blks, embedded, strict=True)]
        # In this order: the weights of released files belong to channels.
        return self.aggregate(torch.cat([self.InvRes(embedded[0]), *paths], dim=1))


class MPViT(nn.Module):
    """The network: a stem of stride 4 and a multi-path stage at each of the strides 4, 8, 16, ...

    Args:
        embed_dims: channels of each stage; its output has those of the next stage, the last one's
            its own.
        num_layers: transformer blocks of each path of a stage.
        num_path: paths of each stage.
        mlp_ratios: hidden width of the MLPs of a stage as a multiple of its channels.
        norm: normalisation of the convolutions, as `detectron2.layers.get_norm` takes it.
        drop_path_rate: of the last block; it grows linearly from 0 at the first.
        checkpointing: recompute the transformer blocks in the backward pass.

    Raises:
        ValueError: if the arguments are not of one length, a width does not fit the heads, or
            there is no norm.

    Reference:
        Lee et al. 2022, arXiv 2112.11010, section 3 and table 1.
    """

    def __init__(
        self,
        embed_dims: Sequence[int],
        num_layers: Sequence[int],
        num_path: Sequence[int],
        mlp_ratios: Sequence[float],
        norm: str = "SyncBN",
        drop_path_rate: float = 0.0,
        checkpointing: bool = False,
    ):
        super().__init__()
        lengths = [len(x) for x in (embed_dims, num_layers, num_path, mlp_ratios)]
        if len(set(lengths)) > 1:
            raise ValueError(
                "embed_dims, num_layers, num_path and mlp_ratios must have one number per stage, "
                f"got {lengths[0]}, {lengths[1]}, {lengths[2]} and {lengths[3]} numbers "
                "(model.backbone.bottom_up)"
            )
        if not norm:
            raise ValueError(
                f"norm must name a normalisation, as the convolutions have no bias, got {norm!r} "
                "(model.backbone.bottom_up.norm)"
            )
        # A stage's aggregation already makes the channels that the next stage wants.
        self.out_dims = (*embed_dims[1:], embed_dims[-1])
        self.stem = nn.Sequential(
            ConvNorm(3, embed_dims[0] // 2, norm, kernel_size=3, stride=2),
            ConvNorm(embed_dims[0] // 2, embed_dims[0], norm, kernel_size=3, stride=2),
        )
        self.patch_embed_stages = nn.ModuleList(
            PatchEmbedStage(dim, paths, norm, stride=1 if i == 0 else 2)
            for i, (dim, paths) in enumerate(zip(embed_dims, num_path, strict=True))
        )
        # One rate per depth: the blocks of all paths that lie side by side have the same.
        rates = drop_path_rates(drop_path_rate, sum(num_layers))
        ends = accumulate(num_layers, initial=0)
        self.mhca_stages = nn.ModuleList(
            MultiPathStage(dim, out_dim, paths, ratio, rates[start:end], norm, checkpointing)
            for dim, out_dim, paths, ratio, (start, end) in zip(
                embed_dims, self.out_dims, num_path, mlp_ratios, pairwise(ends), strict=True
            )
        )
        self.apply(init_linear)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> the outputs of the stages, channels-last: strides 4, 8, 16, ..."""
        # The one copy: convolutions keep the layout, and between maps and tokens there are views.
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        outputs = []
        for embed, stage in zip(self.patch_embed_stages, self.mhca_stages, strict=True):
            x = stage(embed(x))
            outputs.append(x)
        return outputs


class MPViTBackbone(Backbone):
    """A published size of MPViT with outputs stage2 (stride 4), stage3 (8), stage4 (16), stage5.

    Args:
        name: "mpvit_tiny", "mpvit_xsmall", "mpvit_small" or "mpvit_base".
        out_features: the outputs wanted.
        norm: normalisation of the convolutions, as `detectron2.layers.get_norm` takes it.
        drop_path: drop-path rate of the last block; it grows linearly from 0 at the first.
        mlp_ratios: hidden width of the MLPs of each stage as a multiple of its channels; None
            for the size's own (`SIZES`). The published table of detectors has a T with 4 instead
            of the 2 of the released T.
        checkpointing: recompute the transformer blocks in the backward pass.

    Raises:
        ValueError: if there is no such size or no such output.
    """

    def __init__(
        self,
        name: str,
        out_features: Sequence[str] = ("stage2", "stage3", "stage4", "stage5"),
        norm: str = "SyncBN",
        drop_path: float = 0.0,
        mlp_ratios: Sequence[float] | None = None,
        checkpointing: bool = False,
    ):
        super().__init__()
        if name not in SIZES:
            raise ValueError(
                f"there is no MPViT of the size {name!r} (model.backbone.bottom_up.name); "
                f"the known ones are {', '.join(SIZES)}"
            )
        size = SIZES[name]
        if mlp_ratios is not None:
            size = size._replace(mlp_ratios=mlp_ratios)
        self.backbone = MPViT(
            **size._asdict(), norm=norm, drop_path_rate=drop_path, checkpointing=checkpointing
        )
        stages = [f"stage{i + 2}" for i in range(len(size.embed_dims))]
        if unknown := sorted(set(out_features) - set(stages)):
            raise ValueError(
                f"out_features must be among {stages}, got {unknown} "
                "(model.backbone.bottom_up.out_features)"
            )
        self._stages = stages
        self._out_features = list(out_features)
        self._out_feature_channels = dict(zip(stages, self.backbone.out_dims, strict=True))
        self._out_feature_strides = {stage: 4 * 2**i for i, stage in enumerate(stages)}

    @property
    def size_divisibility(self) -> int:
        """Sides of a padded batch are multiples of this, in pixels."""
        return max(self._out_feature_strides.values())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> name in `out_features` -> (B, C, H / stride, W / stride)."""
        outputs = dict(zip(self._stages, self.backbone(images), strict=True))
        return {name: outputs[name] for name in self._out_features}


def _depthwise(channels: int, kernel_size: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(
        channels, channels, kernel_size, stride, kernel_size // 2, groups=channels, bias=bias
    )


def _init_conv(conv: nn.Conv2d, groups: int = 1) -> None:
    """Normal, variance 2 * groups / (window * output channels).

    The release divides by the groups of a depthwise convolution in the convolution block and not in
    the patch embeddings.
    """
    fan_out = math.prod(conv.kernel_size) * conv.out_channels
    nn.init.normal_(conv.weight, std=(2 * groups / fan_out) ** 0.5)
