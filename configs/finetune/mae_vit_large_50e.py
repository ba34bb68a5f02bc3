"""ViT-L fine-tuned on ImageNet-1k after MAE, 50 epochs.

He et al. 2021, arXiv 2111.06377.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/finetune/mae_vit_large_50e.py \
        imagenet.root=IMAGENET mae_checkpoint.path=MAE_VIT_LARGE.pth

Published (not reproduced here): 85.952 top-1. Counted here: 304,326,632 parameters.
"""

from ..common.schedules import imagenet_cosine
from .fastmim_vit_base_100e import dataloader, imagenet, mae_checkpoint, model, optimizer, train

model.network.update(model_name="vit_large_patch16_224", drop_path_rate=0.2)

optimizer.lr.base_lr = 1e-3  # for 256 images: 4e-3 for 1024
optimizer.params.lr_factor_func.update(lr_decay_rate=0.75, depths=[24])
train.max_iter, lr_multiplier = imagenet_cosine(
    epochs=50, batch_size=1024, warmup_epochs=5, end_value=1e-6 / 4e-3
)
train.output_dir = "output/mae_vit_large_50e"
