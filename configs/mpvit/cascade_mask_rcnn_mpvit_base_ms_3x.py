"""Cascade Mask R-CNN with MPViT-B, 36 epochs of multi-scale training.

Lee et al. 2022, arXiv 2112.11010.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/mpvit/cascade_mask_rcnn_mpvit_base_ms_3x.py train.init_checkpoint=MPVIT_BASE.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth train.allow_missing=[]

Counted here: 122,309,262 parameters.
"""

from .cascade_mask_rcnn_mpvit_small_ms_3x import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.backbone.bottom_up.name = "mpvit_base"
model.backbone.bottom_up.drop_path = 0.5
train.output_dir = "output/cascade_mask_rcnn_mpvit_base_ms_3x"
