"""ViTDet with Cascade Mask R-CNN at toy size on the toy dataset: minutes on two CPU cores.

Li et al. 2022, arXiv 2203.16527; Cai and Vasconcelos 2017, arXiv 1712.00726.

    python tools/make_toy_dataset.py output/toy
    python lazyconfig_train_net.py --config-file configs/toy/vitdet_cascade_mask_rcnn_toy.py
"""

from ..common.models.rcnn import cascade_mask_rcnn_heads
from ..common.models.toy_heads import shrink_heads
from .vitdet_mask_rcnn_toy import (
    dataloader,
    lr_multiplier,
    mae_checkpoint,
    model,
    optimizer,
    toy,
    train,
)

model.roi_heads = cascade_mask_rcnn_heads(convolutional=True)
shrink_heads(model, norm="LN")
train.output_dir = "output/vitdet_cascade_mask_rcnn_toy"
