"""ViTDet's backbone: a plain ViT in windows, and a pyramid made from its last map.

Li et al. 2022, arXiv 2203.16527.
"""

from functools import partial

from torch import nn

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from mimdet.checkpoint.start import StartingWeights
from mimdet.modeling.backbone.vitdet import SimpleFeaturePyramid


def vit_base(vit, **arguments):
    """A ViT of size B for `vit_pyramid`; `arguments` are further ones of the class `vit`."""
    defaults = dict(
        img_size="${..square_pad}",
        patch_size=16,
        embed_dim=768,
        depth=12,
        num_heads=12,
        mlp_ratio=4.0,
        qkv_bias=True,
        drop_path_rate=0.1,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        window_block_indexes=[0, 1, 3, 4, 6, 7, 9, 10],  # 2, 5, 8 and 11 see the whole image
        # Convolutions after these blocks; with all blocks in windows, the paper's alternative to
        # global attention.
        residual_block_indexes=[],
        residual_block_type="bottleneck",
        use_act_checkpoint="auto",  # by the memory of the device; released: False
    )
    return L(vit)(**{**defaults, **arguments})


def vit_pyramid(net, **arguments):
    """The pyramid on `net`, which pads images to 1024 x 1024 pixels."""
    return L(SimpleFeaturePyramid)(
        net=net,
        in_feature="last_feat",
        out_channels=256,
        scale_factors=[4.0, 2.0, 1.0, 0.5],
        top_block=L(LastLevelMaxPool)(),
        norm="LN",
        square_pad=1024,
        **arguments,
    )


def mae_start(*new):
    """What the ViT takes from a MAE file; `new` are patterns of further names that MAE lacks."""
    return [
        L(StartingWeights)(
            path="${mae_checkpoint.path}",
            to="backbone.net",
            allow_missing=["*.attn.rel_pos_[hw]", "*.residual.*", *new],
        )
    ]
