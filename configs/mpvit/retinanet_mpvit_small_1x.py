"""RetinaNet with MPViT-S, 12 epochs.

Lee et al. 2022, arXiv 2112.11010.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/mpvit/retinanet_mpvit_small_1x.py train.init_checkpoint=MPVIT_SMALL.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth train.allow_missing=[]

Published (not reproduced here): 45.7 box AP on COCO val2017, 32M parameters, 248 GFLOPs.

Counted here: 32,294,268 parameters.
"""

from .retinanet_mpvit_tiny_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.name = "mpvit_small"
model.backbone.bottom_up.drop_path = 0.2
model.backbone.top_block.in_channels = 288
train.output_dir = "output/retinanet_mpvit_small_1x"
