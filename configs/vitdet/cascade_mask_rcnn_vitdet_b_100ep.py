"""Cascade Mask R-CNN with a ViTDet-B backbone, 100 epochs.

Li et al. 2022, arXiv 2203.16527; Cai and Vasconcelos 2017, arXiv 1712.00726.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/vitdet/cascade_mask_rcnn_vitdet_b_100ep.py \
        mae_checkpoint.path=MAE_VIT_BASE.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pkl

Published (not reproduced here): 54.0 box AP, 46.7 mask AP on COCO val2017.
Counted here: 141,160,990 parameters.
"""

from ..common.models.rcnn import cascade_mask_rcnn_heads
from .mask_rcnn_vitdet_b_100ep import (
    dataloader,
    lr_multiplier,
    mae_checkpoint,
    model,
    optimizer,
    train,
)

model.roi_heads = cascade_mask_rcnn_heads(convolutional=True, conv_norm="LN")
train.output_dir = "output/cascade_mask_rcnn_vitdet_b_100ep"
