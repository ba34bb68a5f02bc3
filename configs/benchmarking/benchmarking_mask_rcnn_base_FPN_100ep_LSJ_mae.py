"""Plain ViT-B with windows and four adaptors, LSJ 1024, 100 epochs; the base of these configs.

Li et al. 2021, arXiv 2111.11429, as released with MIMDet. The MAE file may be the encoder-only
kind; evaluation needs none.

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/benchmarking/benchmarking_mask_rcnn_base_FPN_100ep_LSJ_mae.py \
        mae_checkpoint.path=MAE_VIT_BASE.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        train.init_checkpoint=MODEL.pth

Published (not reproduced here): 50.4 box AP, 44.9 mask AP on COCO val2017, 118.67M parameters.
Counted here: 118,674,184 parameters.
"""

from detectron2.config import LazyCall as L
from mimdet.checkpoint.start import StartingWeights
from mimdet.modeling.backbone.benchmarking import BenchmarkingViTDet, own_tables

from ..common.data.coco import dataloader
from ..common.data.padded_lsj import use_padded_lsj
from ..common.models.mask_rcnn_vit_fpn import model
from ..common.optim import AdamW as optimizer
from ..common.schedules import coco_cosine
from ..common.train import train

# A MAE or BEiT checkpoint.
mae_checkpoint = dict(path=None)

model.backbone.bottom_up = L(BenchmarkingViTDet)(
    window_size=16,
    with_cp="auto",  # by the memory of the device; released: False
    # The released models train a sine-cosine table of their own. For new training, the table of
    # the MAE file (False) is found to be better by about 0.6 box and 0.4 mask AP by the authors.
    sincos_pos_embed=True,
    sincos_order="row_first",  # MAE's is "column_first"
    zero_pos_embed=False,
    freeze_pos_embed=False,
    img_size=1024,
    patch_size=16,
    in_chans=3,
    embed_dim=768,
    depth=12,
    num_heads=12,
    mlp_ratio=4.0,
    drop_path_rate=0.1,
    init_values=None,  # 0.1 for BEiT-B, with beit_qkv_bias=True
    beit_qkv_bias=False,
)
model.backbone.in_features = ["s0", "s1", "s2", "s3"]
model.lsj_postprocess = True

use_padded_lsj(dataloader, size=1024)
dataloader.train.total_batch_size = 64

optimizer.lr = 8e-5
optimizer.params.overrides = dict(
    pos_embed=dict(weight_decay=0.0),
    relative_position_bias_table=dict(weight_decay=0.0),
)

train.starting_weights = [
    L(StartingWeights)(
        path="${mae_checkpoint.path}",
        to="backbone.bottom_up",
        # MAE has neither adaptors nor relative positions nor BEiT's layer scale.
        allow_missing=["ms_adaptor.*", "*_rel_pos_bias.*", "blocks.*.gamma_[12]"],
        leave=L(own_tables)(
            sincos_pos_embed="${model.backbone.bottom_up.sincos_pos_embed}",
            zero_pos_embed="${model.backbone.bottom_up.zero_pos_embed}",
        ),
    )
]

train.max_iter, lr_multiplier = coco_cosine(epochs=100)
train.eval_period = 1844  # an epoch
train.checkpointer.period = 1844
train.amp.update(enabled=True, dtype="float16")
train.ddp.fp16_compression = True
train.output_dir = "output/benchmarking_mask_rcnn_base_FPN_100ep_LSJ_mae"
