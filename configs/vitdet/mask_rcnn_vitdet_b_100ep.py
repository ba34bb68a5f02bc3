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

from detectron2.config import LazyCall as L
from mimdet.modeling.backbone.vitdet import ViT
from mimdet.modeling.meta_arch import GeneralizedRCNN
from mimdet.solver.layer_decay import get_vit_lr_decay_rate

from ..common.data.coco import dataloader
from ..common.data.lsj import use_lsj
from ..common.models.rcnn import mask_rcnn_heads, pixels, rpn
from ..common.models.vit_pyramid import mae_start, vit_base, vit_pyramid
from ..common.optim import AdamW as optimizer
from ..common.schedules import multistep
from ..common.train import train

# A MAE checkpoint; the encoder-only kind is enough.
mae_checkpoint = dict(path=None)

model = L(GeneralizedRCNN)(
    backbone=vit_pyramid(vit_base(ViT)),
    proposal_generator=rpn(conv_dims=[-1, -1]),
    roi_heads=mask_rcnn_heads(convolutional=True, conv_norm="LN"),
    paste_masks=False,  # evaluators encode them as they leave the head
    **pixels(),
)

use_lsj(dataloader, size=1024)
dataloader.train.total_batch_size = 64

# The layers of the heads' and the pyramid's norm "LN" are decayed, as in the released recipe.
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=0.7, num_layers=12)
optimizer.params.overrides = dict(pos_embed=dict(weight_decay=0.0))

train.starting_weights = mae_start()
train.max_iter = 184375  # 118k images * 100 epochs / 64
lr_multiplier = multistep(
    train.max_iter, milestones=[163889, 177546], warmup_iters=250, warmup_factor=0.001
)
train.amp.update(enabled=True, dtype="float16")
train.ddp.fp16_compression = True
train.output_dir = "output/mask_rcnn_vitdet_b_100ep"
