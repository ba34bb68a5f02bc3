"""MIMDet-L, 50 % of the tokens in training, mask-token fill.

Fang et al. 2022, arXiv 2204.02964.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/mimdet/mimdet_vit_large_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x.py \
        mae_checkpoint.path=MAE_VIT_LARGE_FULL.pth

Published (not reproduced here): 53.3 box AP, 47.5 mask AP on COCO val2017 at ratio 1.0, 345.27M
parameters. Counted here: 345,268,848 parameters.
"""

from .mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x import (
    dataloader,
    lr_multiplier,
    mae_checkpoint,
    model,
    optimizer,
    train,
)

_encoder = model.backbone.bottom_up.encoder
_encoder.img_size = 224  # the released L keeps MAE's 14x14 position tables, B has 50x50
_encoder.embed_dim = 1024
_encoder.depth = 24
_encoder.num_heads = 16
_encoder.dpr = 0.4
train.output_dir = "output/mimdet_vit_large_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x"
