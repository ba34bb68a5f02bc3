"""ViT-B fine-tuned on ImageNet-1k after FastMIM, 100 epochs; the base of these configs.

Guo et al. 2022, arXiv 2212.06593. Train on 8 GPUs; `imagenet.root` holds train/ and val/:

    python lazyconfig_train_net.py --num-gpus 8 --config-file \
        configs/finetune/fastmim_vit_base_100e.py \
        imagenet.root=IMAGENET mae_checkpoint.path=FASTMIM_VIT_BASE.pth
    python lazyconfig_train_net.py --num-gpus 8 --config-file (the same) --eval-only \
        imagenet.root=IMAGENET train.init_checkpoint=MODEL.pth

Published (not reproduced here): 83.8 top-1. Counted here: 86,567,656 parameters.
"""

from timm import create_model

from detectron2.config import LazyCall as L
from mimdet.checkpoint.start import StartingWeights
from mimdet.modeling.classifier import ImageClassifier
from mimdet.solver.layer_decay import make_classifier_lr_factor
from mimdet.solver.learning_rate import scaled_lr

from ..common.data.imagenet_labelled import dataloader, imagenet
from ..common.optim import AdamW as optimizer
from ..common.schedules import imagenet_cosine
from ..common.train import train

# What pretraining left, of FastMIM or MAE: its encoder is taken, resized from 128 to 224 pixels.
mae_checkpoint = dict(path=None)

model = L(ImageClassifier)(
    network=L(create_model)(
        model_name="vit_base_patch16_224",
        global_pool="avg",  # of the patches' tokens
        num_classes=1000,
        drop_path_rate=0.1,
    ),
    label_smoothing=0.1,
)

dataloader.train.total_batch_size = 1024  # 128 on each of 8 GPUs

# 6e-4 for 256 images: 2.4e-3 for 1024.
optimizer.lr = L(scaled_lr)(
    base_lr=6e-4,
    total_batch_size="${dataloader.train.total_batch_size}",
)
optimizer.weight_decay = 0.05
optimizer.params.weight_decay_bias = 0.0
optimizer.params.overrides = dict(
    pos_embed=dict(weight_decay=0.0), cls_token=dict(weight_decay=0.0)
)
optimizer.params.lr_factor_func = L(make_classifier_lr_factor)(lr_decay_rate=0.70, depths=[12])

train.starting_weights = [
    L(StartingWeights)(
        path="${mae_checkpoint.path}",
        to="network",
        # A head is taken from a classifier of as many classes. Pretraining has none, and its last
        # norm is at another place.
        allow_missing=["head.*", "fc_norm.*"],
        leave=["norm.*"],
    )
]

# The learning rate falls to 1e-6.
train.max_iter, lr_multiplier = imagenet_cosine(
    epochs=100, batch_size=1024, warmup_epochs=5, end_value=1e-6 / 2.4e-3
)
train.eval_period = train.max_iter // 100  # an epoch
train.checkpointer.update(period=train.eval_period, max_to_keep=3)
train.amp.update(enabled=True, dtype="float16")
train.output_dir = "output/fastmim_vit_base_100e"
