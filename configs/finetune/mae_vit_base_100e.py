"""ViT-B fine-tuned on ImageNet-1k after MAE, 100 epochs.

He et al. 2021, arXiv 2111.06377.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/finetune/mae_vit_base_100e.py \
        imagenet.root=IMAGENET mae_checkpoint.path=MAE_VIT_BASE.pth

Published (not reproduced here): 83.664 top-1. Counted here: 86,567,656 parameters.
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

optimizer.lr.base_lr = 5e-4  # for 256 images: 2e-3 for 1024
optimizer.params.lr_factor_func.lr_decay_rate = 0.65
lr_multiplier.scheduler.end_value = 1e-6 / 2e-3
train.output_dir = "output/mae_vit_base_100e"
