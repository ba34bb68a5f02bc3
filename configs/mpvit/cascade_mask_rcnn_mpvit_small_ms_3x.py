"""Cascade Mask R-CNN with MPViT-S, 36 epochs of multi-scale training.

Lee et al. 2022, arXiv 2112.11010.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/mpvit/cascade_mask_rcnn_mpvit_small_ms_3x.py train.init_checkpoint=MPVIT_SMALL.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth train.allow_missing=[]

Counted here: 70,385,894 parameters.
"""

from ..common.models.rcnn import cascade_mask_rcnn_heads
from .mask_rcnn_mpvit_small_ms_3x import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads = cascade_mask_rcnn_heads()
model.proposal_generator.post_nms_topk = (2000, 1000)
train.output_dir = "output/cascade_mask_rcnn_mpvit_small_ms_3x"
