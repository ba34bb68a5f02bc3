"""A plain ViT with global attention throughout, as the backbone of semantic segmentation.

Shape letters: B batch, L tokens of the map, C channels, h w the token map.

Reference:
    Bao et al. 2021 (BEiT), arXiv 2106.08254, section 3.2 for segmentation; used by Guo et al. 2022
    (FastMIM), arXiv 2212.06593, for ViT-B.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn

from detectron2.layers import get_norm
from detectron2.modeling import Backbone
from mimdet.layers.attention import BiasedAttention, Positions, TableAttention
from mimdet.layers.block import BiasedBlock, drop_path_rates, mae_layer_norm, run
from mimdet.layers.init import init_linear
from mimdet.layers.layout import tokens_to_map
from mimdet.layers.pos_embed import PosEmbedCache, TablesOfOneGrid, interpolate_pos_embed
from mimdet.layers.rel_pos import joint_index_with_class

_OUTPUTS = 4


class BEiTViT(Backbone, TablesOfOneGrid):
    """Plain ViT with position tables of its own in every block, and maps of four strides.

    The patch tokens after four of the blocks become ``s0`` of stride 4 (from the first of them),
    ``s1`` of stride 8, ``s2`` of stride 16 and ``s3`` of stride 32, all with `embed_dim` channels.
    A class token takes part in attention and is left out of the maps; there is no norm at the end.
    Images of any size are taken: tables are resized to their token map.

    Arguments not explained here are those of every plain ViT, see `mimdet.layers.block`.

    Args:
        img_size: (height, width) of the images that the tables describe, in pixels, or the side of
            square ones. In training, images are padded to that square.
        patch_size: side of a token in pixels; 16 for the strides above. A multiple of 4.
        out_indices: the four blocks, counted from 0, after which a map is taken.
        use_abs_pos_emb: add a learned table of positions to the tokens.
        use_rel_pos_bias: give every block a table of relative positions.
        init_values: see `BiasedBlock`; None for no layer scale.
        norm: in the adaptor of ``s0``, see `detectron2.layers.get_norm`.

    Raises:
        ValueError: if sizes or indices do not fit each other.

    Reference:
        Parameter names are those of the released segmentation models.
    """

    tables_of_one_grid = ("pos_embed",)

    def __init__(
        self,
        img_size: int | tuple[int, int] = 512,
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
        checkpointing: bool = False,
        out_indices: Sequence[int] = (1, 3, 9, 11),
        use_abs_pos_emb: bool = True,
        use_rel_pos_bias: bool = True,
        init_values: float | None = 1.0,
        norm: str | Callable[[int], nn.Module] = "SyncBN",
    ):
        super().__init__()
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.patch_size = patch_size
        self.out_indices = list(out_indices)
        self.checkpointing = checkpointing
        self._check(depth)
        self.grid_size = tuple(side // patch_size for side in self.img_size)

        self.patch_embed = PatchEmbed(None, patch_size, in_chans, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = None
        if use_abs_pos_emb:
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + math.prod(self.grid_size), embed_dim))
            self._cache = PosEmbedCache(partial(_resized, grid_size=self.grid_size))
        self.use_rel_pos_bias = use_rel_pos_bias
        self.blocks = nn.ModuleList(
            BiasedBlock(
                embed_dim,
                TableAttention(embed_dim, num_heads, qkv_bias, self.grid_size)
                if use_rel_pos_bias
                else BiasedAttention(embed_dim, num_heads, qkv_bias, beit_qkv_bias=False),
                init_values,
                mlp_ratio=mlp_ratio,
                drop_path=drop_path,
                norm_layer=norm_layer,
            )
            for drop_path in drop_path_rates(drop_path_rate, depth)
        )
        self._make_adaptors(embed_dim, norm)
        self._init_weights()

        strides = (patch_size // 4, patch_size // 2, patch_size, patch_size * 2)
        self._out_features = [f"s{i}" for i in range(_OUTPUTS)]
        self._out_feature_channels = dict.fromkeys(self._out_features, embed_dim)
        self._out_feature_strides = dict(zip(self._out_features, strides, strict=True))

    def _check(self, depth: int) -> None:
        if self.patch_size % 4:
            raise ValueError(
                "patch_size must be a multiple of 4, as the finest map has a quarter of its "
                f"stride, got {self.patch_size} (model.backbone.patch_size)"
            )
        if any(side % self.patch_size for side in self.img_size):
            raise ValueError(
                f"img_size must be a multiple of patch_size, got {self.img_size} and "
                f"{self.patch_size} (model.backbone.img_size)"
            )
        indices = self.out_indices
        ascending = all(a < b for a, b in zip(indices, indices[1:], strict=False))
        if len(indices) != _OUTPUTS or not ascending or not 0 <= indices[0] <= indices[-1] < depth:
            raise ValueError(
                f"out_indices must be {_OUTPUTS} ascending indices of the {depth} blocks, from 0, "
                f"got {indices} (model.backbone.out_indices)"
            )

    def _make_adaptors(self, dim: int, norm: str | Callable[[int], nn.Module]) -> None:
        def upsample() -> nn.ConvTranspose2d:
            return nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2)

        # fpn1 and fpn2 are names of released files; the places in fpn1 are, too
        self.fpn1 = nn.Sequential(upsample(), get_norm(norm, dim), nn.GELU(), upsample())
        self.fpn2 = nn.Sequential(upsample())
        self.fpn3 = nn.Identity()
        self.fpn4 = nn.MaxPool2d(kernel_size=2, stride=2)

    def _init_weights(self) -> None:
        """Linear layers and tables of tokens; convolutions keep torch's own initial weights."""
        # Without BEiT's rescaling of deep blocks: the released code draws them anew after it.
        self.blocks.apply(init_linear)
        for table in (self.pos_embed, self.cls_token):
            if table is not None:
                nn.init.trunc_normal_(table, std=0.02)

    @property
    def size_divisibility(self) -> int:
        """The side of a token."""
        return self.patch_size

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Training images are padded to the square of the tables."""
        square = self.training and len(set(self.img_size)) == 1
        return {"square_size": self.img_size[0]} if square else {}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the four feature maps of a batch.

        Args:
            images: (B, in_chans, H, W) normalised pixels; H and W multiples of `patch_size`, and
                at least two tokens.

        Returns:
            s0 (B, C, H/4, W/4), s1 (B, C, H/8, W/8), s2 (B, C, H/16, W/16) and
            s3 (B, C, H//32, W//32): of an odd token map the last row or column is left out.

        Raises:
            ValueError: if the size of the images is not such.
        """
        size = tuple(images.shape[-2:])
        if any(side % self.patch_size or side < 2 * self.patch_size for side in size):
            raise ValueError(
                f"BEiTViT needs sides that are multiples of {self.patch_size} and at least "
                f"{2 * self.patch_size} pixels, got {size}; pad the images"
            )
        hw = tuple(side // self.patch_size for side in size)
        x = self.patch_embed(images)  # (B, L, C)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        if self.pos_embed is not None:
            x = x + self._cache.get(self.pos_embed, hw)
        # The index is the same for all blocks, and cheap beside one of them: made anew, not saved.
        positions = None
        if self.use_rel_pos_bias:
            positions = Positions(hw, joint_index_with_class(hw, x.device))

        adaptors = (self.fpn1, self.fpn2, self.fpn3, self.fpn4)
        features = {}
        for i, block in enumerate(self.blocks):
            x = run(partial(block, bias=positions), x, self.checkpointing)
            if i in self.out_indices:
                k = self.out_indices.index(i)
                features[self._out_features[k]] = adaptors[k](tokens_to_map(x[:, 1:], hw))
        return features


def _resized(pos_embed: Tensor, new_size: tuple[int, int], grid_size: tuple[int, int]) -> Tensor:
    return interpolate_pos_embed(pos_embed, new_size, orig_size=grid_size)
