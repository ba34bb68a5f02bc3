"""Mask R-CNN with a ViTDet-H backbone, 75 epochs.

Li et al. 2022, arXiv 2203.16527.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/vitdet/mask_rcnn_vitdet_h_75ep.py \
        mae_checkpoint.path=MAE_VIT_HUGE_14TO16.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pkl

Published (not reproduced here): 56.7 box AP, 50.2 mask AP on COCO val2017.
Counted here: 661,203,760 parameters.
"""

from functools import partial

from mimdet.solver.layer_decay import get_vit_lr_decay_rate

from ..common.schedules import multistep
from .mask_rcnn_vitdet_b_100ep import dataloader, mae_checkpoint, model, optimizer, train

model.backbone.net.update(embed_dim=1280, depth=32, num_heads=16, drop_path_rate=0.5)
# 7, 15, 23 and 31 see the whole image.
model.backbone.net.window_block_indexes = [i for i in range(32) if i % 8 != 7]

# Everything decays, also norms and positions, as in the released recipe.
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=0.9, num_layers=32)
optimizer.params.overrides = {}
optimizer.params.weight_decay_norm = None

# Three quarters of the others' 100 epochs.
train.max_iter = 184375 * 3 // 4
lr_multiplier = multistep(
    train.max_iter,
    milestones=[163889 * 3 // 4, 177546 * 3 // 4],
    warmup_iters=250 / 184375 * train.max_iter,
    warmup_factor=0.001,
)
train.output_dir = "output/mask_rcnn_vitdet_h_75ep"
