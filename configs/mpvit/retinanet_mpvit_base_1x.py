"""RetinaNet with MPViT-B, 12 epochs.

Lee et al. 2022, arXiv 2112.11010.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/mpvit/retinanet_mpvit_base_1x.py train.init_checkpoint=MPVIT_BASE.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth train.allow_missing=[]

Published (not reproduced here): 47.0 box AP on COCO val2017, 85M parameters, 482 GFLOPs.

Counted here: 84,635,428 parameters.
"""

from .retinanet_mpvit_tiny_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.name = "mpvit_base"
model.backbone.bottom_up.drop_path = 0.4
model.backbone.top_block.in_channels = 480
train.output_dir = "output/retinanet_mpvit_base_1x"
