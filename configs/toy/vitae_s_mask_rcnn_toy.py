"""ViTAE-S at toy size on the toy dataset: minutes on two CPU cores.

Xu et al. 2021, arXiv 2106.03348, with every width and depth cut down and no pretraining.

    python tools/make_toy_dataset.py output/toy
    python lazyconfig_train_net.py --config-file configs/toy/vitae_s_mask_rcnn_toy.py
"""

from ..vitae.mask_rcnn_vitae_s_100ep import model as _staged
from .vitae_b_mask_rcnn_toy import dataloader, lr_multiplier, model, optimizer, toy, train

model.backbone.net = _staged.backbone.net
model.backbone.net.update(
    embed_dims=(16, 16, 48),
    token_dims=(24, 48),
    depth=4,
    num_heads=4,
    drop_path_rate=0.0,
    window_size=4,
    global_block_indexes=[1, 3],
    pcm_groups=24,
    use_act_checkpoint=False,
)
train.starting_weights = []
train.output_dir = "output/vitae_s_mask_rcnn_toy"
