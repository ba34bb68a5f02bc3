"""RetinaNet with MPViT-T on the toy dataset: minutes on two CPU cores.

Lee et al. 2022, arXiv 2112.11010. The backbone has its full width and depth and no pretraining; the
head is cut down.

    python tools/make_toy_dataset.py output/toy
    python lazyconfig_train_net.py --config-file configs/toy/retinanet_mpvit_tiny_toy.py
    python lazyconfig_train_net.py --config-file configs/toy/retinanet_mpvit_tiny_toy.py \
        --eval-only train.init_checkpoint=output/retinanet_mpvit_tiny_toy/model_final.pth
"""

from ..common.data.toy import dataloader, toy
from ..mpvit.retinanet_mpvit_tiny_1x import model
from .mask_rcnn_mpvit_tiny_toy import lr_multiplier, optimizer, train

model.backbone.update(out_channels=64, norm="GN")
model.backbone.bottom_up.update(drop_path=0.0, checkpointing=False)
model.num_classes = 4
model.head.update(conv_dims=[64, 64], norm="GN")
model.anchor_generator.sizes = [
    [_size * 2 ** (k / 3) for k in range(3)] for _size in (16, 32, 64, 128, 256)
]

dataloader.train.mapper.use_instance_mask = False
train.output_dir = "output/retinanet_mpvit_tiny_toy"
