"""Mask R-CNN with MPViT-B, 12 epochs.

Lee et al. 2022, arXiv 2112.11010.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/mpvit/mask_rcnn_mpvit_base_1x.py train.init_checkpoint=MPVIT_BASE.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth train.allow_missing=[]

Published (not reproduced here): 48.2 box AP, 43.5 mask AP on COCO val2017, 95M parameters, 503
GFLOPs.

Counted here: 94,667,552 parameters.
"""

from .mask_rcnn_mpvit_tiny_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.name = "mpvit_base"
model.backbone.bottom_up.drop_path = 0.4
train.output_dir = "output/mask_rcnn_mpvit_base_1x"
