"""MAE pretraining of ViT-B on ImageNet-1k, 800 epochs; the base of all pretraining configs.

He et al. 2021, arXiv 2111.06377. A batch of 4096 on 8 GPUs passes through the model in pieces of
128 images per GPU:

    python lazyconfig_train_net.py --num-gpus 8 --config-file configs/pretrain/mae_vit_base.py \
        dataloader.train.dataset.source=datasets/imagenet train.accumulation_steps=4

`model_final.pth` starts MIMDet (configs/mimdet), with its decoder, as `mae_checkpoint.path`. Files
for others:

    python tools/export_checkpoint.py output/mae_vit_base/model_final.pth \
        --full MAE_FULL.pth --encoder MAE_ENCODER.pth

Published (not reproduced here): 83.66 top-1 of a classifier after 1600 epochs and fine-tuning.
Counted here: 111,907,840 parameters.
"""

from timm.optim import param_groups_weight_decay

from detectron2.config import LazyCall as L
from mimdet.pretraining.mae import MAE
from mimdet.solver.learning_rate import scaled_lr

from ..common.data.images import dataloader
from ..common.optim import AdamW as optimizer
from ..common.schedules import imagenet_cosine
from ..common.train import train

model = L(MAE)(
    img_size=224,
    patch_size=16,
    embed_dim=768,
    depth=12,
    num_heads=12,
    mask_ratio=0.75,
    decoder_embed_dim=512,
    decoder_depth=8,
    decoder_num_heads=16,
    norm_pix_loss=True,
    checkpointing=False,
)

dataloader.train.total_batch_size = 4096
dataloader.train.mapper.transform.input_size = "${model.img_size}"

# 1.5e-4 for 256 images: 2.4e-3 for 4096.
optimizer.lr = L(scaled_lr)(
    base_lr=1.5e-4,
    total_batch_size="${dataloader.train.total_batch_size}",
)
optimizer.betas = (0.9, 0.95)
optimizer.weight_decay = 0.05
# Biases and 1-D tensors are not decayed; class and mask tokens are.
optimizer.params = L(param_groups_weight_decay)(weight_decay="${..weight_decay}")

train.max_iter, lr_multiplier = imagenet_cosine(epochs=800, batch_size=4096, warmup_epochs=40)
train.checkpointer.period = train.max_iter // 40  # 20 epochs
train.eval_period = 0
train.amp.update(enabled=True, dtype="float16")
train.clip_grad.max_norm = float("inf")  # only logs the norm
train.output_dir = "output/mae_vit_base"
