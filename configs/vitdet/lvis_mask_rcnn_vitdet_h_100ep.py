"""Mask R-CNN with a ViTDet-H backbone on LVIS v1, 100 epochs.

Li et al. 2022, arXiv 2203.16527.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/vitdet/lvis_mask_rcnn_vitdet_h_100ep.py \
        mae_checkpoint.path=MAE_VIT_HUGE_14TO16.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pkl

Published (not reproduced here): 49.1 box AP, 46.0 mask AP on LVIS v1 val.
Counted here: 667,247,746 parameters.
"""

from ..common.data.lvis import use_lvis_classes
from .lvis_mask_rcnn_vitdet_b_100ep import dataloader, lr_multiplier, train
from .mask_rcnn_vitdet_h_75ep import mae_checkpoint, model, optimizer

use_lvis_classes(model.roi_heads)
model.backbone.net.drop_path_rate = 0.4
train.output_dir = "output/lvis_mask_rcnn_vitdet_h_100ep"
