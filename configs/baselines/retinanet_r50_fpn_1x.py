"""RetinaNet with a ResNet-50 FPN, 12 epochs.

Lin et al. 2017, arXiv 1708.02002. Train on 8 GPUs from ImageNet weights (see the README beside
this file), evaluate:

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/baselines/retinanet_r50_fpn_1x.py train.init_checkpoint=R-50.pkl
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth train.allow_missing=[]

Counted here: 37,915,572 parameters.
"""

from ..common.models.retinanet_fpn import retinanet
from .mask_rcnn_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

_bottom_up = model.backbone.bottom_up
_bottom_up.out_features = ["res3", "res4", "res5"]
model = retinanet(_bottom_up, in_features="${.bottom_up.out_features}", in_channels=2048)

dataloader.train.mapper.use_instance_mask = False
optimizer.lr = 0.01
train.allow_missing = ["backbone.fpn_*", "backbone.top_block.*", "head.*"]
train.output_dir = "output/retinanet_r50_fpn_1x"
