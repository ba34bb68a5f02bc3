"""Mask R-CNN with MPViT-T on the toy dataset: minutes on two CPU cores.

Lee et al. 2022, arXiv 2112.11010. The backbone has its full width and depth and no pretraining; the
heads are cut down.

    python tools/make_toy_dataset.py output/toy
    python lazyconfig_train_net.py --config-file configs/toy/mask_rcnn_mpvit_tiny_toy.py
    python lazyconfig_train_net.py --config-file configs/toy/mask_rcnn_mpvit_tiny_toy.py \
        --eval-only train.init_checkpoint=output/mask_rcnn_mpvit_tiny_toy/model_final.pth
"""

from ..common.data.toy import dataloader, toy
from ..common.models.toy_heads import shrink_heads
from ..common.schedules import multistep
from ..mpvit.mask_rcnn_mpvit_tiny_1x import model, optimizer, train

model.backbone.update(out_channels=64, norm="GN")
model.backbone.bottom_up.update(drop_path=0.0, checkpointing=False)
shrink_heads(model)

# All weights start at random.
optimizer.lr = 1e-3
train.allow_missing = []

train.max_iter = 250
lr_multiplier = multistep(train.max_iter, milestones=[190, 230], warmup_iters=25)
train.eval_period = train.max_iter
train.checkpointer.period = 100
train.seed = 0
train.output_dir = "output/mask_rcnn_mpvit_tiny_toy"
