"""FastMIM pretraining of Swin-B at 128x128 on ImageNet-1k, 400 epochs.

Guo et al. 2022, arXiv 2212.06593; Liu et al. 2021 (Swin), arXiv 2103.14030. HOG features of masked
blocks of 32 pixels:

    python lazyconfig_train_net.py --num-gpus 8 \
        --config-file configs/pretrain/fastmim_swin_base.py \
        dataloader.train.dataset.source=datasets/imagenet

Published (not reproduced here): 84.1 top-1 of a classifier after fine-tuning.
Counted here: 90,231,083 parameters.
"""

from timm import create_model
from torch import nn

from detectron2.config import LazyCall as L
from mimdet.modeling.backbone.timm_backbone import TimmBackbone

from ..common.schedules import imagenet_cosine
from .fastmim_vit_base import dataloader, model, optimizer, train

model.encoder = L(TimmBackbone)(
    model=L(create_model)(
        model_name="swin_base_patch4_window7_224",
        img_size="${...img_size}",
        window_size=4,  # at 128 pixels the stages have 32, 16, 8 and 4 cells along a side
        drop_path_rate=0.0,
        num_classes=0,
    ),
    out_features=["c5"],
    norm="final",
)
model.update(block_size=32, decoder_depth=4)
model.norm_layer = nn.LayerNorm

dataloader.train.total_batch_size = 2048
train.max_iter, lr_multiplier = imagenet_cosine(epochs=400, batch_size=2048, warmup_epochs=10)
train.checkpointer.period = train.max_iter // 8  # 50 epochs
train.output_dir = "output/fastmim_swin_base"
