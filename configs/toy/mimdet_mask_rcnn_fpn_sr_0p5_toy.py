"""MIMDet at toy size on the toy dataset, 50 % of the tokens in training: minutes on two CPU cores.

Fang et al. 2022, arXiv 2204.02964, with every width and depth cut down and no pretraining.

    python tools/make_toy_dataset.py output/toy
    python lazyconfig_train_net.py --config-file configs/toy/mimdet_mask_rcnn_fpn_sr_0p5_toy.py
    python lazyconfig_train_net.py --config-file configs/toy/mimdet_mask_rcnn_fpn_sr_0p5_toy.py \
        --eval-only train.init_checkpoint=output/mimdet_mask_rcnn_fpn_sr_0p5_toy/model_final.pth \
        model.backbone.bottom_up.sample_ratio=1.0
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from mimdet.data.datasets import load_coco_folder

from ..common.schedules import multistep
from ..mimdet.mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x import (
    dataloader,
    mae_checkpoint,
    model,
    optimizer,
    train,
)

toy = dict(root="output/toy")

for _split, _name in ((dataloader.train, "train"), (dataloader.test, "val")):
    _split.dataset = L(load_coco_folder)(
        name=f"toy_{_name}",
        json_file=f"${{toy.root}}/annotations/instances_{_name}.json",
        image_root=f"${{toy.root}}/{_name}",
        filter_empty=_name == "train",
    )
dataloader.evaluator.dataset_name = "${..test.dataset.name}"

dataloader.train.mapper.augmentations = [
    L(T.RandomFlip)(horizontal=True),
    L(T.ResizeShortestEdge)(short_edge_length=(96, 112, 128), sample_style="choice"),
]
dataloader.test.mapper.augmentations = [L(T.ResizeShortestEdge)(short_edge_length=112)]
dataloader.train.total_batch_size = 8
dataloader.train.num_workers = 0
dataloader.test.num_workers = 0

_backbone = model.backbone.bottom_up
_backbone.encoder.update(img_size=128, embed_dim=128, depth=4, num_heads=4, dpr=0.0)
_backbone.encoder.checkpointing = False
_backbone.decoder.update(decoder_embed_dim=64, depth=2, num_heads=4, checkpointing=False)
_backbone.decoder.fill = "conv"
_backbone._out_feature_channels = [32, 64, 64, 64]
_backbone.sample_seed = 0

# GroupNorm needs no large batch and is the same on any number of processes.
model.backbone.update(out_channels=64, norm="GN")
model.proposal_generator.head.conv_dims = [-1]
model.proposal_generator.anchor_generator.sizes = [[8], [16], [32], [64], [128]]
model.proposal_generator.batch_size_per_image = 64
model.proposal_generator.pre_nms_topk = (400, 200)
model.proposal_generator.post_nms_topk = (200, 100)
model.roi_heads.num_classes = 4
model.roi_heads.batch_size_per_image = 64
model.roi_heads.box_head.update(conv_dims=[64], fc_dims=[256], conv_norm="GN")
model.roi_heads.mask_head.update(conv_dims=[64, 64, 64], conv_norm="GN")

# All weights start at random, so all learn at one speed.
optimizer.lr = 1e-3
optimizer.params.multiplier = 1.0

train.max_iter = 700
lr_multiplier = multistep(train.max_iter, milestones=[550, 650], warmup_iters=50)
train.eval_period = train.max_iter
train.checkpointer.period = 100
train.amp.enabled = False
train.ddp.fp16_compression = False
train.seed = 0
train.output_dir = "output/mimdet_mask_rcnn_fpn_sr_0p5_toy"
