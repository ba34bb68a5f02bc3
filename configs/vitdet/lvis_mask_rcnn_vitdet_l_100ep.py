"""Mask R-CNN with a ViTDet-L backbone on LVIS v1, 100 epochs.

Li et al. 2022, arXiv 2203.16527.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/vitdet/lvis_mask_rcnn_vitdet_l_100ep.py \
        mae_checkpoint.path=MAE_VIT_LARGE.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pkl

Published (not reproduced here): 46.1 box AP, 43.6 mask AP on LVIS v1 val.
Counted here: 336,728,642 parameters.
"""

from ..common.data.lvis import use_lvis_classes
from .lvis_mask_rcnn_vitdet_b_100ep import dataloader, lr_multiplier, train
from .mask_rcnn_vitdet_l_100ep import mae_checkpoint, model, optimizer

use_lvis_classes(model.roi_heads)
optimizer.lr = 2e-4
train.output_dir = "output/lvis_mask_rcnn_vitdet_l_100ep"
