"""Mask R-CNN with a ViTDet-B backbone, LSJ 1024, 100 epochs; the base of these configs.

Li et al. 2022, arXiv 2203.16527.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/vitdet/mask_rcnn_vitdet_b_100ep.py \
        mae_checkpoint.path=MAE_VIT_BASE.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pkl

Published (not reproduced here): 51.6 box AP, 45.9 mask AP on COCO val2017.
Counted here: 110,895,792 parameters.
"""

from functools import partial

from torch import nn

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from mimdet.modeling.backbone.vitdet import SimpleFeaturePyramid, ViT
from mimdet.solver.layer_decay import get_vit_lr_decay_rate

from ..common.data.coco import dataloader
from ..common.data.lsj import use_lsj
from ..common.models.mask_rcnn_fpn import model
from ..common.optim import AdamW as optimizer
from ..common.schedules import multistep
from ..common.train import train

# A MAE checkpoint; the encoder-only kind is enough.
mae_checkpoint = dict(path=None)

model.backbone = L(SimpleFeaturePyramid)(
    net=L(ViT)(
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
        use_act_checkpoint=False,
        pretrained="${mae_checkpoint.path}",
    ),
    in_feature="last_feat",
    out_channels=256,
    scale_factors=[4.0, 2.0, 1.0, 0.5],
    top_block=L(LastLevelMaxPool)(),
    norm="LN",
    square_pad=1024,
)
model.proposal_generator.head.conv_dims = [-1, -1]
model.roi_heads.box_head.update(conv_dims=[256, 256, 256, 256], fc_dims=[1024], conv_norm="LN")
model.roi_heads.mask_head.conv_norm = "LN"

use_lsj(dataloader, size=1024)
dataloader.train.total_batch_size = 64

# The layers of the heads' and the pyramid's norm "LN" are decayed, as in the released recipe.
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=0.7, num_layers=12)
optimizer.params.overrides = dict(pos_embed=dict(weight_decay=0.0))

train.max_iter = 184375  # 118k images * 100 epochs / 64
lr_multiplier = multistep(
    train.max_iter, milestones=[163889, 177546], warmup_iters=250, warmup_factor=0.001
)
train.amp.enabled = True
train.ddp.fp16_compression = True
train.output_dir = "output/mask_rcnn_vitdet_b_100ep"
