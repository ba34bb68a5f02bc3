"""RetinaNet with MPViT-T, 12 epochs.

Lee et al. 2022, arXiv 2112.11010.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/mpvit/retinanet_mpvit_tiny_1x.py train.init_checkpoint=MPVIT_TINY.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth train.allow_missing=[]

Published (not reproduced here): 41.8 box AP on COCO val2017, 17M parameters, 196 GFLOPs. That count
is of a T with MLP ratio 4; the released T has 2, as here.

Counted here: 15,104,612 parameters.
"""

from ..common.models.retinanet_fpn import retinanet
from .mask_rcnn_mpvit_tiny_1x import dataloader, lr_multiplier, model, optimizer, train

_bottom_up = model.backbone.bottom_up
_bottom_up.out_features = ["stage3", "stage4", "stage5"]
model = retinanet(_bottom_up, in_features="${.bottom_up.out_features}", in_channels=216)

dataloader.train.mapper.use_instance_mask = False
train.allow_missing = ["backbone.fpn_*", "backbone.top_block.*", "head.*"]
train.output_dir = "output/retinanet_mpvit_tiny_1x"
