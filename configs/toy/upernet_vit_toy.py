"""UPerNet with a tiny ViT on toy label maps: semantic segmentation, minutes on a CPU.

600 iterations took four and a half minutes on one core beside another program: mIoU 63.4 in the
end, 65.8 after 400 of them.

Guo et al. 2022 (FastMIM), arXiv 2212.06593; Xiao et al. 2018 (UPerNet), arXiv 1807.10221; all
widths cut down and no pretraining.

    python tools/make_toy_dataset.py output/toy
    python lazyconfig_train_net.py --config-file configs/toy/upernet_vit_toy.py
    python lazyconfig_train_net.py --config-file configs/toy/upernet_vit_toy.py --eval-only \
        train.init_checkpoint=output/upernet_vit_toy/model_final.pth
"""

from ..common.data.toy_sem_seg import dataloader, toy
from ..common.schedules import polynomial
from ..fastmim.upernet_vit_base_ade20k_160k import mae_checkpoint, model, optimizer, train

model.backbone.update(img_size=64, patch_size=8, embed_dim=96, depth=4, num_heads=4)
# A batch norm of one process: that of several is for GPUs alone.
model.backbone.update(out_indices=[0, 1, 2, 3], drop_path_rate=0.0, norm="BN")
model.sem_seg_head.decode_head.update(channels=48, num_classes=3)
model.sem_seg_head.auxiliary_head.channels = 32
model.crop_stride = 42

# Fewer crops than the real recipe sees, so their colours stay as they are.
_resize, _crop, _flip, _ = dataloader.train.mapper.augmentations
dataloader.train.mapper.augmentations = [_resize, _crop, _flip]

# All weights start at random, so all learn at one speed.
optimizer.lr = 2e-3
optimizer.params.lr_factor_func = None

train.max_iter = 600
lr_multiplier = polynomial(train.max_iter, warmup_iters=40, warmup_factor=1e-3)
train.eval_period = 200
train.checkpointer.period = 100
train.seed = 0
train.output_dir = "output/upernet_vit_toy"
