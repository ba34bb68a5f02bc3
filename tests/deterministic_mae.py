"""The toy pretraining, with masks that do not depend on how images are spread over processes.

SGD keeps differences of rounding small, where Adam would scale up those of tiny gradients.
"""

import torch
from timm.optim import param_groups_weight_decay

from detectron2.config import LazyCall as L

from ..configs.toy.mae_vit_toy import dataloader, lr_multiplier, model, toy, train  # noqa: F401

dataloader.train.dataset.source = "synthetic:10"
dataloader.train.total_batch_size = 4
dataloader.train.num_workers = 0
model._target_ = "distributed_parts.MaskedByContent"
optimizer = L(torch.optim.SGD)(params=L(param_groups_weight_decay)(), lr=0.05)
train.device = "cpu"
train.max_iter = 4
train.log_period = 1
