"""Cascade Mask R-CNN with a ViTDet-H backbone on LVIS v1, 100 epochs.

Li et al. 2022, arXiv 2203.16527; Cai and Vasconcelos 2017, arXiv 1712.00726.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/vitdet/lvis_cascade_mask_rcnn_vitdet_h_100ep.py \
        mae_checkpoint.path=MAE_VIT_HUGE_14TO16.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pkl

Published (not reproduced here): 51.5 box AP, 46.6 mask AP on LVIS v1 val.
Counted here: 695,210,794 parameters.
"""

from ..common.data.lvis import use_lvis_classes
from ..common.models.rcnn import cascade_mask_rcnn_heads
from .lvis_mask_rcnn_vitdet_h_100ep import (
    dataloader,
    lr_multiplier,
    mae_checkpoint,
    model,
    optimizer,
    train,
)

model.roi_heads = cascade_mask_rcnn_heads(convolutional=True, conv_norm="LN")
use_lvis_classes(model.roi_heads)
train.output_dir = "output/lvis_cascade_mask_rcnn_vitdet_h_100ep"
