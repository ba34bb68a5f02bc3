"""CMT-S fine-tuned on ImageNet-1k after FastMIM, 100 epochs, with the settings of Swin-B.

Guo et al. 2022, arXiv 2212.06593; Guo et al. 2021 (CMT), arXiv 2107.06263. No settings of this
model are published. Its position tables are resized from 128 to 224 pixels.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/finetune/fastmim_cmt_small_100e.py \
        imagenet.root=IMAGENET mae_checkpoint.path=FASTMIM_CMT_SMALL.pth

Published (not reproduced here): 83.9 top-1. It was pretrained for 800 epochs.
Counted here: 26,256,160 parameters.
"""

from detectron2.config import LazyCall as L
from mimdet.modeling.backbone.cmt import CMTClassifier

from .fastmim_swin_base_100e import (
    dataloader,
    imagenet,
    lr_multiplier,
    mae_checkpoint,
    model,
    optimizer,
    train,
)

model.network = L(CMTClassifier)(img_size=224, num_classes=1000, drop_path_rate=0.1)
optimizer.params.lr_factor_func.depths = [3, 3, 16, 3]
train.starting_weights[0].allow_missing = ["_fc.*", "_bn.*", "head.*"]
train.output_dir = "output/fastmim_cmt_small_100e"
