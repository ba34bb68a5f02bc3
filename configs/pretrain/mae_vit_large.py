"""MAE pretraining of ViT-L on ImageNet-1k, 800 epochs.

He et al. 2021, arXiv 2111.06377:

    python lazyconfig_train_net.py --num-gpus 8 --config-file configs/pretrain/mae_vit_large.py \
        dataloader.train.dataset.source=datasets/imagenet train.accumulation_steps=8

Published (not reproduced here): 85.95 top-1 of a classifier after 1600 epochs and fine-tuning.
Counted here: 329,541,888 parameters.
"""

from .mae_vit_base import dataloader, lr_multiplier, model, optimizer, train

model.update(embed_dim=1024, depth=24, num_heads=16)
train.output_dir = "output/mae_vit_large"
