"""ViTAE-S: tokens from reduction cells instead of patches, LSJ 1024, 100 epochs.

Xu et al. 2021, arXiv 2106.03348, in the frame of arXiv 2203.16527. It was pretrained by
supervised classification on ImageNet; README.md says how such weights can be brought in.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/vitae/mask_rcnn_vitae_s_100ep.py
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=CONVERTED.pth

Published (not reproduced here): 45.6 box AP, 40.1 mask AP on COCO val2017, batch 64 on 32 GPUs.

Counted here: 47,722,768 parameters, all trained but the 23,040 of two random projections.
"""

from functools import partial

from detectron2.config import LazyCall as L
from mimdet.modeling.backbone.vitae import ViTAE
from mimdet.solver.layer_decay import get_layer_lr_decay_rate, vitae_layer

from .mask_rcnn_vitdet_b_unofficial_100ep import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.backbone.net = L(ViTAE)(
    img_size="${..square_pad}",
    embed_dims=(64, 64, 192),
    token_dims=(96, 192),
    depth=14,
    num_heads=6,
    mlp_ratio=3.0,
    drop_path_rate=0.1,
    window_size=14,
    global_block_indexes=(2, 5, 8, 13),
    pcm_groups=96,
    pcm_norm="SyncBN",  # batch norm over all processes, as in the released run
    out_feature="last_feat",
    use_act_checkpoint="auto",  # by the memory of the device; released: False
)
# 3 reduction cells and 14 normal ones. The released config says 12, its run had 17.
optimizer.params.lr_factor_func = partial(
    get_layer_lr_decay_rate, layer_of=vitae_layer, lr_decay_rate=0.7, num_layers=17
)
train.starting_weights = []  # no MAE is published that has these stages
train.output_dir = "output/mask_rcnn_vitae_s_100ep"
