"""Cascade Mask R-CNN with MPViT-S, 36 epochs of multi-scale training.

Lee et al. 2022, arXiv 2112.11010.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/mpvit/cascade_mask_rcnn_mpvit_small_ms_3x.py train.init_checkpoint=MPVIT_SMALL.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth train.allow_missing=[]

Counted here: 70,385,894 parameters.
"""

from ..common.models.cascade_mask_rcnn_fpn import model
from .mask_rcnn_mpvit_small_ms_3x import dataloader, lr_multiplier, optimizer, train
from .mask_rcnn_mpvit_small_ms_3x import model as _mask_rcnn

model.backbone = _mask_rcnn.backbone
model.proposal_generator.post_nms_topk = (2000, 1000)
train.output_dir = "output/cascade_mask_rcnn_mpvit_small_ms_3x"
