"""MIMDet-B, 25 % of the tokens in training, mask-token fill.

Fang et al. 2022, arXiv 2204.02964.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/mimdet/mimdet_vit_base_mask_rcnn_fpn_sr_0p25_800_1333_4xdec_coco_3x.py \
        mae_checkpoint.path=MAE_VIT_BASE_FULL.pth

Published (not reproduced here): 49.9 box AP, 44.7 mask AP on COCO val2017 at ratio 1.0, 127.56M
parameters. Counted here: 127,561,552 parameters.
"""

from .mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x import (
    dataloader,
    lr_multiplier,
    mae_checkpoint,
    model,
    optimizer,
    train,
)

model.backbone.bottom_up.sample_ratio = 0.25
train.output_dir = "output/mimdet_vit_base_mask_rcnn_fpn_sr_0p25_800_1333_4xdec_coco_3x"
