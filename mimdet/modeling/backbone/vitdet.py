"""ViTDet: a plain ViT with attention in windows, and a feature pyramid made from its last map.

Shape letters: B batch, C channels, H W pixels of the padded batch, h w tokens of the map.

Reference:
    Li et al. 2022, "Exploring Plain Vision Transformer Backbones for Object Detection",
    arXiv 2203.16527.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from fvcore.nn.weight_init import c2_msra_fill
from timm.layers import PatchEmbed
from torch import Tensor, nn

from detectron2.layers import Conv2d, get_norm
from detectron2.modeling import Backbone
from mimdet.layers.attention import RelPosAttention
from mimdet.layers.block import Block, drop_path_rates, run_all
from mimdet.layers.init import init_linear
from mimdet.layers.pos_embed import PosEmbedCache, interpolate_pos_embed

# kernels of the convolutions of each `residual_block_type`
_RESIDUAL_KERNELS = {"bottleneck": (1, 3, 1), "basic": (3, 3), "naive": (3,), "none": ()}


class ResidualConvBlock(nn.Module):
    """Convolutions around which the map is added, by which windows exchange information.

    The last norm starts at zero, so a pretrained ViT is unchanged at the start of training.

    Args:
        dim: channels C.
        block_type: "bottleneck": convolutions 1x1, 3x3, 1x1 with C / 2 channels between them;
            "basic": two of 3x3; "naive": one of 3x3.

    Reference:
        Li et al. 2022, arXiv 2203.16527, section 3. "bottleneck" equals the released code;
        "basic" and "naive", which were not released, are written from the paper's description.
    """

    def __init__(self, dim: int, block_type: str = "bottleneck"):
        super().__init__()
        kernels = _RESIDUAL_KERNELS[block_type]
        hidden = dim // 2 if block_type == "bottleneck" else dim
        widths = [dim, *[hidden] * (len(kernels) - 1), dim]
        for i, kernel in enumerate(kernels):
            conv = nn.Conv2d(widths[i], widths[i + 1], kernel, padding=kernel // 2, bias=False)
            c2_msra_fill(conv)
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"norm{i + 1}", get_norm("LN", widths[i + 1]))
            if i < len(kernels) - 1:
                self.add_module(f"act{i + 1}", nn.GELU())
        # `ViT` initialises its Linear layers alone afterwards, so the zero stays.
        nn.init.zeros_(self.get_submodule(f"norm{len(kernels)}").weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, h, w, C)."""
        out = x.permute(0, 3, 1, 2)
        # children() come in the order in which the constructor has added them.
        for layer in self.children():
            out = layer(out)
        return x + out.permute(0, 2, 3, 1)


