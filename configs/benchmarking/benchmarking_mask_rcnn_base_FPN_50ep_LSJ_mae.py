"""Plain ViT-B with windows and four adaptors, LSJ 1024, 50 epochs.

Li et al. 2021, arXiv 2111.11429, as released with MIMDet.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/benchmarking/benchmarking_mask_rcnn_base_FPN_50ep_LSJ_mae.py \
        mae_checkpoint.path=MAE_VIT_BASE.pth

Published (not reproduced here): 50.2 box AP, 44.9 mask AP on COCO val2017, 118.67M parameters.
Counted here: 118,674,184 parameters.
"""

from ..common.schedules import coco_cosine
from .benchmarking_mask_rcnn_base_FPN_100ep_LSJ_mae import (
    dataloader,
    mae_checkpoint,
    model,
    optimizer,
    train,
)

train.max_iter, lr_multiplier = coco_cosine(epochs=50)
train.output_dir = "output/benchmarking_mask_rcnn_base_FPN_50ep_LSJ_mae"
