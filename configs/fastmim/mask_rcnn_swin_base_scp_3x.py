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
from mimdet.checkpoint.start import StartingWeights
from mimdet.modeling.backbone.swin import PaddedSwin
from mimdet.modeling.backbone.timm_backbone import TimmBackbone
from mimdet.modeling.meta_arch import GeneralizedRCNN
from mimdet.solver.param_groups import get_named_decay_parameters

from ..common.data.coco import dataloader
from ..common.data.copy_paste import use_copy_paste
from ..common.models.rcnn import fpn, mask_rcnn_heads, pixels, rpn
from ..common.optim import AdamW as optimizer
from ..common.schedules import multistep
from ..common.train import train

# A classifier or a pretraining file with a Swin-B: ours, FastMIM's or timm's.
mae_checkpoint = dict(path=None)

model = L(GeneralizedRCNN)(
    backbone=fpn(
        bottom_up=L(TimmBackbone)(
            model=L(PaddedSwin)(
                embed_dim=128,
                depths=[2, 2, 18, 2],
                num_heads=[4, 8, 16, 32],
                window_size=7,
                drop_path_rate=0.2,
            ),
            norm="fresh",
            checkpointing="auto",  # released: True
        ),
        norm="SyncBN",
    ),
    proposal_generator=rpn(conv_dims=[-1, -1]),
    roi_heads=mask_rcnn_heads(convolutional=True, conv_norm="SyncBN"),
    paste_masks=False,  # evaluators encode them as they leave the head
    **pixels(),
)

use_copy_paste(dataloader, size=1024)
dataloader.train.total_batch_size = 32  # 4 on each of 8 GPUs
dataloader.test.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=1024, max_size=1666)
]

optimizer.lr = 6e-5
optimizer.weight_decay = 0.05
# Biases and the norms of FPN and heads are decayed: so it is in the released recipe.
optimizer.params = L(get_named_decay_parameters)(
    weight_decay="${..weight_decay}",
    no_decay=["backbone.bottom_up.*norm*", "*.relative_position_bias_table"],
)

train.starting_weights = [
    L(StartingWeights)(path="${mae_checkpoint.path}", to="backbone.bottom_up.model")
]

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
train.amp.update(enabled=True, dtype="float16")
train.output_dir = "output/mask_rcnn_swin_base_scp_3x"
