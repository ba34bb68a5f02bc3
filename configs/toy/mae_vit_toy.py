"""MAE pretraining of the toy MIMDet's ViT on the toy images: minutes on two CPU cores.

He et al. 2021, arXiv 2111.06377. Its file starts the toy detector:

    python tools/make_toy_dataset.py output/toy
    python lazyconfig_train_net.py --config-file configs/toy/mae_vit_toy.py

then `mae_checkpoint.path=output/mae_vit_toy/model_final.pth` for the toy MIMDet.
"""

from ..common.schedules import cosine
from ..pretrain.mae_vit_base import dataloader, model, optimizer, train

toy = dict(root="output/toy")

# Widths and depths are those of configs/toy/mimdet_mask_rcnn_fpn_sr_0p5_toy.py.
model.update(img_size=128, embed_dim=128, depth=4, num_heads=4)
model.update(decoder_embed_dim=64, decoder_depth=2, decoder_num_heads=4)

dataloader.train.dataset.source = "${toy.root}/train"
dataloader.train.mapper.transform.scale = (0.5, 1.0)  # the images are small already
dataloader.train.total_batch_size = 64
dataloader.train.num_workers = 1

optimizer.lr = 2e-3
train.max_iter = 600
lr_multiplier = cosine(train.max_iter, warmup_iters=30, rescale_interval=True)
train.checkpointer.period = 100
train.amp.enabled = False
train.seed = 0
train.output_dir = "output/mae_vit_toy"