class ViTBlock(Block):
    """A transformer block over a token map, after which convolutions may follow.

    Args:
        dim: channels C.
        num_heads: attention heads.
        attn: the attention over (B, h, w, C).
        residual: follows the block; None for nothing.
        **kwargs: those of `Block`.
    """

    def __init__(
        self, dim: int, num_heads: int, attn: nn.Module, residual: nn.Module | None, **kwargs
    ):
        super().__init__(dim, num_heads, attn=attn, **kwargs)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, h, w, C)."""
        x = super().forward(x)
        return x if self.residual is None else self.residual(x)


class ViT(Backbone):
    """Plain ViT with one output of stride `patch_size`: no class token, no norm at the end.

    Arguments not explained here are those of every plain ViT, see `mimdet.layers.block`.

    Args:
        img_size: side of the square image that the tables of relative positions describe.
        norm_layer: released models use LayerNorm with eps 1e-6.
        act_layer: makes the activation of the MLPs.
        use_abs_pos: add a table of absolute positions to the tokens.
        use_rel_pos: use decomposed relative positions in every attention.
        rel_pos_zero_init: start with zeros for those, else truncated normal.
        window_size: side of a window in tokens.
        window_block_indexes: blocks whose attention stays within windows.
        residual_block_indexes: blocks that are followed by convolutions.
        residual_block_type: which, see `ResidualConvBlock`; "none" for no such block.
        use_act_checkpoint: `checkpointing`.
        pretrain_img_size: side of the square image whose grid `pos_embed` has.
        pretrain_use_cls_token: `pos_embed` has a slot for a class token first, which is not used.
        out_feature: name of the output.
        block_layer: called with the arguments of `ViTBlock`; makes the blocks.
        attn_impl: see `RelPosAttention`.

    Raises:
        ValueError: if an index names no block, blocks have windows without a size, or
            `residual_block_type` is unknown.

    Reference:
        Li et al. 2022, arXiv 2203.16527, section 3. Names are Detectron2's. Unlike there, a
        patch that is not complete is padded instead of dropped.
    """

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        use_abs_pos: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        window_block_indexes: Sequence[int] = (),
        residual_block_indexes: Sequence[int] = (),
        use_act_checkpoint: bool = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_feature: str = "last_feat",
        *,
        residual_block_type: str = "bottleneck",
        block_layer: Callable[..., nn.Module] = ViTBlock,
        attn_impl: str = "auto",
    ):
        super().__init__()
        _check_blocks(depth, window_block_indexes, residual_block_indexes)
        if window_block_indexes and window_size < 1:
            raise ValueError(
                f"window_size must be positive where blocks have windows, got {window_size} with "
                f"window_block_indexes {list(window_block_indexes)}"
            )
        if residual_block_type not in _RESIDUAL_KERNELS:
            raise ValueError(
                f"residual_block_type must be one of {list(_RESIDUAL_KERNELS)}, "
                f"got {residual_block_type!r}"
            )
        self.checkpointing = use_act_checkpoint
        self._out_features = [out_feature]
        self._out_feature_channels = {out_feature: embed_dim}
        self._out_feature_strides = {out_feature: patch_size}

        self.pos_embed = None
        if use_abs_pos:
            num_slots = (pretrain_img_size // patch_size) ** 2 + pretrain_use_cls_token
            self.pos_embed = nn.Parameter(torch.empty(1, num_slots, embed_dim))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
            self._pos_embed_cache = PosEmbedCache(partial(_pos_embed_map, pretrain_use_cls_token))
        # Without a size, images of any are taken; patches that are not complete are padded.
        self.patch_embed = PatchEmbed(
            None, patch_size, in_chans, embed_dim, output_fmt="NHWC", dynamic_img_pad=True
        )
        blocks = []
        for i, drop_path in enumerate(drop_path_rates(drop_path_rate, depth)):
            attn = RelPosAttention(
                embed_dim,
                num_heads,
                qkv_bias,
                use_rel_pos=use_rel_pos,
                rel_pos_zero_init=rel_pos_zero_init,
                input_size=img_size // patch_size,
                window_size=window_size if i in window_block_indexes else 0,
                attn_impl=attn_impl,
            )
            has_residual = i in residual_block_indexes and residual_block_type != "none"
            block = block_layer(
                embed_dim,
                num_heads,
                attn,
                ResidualConvBlock(embed_dim, residual_block_type) if has_residual else None,
                mlp_ratio=mlp_ratio,
                drop_path=drop_path,
                norm_layer=norm_layer,
                act_layer=act_layer,
            )
            blocks.append(block)
        self.blocks = nn.ModuleList(blocks)
        self.blocks.apply(init_linear)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, in_chans, H, W) normalised images -> ``{out_feature: (B, C, h, w)}``."""
        x = self.patch_embed(x)  # (B, h, w, C)
        if self.pos_embed is not None:
            x = x + self._pos_embed_cache.get(self.pos_embed, tuple(x.shape[1:3]))
        x = run_all(self.blocks, x, self.checkpointing)
        return {self._out_features[0]: x.permute(0, 3, 1, 2)}


def _check_blocks(depth: int, windows: Sequence[int], residuals: Sequence[int]) -> None:
    for key, indexes in (("window_block_indexes", windows), ("residual_block_indexes", residuals)):
        wrong = [i for i in indexes if not 0 <= i < depth]
        if wrong:
            raise ValueError(f"{key} must be in 0..{depth - 1} for {depth} blocks, got {wrong}")


def _pos_embed_map(has_cls_token: bool, pos_embed: Tensor, hw: tuple[int, int]) -> Tensor:
    """The table as a map (1, h, w, C), resized if it has another grid."""
    extra = int(has_cls_token)
    return interpolate_pos_embed(pos_embed, hw, num_extra_tokens=extra)[:, extra:].unflatten(1, hw)


