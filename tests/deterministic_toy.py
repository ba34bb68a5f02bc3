"""The toy config without chance and without normalisers that depend on how images are spread.

All anchors and the 100 best proposals take part, so nothing is drawn; nothing is suppressed, so all
images have as many; only the true boxes are foreground. With equally many objects in
all images, the mean of the losses of processes is then the loss of their images in one process.
SGD keeps differences of rounding small, where Adam would scale up those of tiny gradients.
"""

import torch

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.solver import get_default_optimizer_params

from ..configs.toy.mimdet_mask_rcnn_fpn_sr_0p5_toy import (  # noqa: F401  a config exports what it imports
    dataloader,
    lr_multiplier,
    mae_checkpoint,
    model,
    toy,
    train,
)

_ANCHORS = 3 * (16 * 16 + 8 * 8 + 4 * 4 + 2 * 2 + 1)  # of an image of 64 x 64 pixels

dataloader.train.mapper.augmentations = [L(T.Resize)(shape=(64, 64))]
dataloader.train.total_batch_size = 4
# They go by the sizes of the files; whole groups would come earlier in one process than in four.
dataloader.train.aspect_ratio_grouping = False

model.backbone.bottom_up.sample_ratio = 1.0
model.proposal_generator.update(
    batch_size_per_image=_ANCHORS,
    positive_fraction=1.0,
    pre_nms_topk=(_ANCHORS, 100),
    post_nms_topk=(100, 40),
    nms_thresh=1.0,
    min_box_size=-1.0,
)
model.roi_heads.batch_size_per_image = 102
model.roi_heads.proposal_matcher.thresholds = [0.999]

optimizer = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(), lr=0.005, momentum=0.9, weight_decay=0.0
)

train.device = "cpu"
train.max_iter = 4
train.log_period = 1
