"""Mask R-CNN with a ViTDet-B backbone on LVIS v1, 100 epochs.

Li et al. 2022, arXiv 2203.16527; data Gupta et al. 2019, arXiv 1908.03195.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/vitdet/lvis_mask_rcnn_vitdet_b_100ep.py \
        mae_checkpoint.path=MAE_VIT_BASE.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pkl

Published (not reproduced here): 40.2 box AP, 38.2 mask AP on LVIS v1 val.
Counted here: 116,939,778 parameters.
"""

from ..common.data.lvis import use_lvis, use_lvis_classes
from ..common.schedules import multistep
from .mask_rcnn_vitdet_b_100ep import dataloader, mae_checkpoint, model, optimizer, train

use_lvis(dataloader)
use_lvis_classes(model.roi_heads)

optimizer.lr = 2e-4

train.max_iter = 156250  # 100k images * 100 epochs / 64
lr_multiplier = multistep(
    train.max_iter, milestones=[138889, 150463], warmup_iters=250, warmup_factor=0.001
)
train.eval_period = 30000
train.output_dir = "output/lvis_mask_rcnn_vitdet_b_100ep"
