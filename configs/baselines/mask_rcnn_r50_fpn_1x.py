"""Mask R-CNN with a ResNet-50 FPN, 12 epochs; the base of the two-stage baselines.

He et al. 2017, arXiv 1703.06870; backbone He et al. 2015, arXiv 1512.03385. Train on 8 GPUs from
ImageNet weights, evaluate:

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/baselines/mask_rcnn_r50_fpn_1x.py train.init_checkpoint=R-50.pkl
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth train.allow_missing=[]

`R-50.pkl` is described in the README beside this file.

Counted here: 44,343,216 parameters.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling import ResNet
from detectron2.modeling.backbone import BasicStem

from ..common.data.coco import dataloader
from ..common.models.mask_rcnn_fpn import model
from ..common.optim import SGD as optimizer
from ..common.schedules import coco_1x
from ..common.train import train

model.backbone.bottom_up = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
    stages=L(ResNet.make_default_stages)(depth=50, norm="FrozenBN", stride_in_1x1=False),
    out_features=["res2", "res3", "res4", "res5"],
    freeze_at=2,
)
model.backbone.in_features = "${.bottom_up.out_features}"

train.max_iter, lr_multiplier = coco_1x(warmup_factor=0.001)
# What ImageNet weights lack.
train.allow_missing = ["backbone.fpn_*", "proposal_generator.*", "roi_heads.*"]
train.output_dir = "output/mask_rcnn_r50_fpn_1x"
