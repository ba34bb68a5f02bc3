"""Mask R-CNN with a tiny Swin and copy-paste on the toy dataset: minutes on two CPU cores.

Liu et al. 2021 (Swin), arXiv 2103.14030; Ghiasi et al. 2020 (copy-paste), arXiv 2012.07177; with
every width and depth cut down and no pretraining.

    python tools/make_toy_dataset.py output/toy
    python lazyconfig_train_net.py --config-file configs/toy/mask_rcnn_swin_scp_toy.py
"""

from ..common.data.copy_paste import use_copy_paste
from ..common.data.toy import dataloader, toy
from ..common.models.toy_heads import shrink_heads
from ..common.schedules import multistep
from ..fastmim.mask_rcnn_swin_base_scp_3x import mae_checkpoint, model, optimizer, train

model.backbone.bottom_up.model.update(
    embed_dim=24, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8], window_size=4, drop_path_rate=0.0
)
model.backbone.bottom_up.checkpointing = False
model.backbone.update(out_channels=64, norm="GN")
shrink_heads(model)

use_copy_paste(dataloader, size=128, min_scale=0.5)

# All weights start at random.
optimizer.lr = 1e-3

train.max_iter = 700
lr_multiplier = multistep(train.max_iter, milestones=[550, 650], warmup_iters=50)
train.eval_period = train.max_iter
train.checkpointer.period = 100
train.amp.enabled = False
train.seed = 0
train.output_dir = "output/mask_rcnn_swin_scp_toy"
