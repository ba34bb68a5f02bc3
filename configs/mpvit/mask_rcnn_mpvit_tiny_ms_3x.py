"""Mask R-CNN with MPViT-T, 36 epochs of multi-scale training; the base of the long schedules.

Lee et al. 2022, arXiv 2112.11010.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/mpvit/mask_rcnn_mpvit_tiny_ms_3x.py train.init_checkpoint=MPVIT_TINY.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth train.allow_missing=[]

Published (not reproduced here): 44.8 box AP, 41.0 mask AP on COCO val2017, 28M parameters, 216
GFLOPs. That count is of a T with MLP ratio 4; the released T has 2, as here.

Counted here: 25,712,224 parameters.
"""

from ..common.data.detr import use_detr_scales
from ..common.schedules import coco_3x
from .mask_rcnn_mpvit_tiny_1x import dataloader, model, optimizer, train

use_detr_scales(dataloader)

train.max_iter, lr_multiplier = coco_3x(warmup_factor=0.01)
train.output_dir = "output/mask_rcnn_mpvit_tiny_ms_3x"
