"""Cascade Mask R-CNN with a ResNet-50 FPN, 12 epochs.

Cai and Vasconcelos 2017, arXiv 1712.00726. Train on 8 GPUs from ImageNet weights (see the README
beside this file), evaluate:

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/baselines/cascade_mask_rcnn_r50_fpn_1x.py train.init_checkpoint=R-50.pkl
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth train.allow_missing=[]

It trains on 1000 proposals of an image, as Detectron2's LazyConfig of this model; the yaml file has
2000: `model.proposal_generator.post_nms_topk=[2000,1000]`.

Counted here: 71,984,926 parameters.
"""

from ..common.models.rcnn import cascade_mask_rcnn_heads
from .mask_rcnn_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads = cascade_mask_rcnn_heads()
train.output_dir = "output/cascade_mask_rcnn_r50_fpn_1x"
