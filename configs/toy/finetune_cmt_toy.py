"""A tiny CMT that tells four shapes apart: classification at toy size, minutes on two CPU cores.

Guo et al. 2021 (CMT), arXiv 2107.06263, with the recipe of FastMIM's fine-tuning and a light
augmentation. Pictures are generated; `imagenet.root` takes a folder with train/ and val/, and in
each a folder per class, as well (then set `model.network.num_classes`).

    python lazyconfig_train_net.py --config-file configs/toy/finetune_cmt_toy.py
    python lazyconfig_train_net.py --config-file configs/toy/finetune_cmt_toy.py --eval-only \
        train.init_checkpoint=output/finetune_cmt_toy/model_final.pth
"""

from ..common.schedules import cosine
from ..finetune.fastmim_cmt_small_100e import (
    dataloader,
    imagenet,
    mae_checkpoint,
    model,
    optimizer,
    train,
)

imagenet.root = "synthetic:1000"

model.network.update(img_size=64, num_classes=4, drop_rate=0.0, drop_path_rate=0.0)
model.network.update(stem_channels=16, embed_dims=[16, 32, 64, 64], head_channels=128)
model.network.update(depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 4])
model.head_std = 0.02

_train = dataloader.train
_train.mapper.transform.update(input_size=64, scale=(0.6, 1.0), auto_augment=None, re_prob=0.0)
_train.collate_fn = None  # shapes of one class on top of another's do not help here
_train.update(total_batch_size=32, num_workers=0)
dataloader.test.mapper.transform.crop_pct = 1.0
dataloader.test.num_workers = 0

# All weights start at random, so all learn at one speed.
optimizer.lr = 3e-3
optimizer.params.lr_factor_func = None

train.max_iter = 600
lr_multiplier = cosine(train.max_iter, warmup_iters=30, rescale_interval=True)
train.eval_period = 200
train.checkpointer.period = 200
train.amp.enabled = False
train.seed = 0
train.output_dir = "output/finetune_cmt_toy"
