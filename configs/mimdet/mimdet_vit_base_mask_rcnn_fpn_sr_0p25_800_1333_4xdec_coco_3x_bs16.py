"""MIMDet-B, 25 % of the tokens in training, mask-token fill, batch 16.

Fang et al. 2022, arXiv 2204.02964.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/mimdet/mimdet_vit_base_mask_rcnn_fpn_sr_0p25_800_1333_4xdec_coco_3x_bs16.py \
        mae_checkpoint.path=MAE_VIT_BASE_FULL.pth

Published (not reproduced here): 49.9 box AP, 44.6 mask AP on COCO val2017 at ratio 1.0 after about
2 days 6 hours on 8 GPUs, 127.56M parameters. Counted here: 127,561,552 parameters.
"""

from ..common.schedules import multistep
from .mimdet_vit_base_mask_rcnn_fpn_sr_0p25_800_1333_4xdec_coco_3x import (
    dataloader,
    mae_checkpoint,
    model,
    optimizer,
    train,
)

dataloader.train.total_batch_size = 16
optimizer.lr = 4e-5

_epoch = 120000 // 16  # 7500 iterations: 120k images at batch 16
train.max_iter = 36 * _epoch
lr_multiplier = multistep(
    train.max_iter, milestones=[27 * _epoch, 33 * _epoch], warmup_iters=_epoch / 4
)
train.eval_period = _epoch
train.checkpointer.period = _epoch
train.output_dir = "output/mimdet_vit_base_mask_rcnn_fpn_sr_0p25_800_1333_4xdec_coco_3x_bs16"
