"""Mask R-CNN with a ViTDet-L backbone, 100 epochs.

Li et al. 2022, arXiv 2203.16527.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/vitdet/mask_rcnn_vitdet_l_100ep.py \
        mae_checkpoint.path=MAE_VIT_LARGE.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pkl

Published (not reproduced here): 55.5 box AP, 49.2 mask AP on COCO val2017.
Counted here: 330,684,656 parameters.
"""

from functools import partial

from mimdet.solver.layer_decay import get_vit_lr_decay_rate

from .mask_rcnn_vitdet_b_100ep import (
    dataloader,
    lr_multiplier,
    mae_checkpoint,
    model,
    optimizer,
    train,
)

model.backbone.net.update(embed_dim=1024, depth=24, num_heads=16, drop_path_rate=0.4)
# 5, 11, 17 and 23 see the whole image.
model.backbone.net.window_block_indexes = [i for i in range(24) if i % 6 != 5]
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=0.8, num_layers=24)
train.output_dir = "output/mask_rcnn_vitdet_l_100ep"
