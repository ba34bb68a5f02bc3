"""Swin-B fine-tuned on ImageNet-1k after FastMIM, 100 epochs.

Guo et al. 2022, arXiv 2212.06593; Liu et al. 2021 (Swin), arXiv 2103.14030. Windows grow from 4 to
7 tokens, so the tables of relative positions are resized, on a geometric grid.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/finetune/fastmim_swin_base_100e.py \
        imagenet.root=IMAGENET mae_checkpoint.path=FASTMIM_SWIN_BASE.pth

Published (not reproduced here): 84.1 top-1. Counted here: 87,768,224 parameters.
"""

from .fastmim_vit_base_100e import (
    dataloader,
    imagenet,
    lr_multiplier,
    mae_checkpoint,
    model,
    optimizer,
    train,
)

model.network.model_name = "swin_base_patch4_window7_224"

optimizer.lr.base_lr = 1e-3  # for 256 images: 4e-3 for 1024
optimizer.params.lr_factor_func.update(lr_decay_rate=0.80, depths=[2, 2, 18, 2])
lr_multiplier.scheduler.end_value = 1e-6 / 4e-3
train.starting_weights[0].tables = "geometric"
train.output_dir = "output/fastmim_swin_base_100e"
