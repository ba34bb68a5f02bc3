"""The first release's name of the config imported here."""

from .mimdet_vit_base_mask_rcnn_fpn_sr_0p25_800_1333_4xdec_coco_3x import (
    dataloader,
    lr_multiplier,
    mae_checkpoint,
    model,
    optimizer,
    train,
)
