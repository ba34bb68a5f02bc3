"""A plain ViT as the backbone of a feature pyramid: four adaptors lead to strides 4, 8, 16, 32.

Shape letters: B batch, L tokens of the map, n windows of l tokens (L = n * l), C channels,
N heads, D channels of a head, h w the token map.

Reference:
    Li et al. 2021, "Benchmarking Detection Transfer Learning with Vision Transformers",
    arXiv 2111.11429.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from timm.layers import PatchEmbed, lecun_normal_, trunc_normal_tf_
from torch import Tensor, nn

from detectron2.modeling import Backbone
from detectron2.structures import ImageList
from mimdet.layers.attention import BiasedAttention
from mimdet.layers.block import BiasedBlock, drop_path_rates, mae_layer_norm, run
from mimdet.layers.layout import tokens_to_map
from mimdet.layers.pos_embed import get_2d_sincos_pos_embed
from mimdet.layers.rel_pos import RelativePositionBias
from mimdet.layers.window import window_partition, window_unpartition

_GROUPS = 4  # of blocks; an output is taken after each


class BenchmarkingViTDet(Backbone):
    """Plain ViT whose blocks attend within windows, but for the last of each quarter.

    After each quarter of the blocks an adaptor makes an output: ``s0`` of stride 4 from the first,
    ``s1`` of stride 8, ``s2`` of stride 16, and ``s3`` of stride 32 from the last. All have
    `embed_dim` channels. There is no class token and no norm at the end.

    Arguments not explained here are those of every plain ViT, see `mimdet.layers.block`.

    Args:
        img_size: (height, width) of the images in pixels, or the side of square ones. Images of
            another size are refused.
        patch_size: side of a token in pixels; 16 for the strides above. A power of two from 4 on.
        embed_dim: channels C of a token; a multiple of 32.
        depth: number of blocks, a multiple of 4.
        drop_path_rate: of the last block. A block that attends within windows drops each window of
            an image by itself.
        window_size: side of a window in tokens; it must divide both sides of the token map.
        with_cp: `checkpointing`.
        stop_grad_conv1: freeze the projection of the patches.
        sincos_pos_embed: start from the sine-cosine table of the whole map and leave the table of
            the file aside, as the released models do. Without it, and with a MAE file, the start is
            MAE's table resized to the map, which the authors later found better by about 0.6 box
            and 0.4 mask AP.
        zero_pos_embed: start from a table of zeros and leave that of the file aside.
        init_std: standard deviation of the initial linear weights and of a learned table.
        init_values: see `BiasedBlock`; 0.1 for BEiT-B.
        beit_qkv_bias: see `BiasedAttention`; True for BEiT.
        freeze_pos_embed: keep the position table fixed. The released models train it.
        sincos_order: "row_first" has the code of the row in the first half of the channels, as
            the released models have it; "column_first" is MAE's order.

    Raises:
        ValueError: if sizes do not fit each other, or `sincos_order` is unknown.

    Reference:
        Li et al. 2021, arXiv 2111.11429, sections 2 and A, as released with MIMDet (Fang et al.
        2022, arXiv 2204.02964), whose parameter names these are.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = mae_layer_norm,
        *,
        window_size: int,
        with_cp: bool = False,
        stop_grad_conv1: bool = False,
        sincos_pos_embed: bool = False,
        zero_pos_embed: bool = False,
        init_std: float = 0.02,
        init_values: float | None = None,
        beit_qkv_bias: bool = False,
        freeze_pos_embed: bool = False,
        sincos_order: str = "row_first",
    ):
        super().__init__()
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.grid_size = tuple(side // patch_size for side in self.img_size)
        self._check_sizes(patch_size, window_size, depth)
        self.window_size = window_size
        self.checkpointing = with_cp

        self.patch_embed = PatchEmbed(self.img_size, patch_size, in_chans, embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, math.prod(self.grid_size), embed_dim))
        self.blocks = nn.ModuleList(
            BiasedBlock(
                embed_dim,
                BiasedAttention(embed_dim, num_heads, qkv_bias, beit_qkv_bias),
                init_values,
                mlp_ratio=mlp_ratio,
                drop_path=drop_path,
                norm_layer=norm_layer,
            )
            for drop_path in drop_path_rates(drop_path_rate, depth)
        )
        self.windowed_rel_pos_bias = RelativePositionBias((window_size, window_size), num_heads)
        self.global_rel_pos_bias = RelativePositionBias(self.grid_size, num_heads)
        self.ms_adaptor = nn.ModuleList(
            [
                nn.Sequential(
                    _upsample(embed_dim),
                    nn.GroupNorm(32, embed_dim),
                    nn.GELU(),
                    _upsample(embed_dim),
                ),
                _upsample(embed_dim),
                nn.Identity(),
                nn.MaxPool2d(kernel_size=2, stride=2),
            ]
        )
        self._init_weights(init_std)
        if sincos_pos_embed:
            self._fill_sincos(sincos_order)
        elif zero_pos_embed:
            nn.init.zeros_(self.pos_embed)
        self.pos_embed.requires_grad = not freeze_pos_embed
        self.patch_embed.requires_grad_(not stop_grad_conv1)

        strides = (patch_size // 4, patch_size // 2, patch_size, patch_size * 2)
        self._out_features = [f"s{i}" for i in range(_GROUPS)]
        self._out_feature_channels = dict.fromkeys(self._out_features, embed_dim)
        self._out_feature_strides = dict(zip(self._out_features, strides, strict=True))

    def _check_sizes(self, patch_size: int, window_size: int, depth: int) -> None:
        key = "model.backbone.bottom_up"
        if patch_size < 4 or patch_size.bit_count() != 1:
            raise ValueError(
                "patch_size must be a power of two and at least 4, as the outputs have strides "
                f"from a quarter to twice of it, got {patch_size} ({key}.patch_size)"
            )
        if any(side % patch_size for side in self.img_size):
            raise ValueError(
                f"img_size must be a multiple of patch_size, got {self.img_size} and {patch_size} "
                f"({key}.img_size)"
            )
        if any(side % window_size for side in self.grid_size):
            raise ValueError(
                f"window_size must divide the token map, got {window_size} for a map of "
                f"{self.grid_size} tokens ({key}.window_size, {key}.img_size)"
            )
        if depth % _GROUPS:
            raise ValueError(
                f"depth must be a multiple of {_GROUPS}, the number of outputs, got {depth} "
                f"({key}.depth)"
            )

    def _init_weights(self, std: float) -> None:
        trunc_normal_tf_(self.pos_embed, std=std, a=-1, b=1)  # cut at one deviation
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_tf_(module.weight, std=std, a=-1, b=1)
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                lecun_normal_(module.weight)
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # BEiT's rescaling: the deeper a block, the less it adds to the residual at the start.
        with torch.no_grad():
            for layer, block in enumerate(self.blocks, start=1):
                for linear in (block.attn.proj, block.mlp.fc2):
                    linear.weight.div_(math.sqrt(2 * layer))

    @torch.no_grad()
    def _fill_sincos(self, order: str) -> None:
        if order not in ("row_first", "column_first"):
            raise ValueError(
                f"sincos_order must be 'row_first' or 'column_first', got {order!r} "
                "(model.backbone.bottom_up.sincos_order)"
            )
        table = get_2d_sincos_pos_embed(self.pos_embed.shape[2], self.grid_size)
        if order == "row_first":
            table = table.roll(table.shape[1] // 2, dims=1)  # swaps the halves
        self.pos_embed.copy_(table[None])

    def forward(self, images: Tensor | ImageList) -> dict[str, Tensor]:
        """Compute the four feature maps of a batch.

        Args:
            images: (B, in_chans, *img_size) normalised pixels, or an ImageList of them.

        Returns:
            s0 (B, C, H/4, W/4), s1 (B, C, H/8, W/8), s2 (B, C, H/16, W/16), s3 (B, C, H/32, W/32).

        Raises:
            ValueError: if the images have another size than `img_size`.
        """
        x = images.tensor if isinstance(images, ImageList) else images
        if tuple(x.shape[-2:]) != self.img_size:
            raise ValueError(
                f"BenchmarkingViTDet needs images of {self.img_size} pixels (height, width), got "
                f"{tuple(x.shape[-2:])}; pad them in the mapper by FixedSizeCrop, or change "
                "model.backbone.bottom_up.img_size"
            )
        x = self.patch_embed(x)  # (B, L, C)
        x = x + self.pos_embed
        windowed_bias, global_bias = self.windowed_rel_pos_bias(), self.global_rel_pos_bias()
        features, per_group = {}, len(self.blocks) // _GROUPS
        for i, name in enumerate(self._out_features):
            *windowed, last = self.blocks[i * per_group : (i + 1) * per_group]
            # Windows stay the batch through whole blocks, not for attention alone: drop path then
            # draws once for each window, as the released models were trained.
            x = self._windows(x)
            for block in windowed:
                x = run(partial(block, bias=windowed_bias), x, self.checkpointing)
            x = run(partial(last, bias=global_bias), self._map(x), self.checkpointing)
            features[name] = self.ms_adaptor[i](tokens_to_map(x, self.grid_size))
        return features

    def _windows(self, x: Tensor) -> Tensor:
        """Tokens of the map (B, L, C) -> those of its windows (B * n, l, C)."""
        windows, _ = window_partition(x.unflatten(1, self.grid_size), self.window_size)
        return windows.flatten(1, 2)

    def _map(self, windows: Tensor) -> Tensor:
        """The inverse of `_windows`."""
        windows = windows.unflatten(1, (self.window_size, self.window_size))
        # Nothing is padded, as the constructor has checked: both sizes are the map's.
        return window_unpartition(windows, self.grid_size, self.grid_size).flatten(1, 2)


def own_tables(sincos_pos_embed: bool = False, zero_pos_embed: bool = False) -> list[str]:
    """Names of a `BenchmarkingViTDet` that starting weights leave alone (`StartingWeights.leave`).

    Args:
        sincos_pos_embed: that of the model.
        zero_pos_embed: that of the model.
    """
    return ["pos_embed"] if sincos_pos_embed or zero_pos_embed else []


def _upsample(channels: int) -> nn.ConvTranspose2d:
    """A transposed convolution that doubles both sides of a map."""
    return nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
