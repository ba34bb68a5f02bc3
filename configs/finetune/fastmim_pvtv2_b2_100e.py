"""PVTv2-B2 fine-tuned on ImageNet-1k after FastMIM, 100 epochs, with the settings of Swin-B.

Guo et al. 2022, arXiv 2212.06593; Wang et al. 2021 (PVTv2), arXiv 2106.13797. No settings of this
model are published.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/finetune/fastmim_pvtv2_b2_100e.py \
        imagenet.root=IMAGENET mae_checkpoint.path=FASTMIM_PVTV2_B2.pth

Published (not reproduced here): 82.5 top-1. It was pretrained for 800 epochs.
Counted here: 25,362,856 parameters.
"""

from .fastmim_swin_base_100e import (
    dataloader,
    imagenet,
    lr_multiplier,
    mae_checkpoint,
    model,
    optimizer,
    train,
)

model.network.model_name = "pvt_v2_b2"
optimizer.params.lr_factor_func.depths = [3, 4, 6, 3]
train.output_dir = "output/fastmim_pvtv2_b2_100e"
