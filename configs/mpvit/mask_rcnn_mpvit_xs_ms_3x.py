"""Mask R-CNN with MPViT-XS, 36 epochs of multi-scale training.

Lee et al. 2022, arXiv 2112.11010.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/mpvit/mask_rcnn_mpvit_xs_ms_3x.py train.init_checkpoint=MPVIT_XSMALL.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth train.allow_missing=[]

Published (not reproduced here): 46.6 box AP, 42.3 mask AP on COCO val2017, 30M parameters, 231
GFLOPs.

Counted here: 30,434,704 parameters.
"""

from .mask_rcnn_mpvit_tiny_ms_3x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.name = "mpvit_xsmall"
train.output_dir = "output/mask_rcnn_mpvit_xs_ms_3x"
