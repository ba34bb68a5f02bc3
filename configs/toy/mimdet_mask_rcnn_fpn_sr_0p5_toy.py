"""MIMDet at toy size on the toy dataset, 50 % of the tokens in training: minutes on two CPU cores.

Fang et al. 2022, arXiv 2204.02964, with every width and depth cut down and no pretraining.

    python tools/make_toy_dataset.py output/toy
    python lazyconfig_train_net.py --config-file configs/toy/mimdet_mask_rcnn_fpn_sr_0p5_toy.py
    python lazyconfig_train_net.py --config-file configs/toy/mimdet_mask_rcnn_fpn_sr_0p5_toy.py \
        --eval-only train.init_checkpoint=output/mimdet_mask_rcnn_fpn_sr_0p5_toy/model_final.pth \
        model.backbone.bottom_up.sample_ratio=1.0
"""

from ..common.data.toy import dataloader, toy
from ..common.models.toy_heads import shrink_heads
from ..common.schedules import multistep
from ..mimdet.mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x import (
    mae_checkpoint,
    model,
    optimizer,
    train,
)

_backbone = model.backbone.bottom_up
_backbone.encoder.update(img_size=128, embed_dim=128, depth=4, num_heads=4, dpr=0.0)
_backbone.encoder.checkpointing = False
_backbone.decoder.update(decoder_embed_dim=64, depth=2, num_heads=4, checkpointing=False)
_backbone.decoder.fill = "conv"
_backbone.sample_seed = 0

model.backbone.update(out_channels=64, norm="GN")
shrink_heads(model)

# All weights start at random, so all learn at one speed.
optimizer.lr = 1e-3
optimizer.params.multiplier = 1.0

train.max_iter = 700
lr_multiplier = multistep(train.max_iter, milestones=[550, 650], warmup_iters=50)
train.eval_period = train.max_iter
train.checkpointer.period = 100
train.amp.enabled = False
train.ddp.fp16_compression = False
train.seed = 0
train.output_dir = "output/mimdet_mask_rcnn_fpn_sr_0p5_toy"
