"""ViTAE-B, a plain ViT with convolutions beside its attention, LSJ 1024, 100 epochs.

Zhang et al. 2022, arXiv 2202.10108, in the frame of arXiv 2203.16527.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/vitae/mask_rcnn_vitae_b_100ep.py mae_checkpoint.path=MAE_VITAE_BASE.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=CONVERTED.pth

Published (not reproduced here): 51.6 box AP, 45.8 mask AP on COCO val2017, batch 64 on 32 GPUs,
121.33M parameters.

Counted here: 121,337,840 parameters, 3,072 more than in the release, which leaves the key biases
of the four global blocks out. They have no effect.
"""

from mimdet.modeling.backbone.vitae import PlainViTAE

from ..common.models.vit_pyramid import mae_start, vit_base
from .mask_rcnn_vitdet_b_unofficial_100ep import (
    dataloader,
    lr_multiplier,
    mae_checkpoint,
    model,
    optimizer,
    train,
)

model.backbone.net = vit_base(
    PlainViTAE,
    pretrain_img_size="${.img_size}",
    pretrain_use_cls_token=False,
    pcm_groups=192,
    pcm_norm="SyncBN",  # batch norm over all processes, as in the released run
    use_act_checkpoint="auto",  # released: True
)
train.starting_weights = mae_start("*.PCM.*")
train.output_dir = "output/mask_rcnn_vitae_b_100ep"
