"""Cascade Mask R-CNN with a ViTDet-L backbone on LVIS v1, 100 epochs.

Li et al. 2022, arXiv 2203.16527; Cai and Vasconcelos 2017, arXiv 1712.00726.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/vitdet/lvis_cascade_mask_rcnn_vitdet_l_100ep.py \
        mae_checkpoint.path=MAE_VIT_LARGE.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pkl

Published (not reproduced here): 49.2 box AP, 44.5 mask AP on LVIS v1 val.
Counted here: 364,691,690 parameters.
"""

from .lvis_cascade_mask_rcnn_vitdet_b_100ep import model
from .lvis_mask_rcnn_vitdet_l_100ep import (
    dataloader,
    lr_multiplier,
    mae_checkpoint,
    optimizer,
    train,
)
from .lvis_mask_rcnn_vitdet_l_100ep import model as _mask_rcnn

model.backbone = _mask_rcnn.backbone
train.output_dir = "output/lvis_cascade_mask_rcnn_vitdet_l_100ep"
