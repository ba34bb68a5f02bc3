"""FastMIM pretraining of PVTv2-B2 at 128x128 on ImageNet-1k, with the settings of Swin-B.

Guo et al. 2022, arXiv 2212.06593; Wang et al. 2021 (PVTv2), arXiv 2106.13797. No settings are
published for this backbone:

    python lazyconfig_train_net.py --num-gpus 8 --config-file configs/pretrain/fastmim_pvtv2_b2.py \
        dataloader.train.dataset.source=datasets/imagenet

Published (not reproduced here): 82.5 top-1 of a classifier after 800 epochs and fine-tuning.
Counted here: 28,251,763 parameters.
"""

from timm import create_model

from detectron2.config import LazyCall as L

from .fastmim_swin_base import dataloader, lr_multiplier, model, optimizer, train

model.encoder.model = L(create_model)(model_name="pvt_v2_b2", num_classes=0)
train.output_dir = "output/fastmim_pvtv2_b2"
