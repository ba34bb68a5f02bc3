"""FastMIM pretraining of ViT-B at 128x128 on ImageNet-1k, 800 epochs; the base of FastMIM configs.

Guo et al. 2022, arXiv 2212.06593. HOG features of masked blocks of 16 pixels:

    python lazyconfig_train_net.py --num-gpus 8 --config-file configs/pretrain/fastmim_vit_base.py \
        dataloader.train.dataset.source=datasets/imagenet

Published (not reproduced here): 83.8 top-1 of a classifier after fine-tuning.
Counted here: 86,712,175 parameters.
"""

from detectron2.config import LazyCall as L
from mimdet.layers.block import mae_layer_norm
from mimdet.pretraining.fastmim import FastMIM
from mimdet.pretraining.mae import ViTEncoder
from mimdet.pretraining.targets import HOGTarget

from ..common.schedules import imagenet_cosine
from .mae_vit_base import dataloader, optimizer, train

model = L(FastMIM)(
    encoder=L(ViTEncoder)(
        img_size="${..img_size}",
        patch_size=16,
        embed_dim=768,
        depth=12,
        num_heads=6,  # as released; its classifier takes the same weights as 12 heads
    ),
    target=L(HOGTarget)(cell_size=8, bins=9, normalize=True),
    img_size=128,
    block_size=16,
    mask_ratio=0.75,
    decoder_embed_dim=256,
    decoder_depth=1,
    norm_layer=mae_layer_norm,
)

train.max_iter, lr_multiplier = imagenet_cosine(epochs=800, batch_size=4096, warmup_epochs=20)
train.checkpointer.period = train.max_iter // 8  # 100 epochs
train.output_dir = "output/fastmim_vit_base"
