"""FastMIM pretraining of CMT-S at 128x128 on ImageNet-1k, with the settings of Swin-B.

Guo et al. 2022, arXiv 2212.06593; Guo et al. 2021 (CMT), arXiv 2107.06263. No settings are
published for this backbone:

    python lazyconfig_train_net.py --num-gpus 8 \
        --config-file configs/pretrain/fastmim_cmt_small.py \
        dataloader.train.dataset.source=datasets/imagenet

Published (not reproduced here): 83.9 top-1 of a classifier after 800 epochs and fine-tuning.
Counted here: 27,461,491 parameters.
"""

from detectron2.config import LazyCall as L
from mimdet.modeling.backbone.cmt import CMT

from .fastmim_swin_base import dataloader, lr_multiplier, model, optimizer, train

model.encoder = L(CMT)(img_size="${..img_size}", out_features=["c5"], final_norm=True)
train.output_dir = "output/fastmim_cmt_small"
