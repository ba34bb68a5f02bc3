"""RetinaNet with MPViT-T, 36 epochs of multi-scale training.

Lee et al. 2022, arXiv 2112.11010.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/mpvit/retinanet_mpvit_tiny_ms_3x.py train.init_checkpoint=MPVIT_TINY.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth train.allow_missing=[]

Published (not reproduced here): 44.4 box AP on COCO val2017, 17M parameters, 196 GFLOPs. That count
is of a T with MLP ratio 4; the released T has 2, as here.

Counted here: 15,104,612 parameters.
"""

from ..common.data.detr import use_detr_scales
from ..common.schedules import coco_3x
from .retinanet_mpvit_tiny_1x import dataloader, model, optimizer, train

use_detr_scales(dataloader)

train.max_iter, lr_multiplier = coco_3x(warmup_factor=0.01)
train.output_dir = "output/retinanet_mpvit_tiny_ms_3x"
