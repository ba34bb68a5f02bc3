"""UPerNet with ViT-B from FastMIM on ADE20K, crops of 512, 160k iterations at batch 16.

Guo et al. 2022 (FastMIM), arXiv 2212.06593; Xiao et al. 2018 (UPerNet), arXiv 1807.10221; Bao et
al. 2021 (BEiT), arXiv 2106.08254, for the position tables. Start from a classifier
(configs/finetune/fastmim_vit_base_100e.py), as released, or from a pretraining file:

    python tools/prepare_ade20k.py
    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/fastmim/upernet_vit_base_ade20k_160k.py mae_checkpoint.path=VIT_CLASSIFIER.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth

A file in mmsegmentation's names is taken as it is. One without the auxiliary head, which only
training uses, is evaluated with `model.sem_seg_head.auxiliary_head=null`.

Published (not reproduced here): mIoU 49.5 on ADE20K val, one scale, sliding windows.
Counted here: 163,877,228 parameters.
"""

from functools import partial

from detectron2.config import LazyCall as L
from mimdet.checkpoint.start import StartingWeights
from mimdet.modeling.backbone.beit import BEiTViT
from mimdet.modeling.segmentation.fcn import FCNHead
from mimdet.modeling.segmentation.segmentor import SlidingWindowSegmentor
from mimdet.modeling.segmentation.sem_seg_heads import SemSegHeads
from mimdet.modeling.segmentation.upernet import UPerNetHead
from mimdet.solver.layer_decay import get_layer_lr_decay_rate, segmentor_layer

from ..common.data.ade20k import dataloader
from ..common.optim import AdamW as optimizer
from ..common.schedules import polynomial
from ..common.train import train

# A classifier or a pretraining file with a ViT-B: ours, FastMIM's or MAE's.
mae_checkpoint = dict(path=None)

model = L(SlidingWindowSegmentor)(
    backbone=L(BEiTViT)(
        img_size=512,
        patch_size=16,
        embed_dim=768,
        depth=12,
        num_heads=12,
        drop_path_rate=0.1,
        out_indices=[1, 3, 9, 11],
        init_values=1.0,
        norm="SyncBN",
    ),
    sem_seg_head=L(SemSegHeads)(
        decode_head=L(UPerNetHead)(
            in_channels=["${....backbone.embed_dim}"] * 4,
            channels=768,
            num_classes=150,
            norm="${...backbone.norm}",
        ),
        auxiliary_head=L(FCNHead)(
            in_channels="${...backbone.embed_dim}",
            channels=256,
            num_classes="${..decode_head.num_classes}",
            norm="${...backbone.norm}",
        ),
        mean_over="all",  # as the released model was trained; Detectron2's own is "valid"
        auxiliary_weight=0.4,
    ),
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    crop_size="${.backbone.img_size}",
    crop_stride=341,
    windows_per_batch=4,
)

dataloader.train.total_batch_size = 16  # 2 on each of 8 GPUs

optimizer.lr = 3e-4
optimizer.weight_decay = 0.05
# What has one dimension is not decayed.
optimizer.params.update(weight_decay="${..weight_decay}", weight_decay_bias=0.0)
optimizer.params.overrides = {name: dict(weight_decay=0.0) for name in ("gamma_1", "gamma_2")}
# Tables of positions and the class token are: the released recipe means to spare them, but by names
# that its model does not have. With 0.0 here they are spared.
for _name in ("pos_embed", "cls_token", "relative_position_bias_table"):
    optimizer.params.overrides[_name] = dict(weight_decay="${optimizer.weight_decay}")
optimizer.params.lr_factor_func = partial(
    get_layer_lr_decay_rate, layer_of=segmentor_layer, lr_decay_rate=0.75, num_layers=12
)

train.starting_weights = [
    L(StartingWeights)(
        path="${mae_checkpoint.path}",
        to="backbone",
        # With gammas of 1 and tables of 0 the blocks compute what the classifier's did.
        allow_missing=["*.gamma_[12]", "*.relative_position_bias_table", "fpn[12].*"],
    )
]

train.max_iter = 160_000
lr_multiplier = polynomial(train.max_iter, warmup_iters=1500, warmup_factor=1e-6)
train.eval_period = 16_000
train.checkpointer.period = 16_000
train.best_metric = "sem_seg/mIoU"
train.output_dir = "output/upernet_vit_base_ade20k_160k"
