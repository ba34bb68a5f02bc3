"""MAE pretraining of ViT-H on ImageNet-1k, 800 epochs.

He et al. 2021, arXiv 2111.06377:

    python lazyconfig_train_net.py --num-gpus 8 --config-file configs/pretrain/mae_vit_huge.py \
        dataloader.train.dataset.source=datasets/imagenet train.accumulation_steps=16

MIMDet has patches of 16 pixels and cannot start from this file; classifiers can.

Published (not reproduced here): 86.93 top-1 of a classifier after 1600 epochs and fine-tuning.
Counted here: 657,074,508 parameters.
"""

from .mae_vit_base import dataloader, lr_multiplier, model, optimizer, train

model.update(patch_size=14, embed_dim=1280, depth=32, num_heads=16)
train.output_dir = "output/mae_vit_huge"
