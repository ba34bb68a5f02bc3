"""Mask R-CNN with MPViT-S, 12 epochs.

Lee et al. 2022, arXiv 2112.11010.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/mpvit/mask_rcnn_mpvit_small_1x.py train.init_checkpoint=MPVIT_SMALL.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth train.allow_missing=[]

Published (not reproduced here): 46.4 box AP, 42.4 mask AP on COCO val2017, 43M parameters, 268
GFLOPs.

Counted here: 42,744,184 parameters.
"""

from .mask_rcnn_mpvit_tiny_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.name = "mpvit_small"
model.backbone.bottom_up.drop_path = 0.2
train.output_dir = "output/mask_rcnn_mpvit_small_1x"
