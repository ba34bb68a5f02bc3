"""ViTDet at toy size on the toy dataset: minutes on two CPU cores.

Li et al. 2022, arXiv 2203.16527, with every width and depth cut down and no pretraining.

    python tools/make_toy_dataset.py output/toy
    python lazyconfig_train_net.py --config-file configs/toy/vitdet_mask_rcnn_toy.py
"""

from ..common.data.lsj import use_lsj
from ..common.data.toy import dataloader, toy
from ..common.models.toy_heads import shrink_heads
from ..common.schedules import multistep
from ..vitdet.mask_rcnn_vitdet_b_100ep import mae_checkpoint, model, optimizer, train

# Windows of 4x4 of the 8x8 tokens, and all tokens, in turn; convolutions after the first block.
model.backbone.net.update(
    embed_dim=128,
    depth=4,
    num_heads=4,
    drop_path_rate=0.0,
    window_size=4,
    window_block_indexes=[0, 2],
    residual_block_indexes=[0],
    use_act_checkpoint=False,
)
model.backbone.update(out_channels=64, square_pad=128)
shrink_heads(model, norm="LN")

use_lsj(dataloader, size=128, min_scale=0.5)

# All weights start at random, so all learn at one speed.
optimizer.lr = 1e-3
optimizer.params.lr_factor_func = None

train.max_iter = 700
lr_multiplier = multistep(train.max_iter, milestones=[550, 650], warmup_iters=50)
train.eval_period = train.max_iter
train.checkpointer.period = 100
train.amp.enabled = False
train.ddp.fp16_compression = False
train.seed = 0
train.output_dir = "output/vitdet_mask_rcnn_toy"
