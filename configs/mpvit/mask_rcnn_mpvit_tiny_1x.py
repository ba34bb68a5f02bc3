"""Mask R-CNN with MPViT-T, 12 epochs; the base of all MPViT configs.

Lee et al. 2022, arXiv 2112.11010. Train on 8 GPUs from ImageNet weights (see the README beside
this file), evaluate:

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/mpvit/mask_rcnn_mpvit_tiny_1x.py train.init_checkpoint=MPVIT_TINY.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth train.allow_missing=[]

Published (not reproduced here): 42.2 box AP, 39.0 mask AP on COCO val2017, 28M parameters, 216
GFLOPs. That count is of a T with MLP ratio 4; the released T has 2, as here.

Counted here: 25,712,224 parameters.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from mimdet.modeling.backbone.mpvit import MPViTBackbone

from ..common.data.coco import dataloader
from ..common.models.mask_rcnn_fpn import model
from ..common.optim import AdamW as optimizer
from ..common.schedules import coco_1x
from ..common.train import train

model.backbone.bottom_up = L(MPViTBackbone)(
    name="mpvit_tiny",
    out_features=["stage2", "stage3", "stage4", "stage5"],
    norm="SyncBN",
    drop_path=0.1,
    mlp_ratios=None,  # the size's own; [4, 4, 4, 4] for the T of the published table
    checkpointing="auto",  # by the memory of the device; released: False
)
model.backbone.in_features = "${.bottom_up.out_features}"

dataloader.train.dataset.filter_empty = False
dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333),
    L(T.RandomFlip)(horizontal=True),
]

optimizer.weight_decay = 0.05
# Everything is decayed, as in the release; 0.0 and 0.0 exempt norms and biases.
optimizer.params.weight_decay_norm = None
optimizer.params.weight_decay_bias = None

train.max_iter, lr_multiplier = coco_1x(warmup_factor=0.01)
train.clip_grad.max_norm = 1.0
train.eval_period = 10000
train.checkpointer.period = 10000
# What ImageNet weights lack.
train.allow_missing = ["backbone.fpn_*", "proposal_generator.*", "roi_heads.*"]
train.output_dir = "output/mask_rcnn_mpvit_tiny_1x"
