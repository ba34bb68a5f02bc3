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

from functools import partial

from detectron2.config import LazyCall as L
from mimdet.modeling.backbone.vitae import NormedViT
from mimdet.modeling.meta_arch import GeneralizedRCNN
from mimdet.modeling.normed_heads import NormedRPNHead, layer_norm_1e5
from mimdet.solver.layer_decay import get_vit_lr_decay_rate
from mimdet.solver.param_groups import get_fpn_model_parameters

from ..common.data.coco import dataloader
from ..common.data.lsj import use_lsj
from ..common.models.rcnn import mask_rcnn_heads, pixels, rpn
from ..common.models.vit_pyramid import mae_start, vit_base, vit_pyramid
from ..common.optim import AdamW as optimizer
from ..common.schedules import multistep
from ..common.train import train

# A MAE checkpoint; the encoder-only kind is enough.
mae_checkpoint = dict(path=None)

# Against ViTDet: the ViT's last map is normalised, the deconvolutions keep their channels, norms
# of pyramid and heads have mmcv's eps, and the RPN head is normalised too.
model = L(GeneralizedRCNN)(
    backbone=vit_pyramid(
        vit_base(NormedViT, pretrain_img_size="${.img_size}", pretrain_use_cls_token=False),
        keep_channels=True,
        norm_eps=1e-5,
    ),
    proposal_generator=rpn(NormedRPNHead, conv_dims=[-1, -1], norm=layer_norm_1e5),
    roi_heads=mask_rcnn_heads(convolutional=True, conv_norm=layer_norm_1e5),
    paste_masks=False,  # evaluators encode them as they leave the head
    **pixels(),
)

use_lsj(dataloader, size=1024)
dataloader.train.total_batch_size = 64

# No 1-D parameter is decayed, those of the pyramid's and the heads' norms included.
optimizer.params = L(get_fpn_model_parameters)(
    base_lr="${..lr}",
    weight_decay="${..weight_decay}",
    skip_list=["pos_embed", "rel_pos_h", "rel_pos_w"],
    multiplier=1.0,  # one speed, but for the decay towards the first layers
    lr_factor_func=partial(get_vit_lr_decay_rate, lr_decay_rate=0.7, num_layers=12),
)

train.starting_weights = mae_start()

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
train.output_dir = "output/mask_rcnn_vitdet_b_unofficial_100ep"
