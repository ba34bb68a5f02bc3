"""MIMDet-L, 50 % of the tokens in training, holes filled from the convolution stem.

Fang et al. 2022, arXiv 2204.02964 (release v1.2).

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/mimdet/mimdet_vit_large_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x_convfill.py \
        mae_checkpoint.path=MAE_VIT_LARGE_FULL.pth

Published (not reproduced here): 54.3 box AP, 48.2 mask AP on COCO val2017 at ratio 1.0, 349.33M
parameters. Counted here: 349,332,080 parameters.
"""

from .mimdet_vit_large_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x import (
    dataloader,
    lr_multiplier,
    mae_checkpoint,
    model,
    optimizer,
    train,
)

model.backbone.bottom_up.encoder.img_size = 800
model.backbone.bottom_up.decoder.fill = "conv"
optimizer.params.multiplier = 3.5
train.output_dir = "output/mimdet_vit_large_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x_convfill"