class SimpleFeaturePyramid(Backbone):
    """Feature pyramid made from one map alone, without lateral or top-down sums.

    Args:
        net: the backbone.
        in_feature: name of its map.
        out_channels: channels of every output.
        scale_factors: sizes of the outputs relative to that map, some of 4, 2, 1 and 0.5, each
            half the one before.
        top_block: makes coarser levels from the last, as in FPN; None for no more.
        norm: normalises every convolution, see `detectron2.layers.get_norm`; "" for none, and
            then the convolutions have a bias.
        square_pad: if positive, the side to which images are padded, in pixels. It is taken as it
            is, whether a multiple of the coarsest stride or not.
        keep_channels: deconvolutions keep the channels of the map instead of halving them, as
            the unofficial ViTDet and ViTAE detectors have it.
        norm_eps: eps of the norms of the convolutions; their own by default.

    Raises:
        ValueError: if `net` has no such map, a scale factor is another, they do not halve one after
            the other, the strides that they give are no powers of two, or there is `norm_eps`
            without a norm.

    Reference:
        Li et al. 2022, arXiv 2203.16527, section 3. Names are Detectron2's; without a square,
        images are padded to a multiple of the coarsest stride, which upstream means to do but does
        not.
    """

    def __init__(
        self,
        net: Backbone,
        in_feature: str,
        out_channels: int,
        scale_factors: Sequence[float],
        top_block: nn.Module | None = None,
        norm: str | Callable[[int], nn.Module] = "LN",
        square_pad: int = 0,
        *,
        keep_channels: bool = False,
        norm_eps: float | None = None,
    ):
        super().__init__()
        _check_scale_factors(scale_factors)
        if norm == "" and norm_eps is not None:
            raise ValueError(
                f"norm_eps is the eps of a norm, got {norm_eps} with norm '' (model.backbone)"
            )
        shapes = net.output_shape()
        if in_feature not in shapes:
            raise ValueError(
                f"in_feature must be an output of the net, one of {list(shapes)}, got "
                f"{in_feature!r} (model.backbone.in_feature, model.backbone.net.out_feature)"
            )
        shape = shapes[in_feature]
        if shape.stride.bit_count() != 1 or shape.stride < scale_factors[0]:
            raise ValueError(
                f"an output p{{k}} must have the stride 2^k, got {in_feature!r} of stride "
                f"{shape.stride} and scale_factors {list(scale_factors)}; use patches of a power "
                "of two (model.backbone.net.patch_size)"
            )
        strides = [int(shape.stride / scale) for scale in scale_factors]
        self._stages = [f"simfp_{int(math.log2(stride))}" for stride in strides]
        for name, scale in zip(self._stages, scale_factors, strict=True):
            layers, width = _rescaling_layers(scale, shape.channels, norm, keep_channels)
            layers += [
                _conv(width, out_channels, 1, norm, norm_eps),
                _conv(out_channels, out_channels, 3, norm, norm_eps),
            ]
            self.add_module(name, nn.Sequential(*layers))
        self.net = net
        self.in_feature = in_feature
        self.top_block = top_block
        num_levels = len(strides) + (0 if top_block is None else top_block.num_levels)
        self._out_features = [f"p{int(math.log2(strides[0])) + i}" for i in range(num_levels)]
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)
        self._out_feature_strides = {
            name: strides[0] * 2**i for i, name in enumerate(self._out_features)
        }
        self._size_divisibility = strides[-1]
        self._square_pad = square_pad

    @property
    def size_divisibility(self) -> int:
        """The coarsest stride without the top block's."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """How images are padded: to the square as it is, or else to a multiple of the stride."""
        if self._square_pad > 0:
            # 1 in place of the stride: else a square of 112 would grow to 128
            return {"square_size": self._square_pad, "size_divisibility": 1}
        return {"size_divisibility": self._size_divisibility}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> ``p{k}``: (B, out_channels, H / 2^k, W / 2^k), finest first."""
        features = self.net(x)
        outputs = [self.get_submodule(name)(features[self.in_feature]) for name in self._stages]
        # Not strict: the names of the top block's levels come behind.
        outputs = dict(zip(self._out_features, outputs, strict=False))
        if self.top_block is not None:
            name = self.top_block.in_feature
            top = self.top_block(features[name] if name in features else outputs[name])
            outputs.update(zip(self._out_features[len(outputs) :], top, strict=True))
        return outputs


def _check_scale_factors(scale_factors: Sequence[float]) -> None:
    known = [4.0, 2.0, 1.0, 0.5]
    first = known.index(scale_factors[0]) if scale_factors and scale_factors[0] in known else 0
    if not scale_factors or list(scale_factors) != known[first : first + len(scale_factors)]:
        raise ValueError(
            f"scale_factors must be neighbours in {known}, got {list(scale_factors)} "
            "(model.backbone.scale_factors)"
        )


def _rescaling_layers(
    scale: float, width: int, norm: str | Callable[[int], nn.Module], keep_channels: bool
) -> tuple[list[nn.Module], int]:
    """The layers that bring a map of `width` channels to `scale`, and the channels they give."""
    half, quarter = (width, width) if keep_channels else (width // 2, width // 4)
    if scale == 4.0:
        # Identity without a norm: the number of a layer is its name, the second deconvolution's 3.
        middle = [get_norm(norm, half) or nn.Identity(), nn.GELU()]
        return [_deconv(width, half), *middle, _deconv(half, quarter)], quarter
    if scale == 2.0:
        return [_deconv(width, half)], half
    return ([nn.MaxPool2d(kernel_size=2, stride=2)] if scale == 0.5 else []), width


def _deconv(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)


def _conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    norm: str | Callable[[int], nn.Module],
    eps: float | None,
) -> Conv2d:
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        padding=kernel_size // 2,
        bias=norm == "",
        norm=get_norm(norm, out_channels),
    )
    if eps is not None:
        conv.norm.eps = eps
    return conv
