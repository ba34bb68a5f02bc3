"""Mask R-CNN with Swin-B from FastMIM and simple copy-paste, 36 epochs.

Guo et al. 2022 (FastMIM), arXiv 2212.06593; Liu et al. 2021 (Swin), arXiv 2103.14030; Ghiasi et
al. 2020 (copy-paste), arXiv 2012.07177. Start from a classifier (configs/finetune), as released,
or from a pretraining file:

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/fastmim/mask_rcnn_swin_base_scp_3x.py mae_checkpoint.path=SWIN_CLASSIFIER.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth

Published (not reproduced here): 52.0 box AP, 46.0 mask AP on COCO val2017.
Counted here: 109,046,696 parameters.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.modeling import GeneralizedRCNN
from mimdet.data.copy_paste import CopyPasteMapper, RandomPairs
from mimdet.modeling.backbone.swin import PaddedSwin
from mimdet.modeling.backbone.timm_backbone import TimmBackbone
from mimdet.solver.param_groups import get_named_decay_parameters

from ..common.data.coco import dataloader
from ..common.models.mask_rcnn_vit_fpn import model
from ..common.optim import AdamW as optimizer
from ..common.schedules import multistep
from ..common.train import train

# A classifier or a pretraining file with a Swin-B: ours, FastMIM's or timm's.
mae_checkpoint = dict(path=None)

model._target_ = GeneralizedRCNN  # this backbone takes images alone
model.pop("lsj_postprocess")
model.roi_heads.box_head.conv_norm = model.roi_heads.mask_head.conv_norm = "SyncBN"
model.backbone.bottom_up = L(TimmBackbone)(
    model=L(PaddedSwin)(
        embed_dim=128,
        depths=[2, 2, 18, 2],
        num_heads=[4, 8, 16, 32],
        window_size=7,
        drop_path_rate=0.2,
    ),
    norm="fresh",
    checkpointing=True,
    pretrained="${mae_checkpoint.path}",
)

# Large-scale jitter on a square padded by black, then objects of another such image on top.
_size = 1024
_mapper = dataloader.train.mapper
_mapper.augmentations = [
    L(T.RandomFlip)(horizontal=True),
    L(T.ResizeScale)(min_scale=0.1, max_scale=2.0, target_height=_size, target_width=_size),
    L(T.RandomCrop)(crop_type="absolute", crop_size=(_size, _size)),
    L(T.FixedSizeCrop)(crop_size=(_size, _size), pad_value=0.0),  # has only to pad
]
_mapper.instance_mask_format = "bitmask"
_mapper.recompute_boxes = True
dataloader.train.mapper = L(CopyPasteMapper)(mapper=_mapper)
dataloader.train.dataset = L(RandomPairs)(dataset=dataloader.train.dataset)
dataloader.train.total_batch_size = 32  # 4 on each of 8 GPUs
dataloader.test.mapper.image_format = "${...train.mapper.mapper.image_format}"
dataloader.test.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=_size, max_size=1666)
]

optimizer.lr = 6e-5
optimizer.weight_decay = 0.05
# Biases and the norms of FPN and heads are decayed: so it is in the released recipe.
optimizer.params = L(get_named_decay_parameters)(
    weight_decay="${..weight_decay}",
    no_decay=["backbone.bottom_up.*norm*", "*.relative_position_bias_table"],
)

_epoch = -(-117266 // 32)  # 3,665 iterations: 117,266 annotated images at batch 32
train.max_iter = 36 * _epoch
lr_multiplier = multistep(
    train.max_iter,
    milestones=[27 * _epoch, 33 * _epoch],
    warmup_iters=1000,
    warmup_factor=0.001,
)
train.eval_period = _epoch
train.checkpointer.period = _epoch
train.amp.enabled = True
train.output_dir = "output/mask_rcnn_swin_base_scp_3x"
