"""ViT-H with patches of 14 pixels fine-tuned on ImageNet-1k after MAE, 50 epochs.

He et al. 2021, arXiv 2111.06377.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/finetune/mae_vit_huge_50e.py \
        imagenet.root=IMAGENET mae_checkpoint.path=MAE_VIT_HUGE.pth

Published (not reproduced here): 86.928 top-1. Counted here: 632,045,800 parameters.
"""

from .mae_vit_large_50e import (
    dataloader,
    imagenet,
    lr_multiplier,
    mae_checkpoint,
    model,
    optimizer,
    train,
)

model.network.update(model_name="vit_huge_patch14_224", drop_path_rate=0.3)
optimizer.params.lr_factor_func.depths = [32]
train.output_dir = "output/mae_vit_huge_50e"
