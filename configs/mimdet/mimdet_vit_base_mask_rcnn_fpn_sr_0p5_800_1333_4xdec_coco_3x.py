"""MIMDet-B, 50 % of the tokens in training, mask-token fill; the base of all MIMDet configs.

Fang et al. 2022, arXiv 2204.02964. Train on 8 GPUs, evaluate with all tokens:

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/mimdet/mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x.py \
        mae_checkpoint.path=MAE_VIT_BASE_FULL.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth model.backbone.bottom_up.sample_ratio=1.0

Published (not reproduced here): 51.5 box AP, 46.0 mask AP on COCO val2017 at ratio 1.0, 127.56M
parameters. Counted here: 127,561,552 parameters.
"""

from torch import nn

from detectron2.config import LazyCall as L
from mimdet.checkpoint.start import StartingWeights
from mimdet.modeling.backbone.mimdet import MIMDetBackbone, MIMDetDecoder, MIMDetEncoder
from mimdet.solver.param_groups import get_fpn_model_parameters

from ..common.data.coco import dataloader
from ..common.data.detr import use_detr_scales
from ..common.models.mask_rcnn_vit_fpn import model
from ..common.optim import AdamW as optimizer
from ..common.schedules import multistep
from ..common.train import train

# A full MAE checkpoint: its encoder and decoder start ours.
mae_checkpoint = dict(path=None, decoder_from_scratch=False)

model.backbone.bottom_up = L(MIMDetBackbone)(
    encoder=L(MIMDetEncoder)(
        img_size=800,
        patch_size=16,
        in_chans=3,
        embed_dim=768,
        depth=12,
        num_heads=12,
        mlp_ratio=4.0,
        dpr=0.1,
        norm_layer=nn.LayerNorm,  # eps 1e-5, though MAE has 1e-6: as in the released models
        checkpointing="auto",  # by the memory of the device; released: True
    ),
    decoder=L(MIMDetDecoder)(
        img_size="${..encoder.img_size}",
        patch_size="${..encoder.patch_size}",
        embed_dim="${..encoder.embed_dim}",
        decoder_embed_dim=512,
        depth=4,
        num_heads=16,
        mlp_ratio=4.0,
        checkpointing="auto",
        fill="mask",
    ),
    sample_ratio=0.5,
    size_divisibility=32,
    _out_feature_channels=None,  # a published key; they follow from encoder and decoder
    sample_seed=None,
    padding="attend",  # as published; "exclude" keeps padding out of sampling and attention
    sampler="random",  # as published; "stratified" spreads the tokens evenly
)

# Without 672 and 704, which DETR has: so it is in the released recipe.
use_detr_scales(dataloader, short_edges=(480, 512, 544, 576, 608, 640, 736, 768, 800))
dataloader.train.total_batch_size = 64

# Three speeds: encoder lr / multiplier, stem lr, everything else lr * multiplier.
optimizer.lr = 8e-5
optimizer.params = L(get_fpn_model_parameters)(
    weight_decay="${..weight_decay}",
    weight_decay_norm=0.0,
    base_lr="${..lr}",
    skip_list=("pos_embed", "decoder_pos_embed"),
    multiplier=2.0,
)

train.starting_weights = [
    L(StartingWeights)(
        path="${mae_checkpoint.path}",
        to="backbone.bottom_up.encoder",
        allow_missing=["patch_embed.*"],  # a stem of convolutions stands for MAE's projection
    ),
    L(StartingWeights)(
        path="${mae_checkpoint.path}",
        to="backbone.bottom_up.decoder",
        allow_missing=["conv_feat_proj.*"],  # of fill="conv"
        from_scratch="${mae_checkpoint.decoder_from_scratch}",
    ),
]

_epoch = 120000 // 64  # 1875 iterations: 120k images at batch 64
train.max_iter = 36 * _epoch
lr_multiplier = multistep(
    train.max_iter, milestones=[27 * _epoch, 33 * _epoch], warmup_iters=_epoch / 4
)
train.eval_period = _epoch
train.checkpointer.period = _epoch
train.amp.update(enabled=True, dtype="float16")
train.ddp.fp16_compression = True
train.output_dir = "output/mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x"
