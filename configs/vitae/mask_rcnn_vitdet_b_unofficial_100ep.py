"""The unofficial ViTDet-B: MAE ViT-B, LSJ 1024, 100 epochs; the base of the configs of this folder.

Li et al. 2022, arXiv 2203.16527, as released by the authors of ViTAE. Train from an MAE file,
encoder-only or whole:

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/vitae/mask_rcnn_vitdet_b_unofficial_100ep.py mae_checkpoint.path=MAE_VIT_BASE.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=CONVERTED.pth

Published (not reproduced here): 51.1 box AP, 45.5 mask AP on COCO val2017, batch 64 on 32 GPUs;
45.4 mask AP from MAE weights that were trained on GPUs instead of TPUs.

Counted here: 118,563,824 parameters. The weights of the release convert: README.md.
"""

from detectron2.config import LazyCall as L
from mimdet.modeling.backbone.vitae import NormedViT
from mimdet.modeling.normed_heads import NormedRPNHead, layer_norm_1e5
from mimdet.solver.param_groups import get_fpn_model_parameters

from ..common.schedules import multistep
from ..vitdet.mask_rcnn_vitdet_b_100ep import dataloader, mae_checkpoint, model, optimizer, train

model.backbone.update(keep_channels=True, norm_eps=1e-5)
model.backbone.net.update(
    _target_=NormedViT,  # normalises its last map
    pretrain_img_size="${.img_size}",
    pretrain_use_cls_token=False,
)
# The heads' norms have mmcv's eps, and the RPN head is normalised too.
model.proposal_generator.head.update(_target_=NormedRPNHead, norm=layer_norm_1e5)
model.roi_heads.box_head.conv_norm = layer_norm_1e5
model.roi_heads.mask_head.conv_norm = layer_norm_1e5

# No 1-D parameter is decayed, those of the pyramid's and the heads' norms included.
optimizer.params = L(get_fpn_model_parameters)(
    base_lr="${..lr}",
    weight_decay="${..weight_decay}",
    skip_list=["pos_embed", "rel_pos_h", "rel_pos_w"],
    multiplier=1.0,  # one speed, but for the decay towards the first layers
    lr_factor_func=optimizer.params.lr_factor_func,
)

_epoch = 7330  # four passes over 117,266 images at batch 64
train.max_iter = 25 * _epoch
lr_multiplier = multistep(
    train.max_iter,
    milestones=[22 * _epoch, 24 * _epoch],
    warmup_iters=250,
    warmup_factor=0.067,
)
train.eval_period = _epoch
train.checkpointer.period = _epoch
train.amp.enabled = False
train.ddp.fp16_compression = False
train.output_dir = "output/mask_rcnn_vitdet_b_unofficial_100ep"
