"""RetinaNet with MPViT-XS, 36 epochs of multi-scale training.

Lee et al. 2022, arXiv 2112.11010.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/mpvit/retinanet_mpvit_xs_ms_3x.py train.init_checkpoint=MPVIT_XSMALL.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth train.allow_missing=[]

Published (not reproduced here): 46.1 box AP on COCO val2017, 20M parameters, 211 GFLOPs.

Counted here: 19,911,060 parameters.
"""

from .retinanet_mpvit_tiny_ms_3x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.name = "mpvit_xsmall"
model.backbone.top_block.in_channels = 256
train.output_dir = "output/retinanet_mpvit_xs_ms_3x"
