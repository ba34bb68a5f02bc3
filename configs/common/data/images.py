"""Images without classes, for pretraining: a folder, ImageNet's root, a list, or generated ones.

`dataloader.train.dataset.source` says which (`mimdet.data.imagenet.load_images`).
"""

from timm.data import create_transform

from detectron2.config import LazyCall as L
from mimdet.data.imagenet import ImageMapper, ImageTrainLoader, load_images

dataloader = dict(
    train=L(ImageTrainLoader)(
        dataset=L(load_images)(source="${oc.env:DETECTRON2_DATASETS,datasets}/imagenet"),
        mapper=L(ImageMapper)(
            # A random crop, resized bicubically, and a flip; normalised by ImageNet's statistics.
            transform=L(create_transform)(
                input_size=224,
                is_training=True,
                scale=(0.2, 1.0),  # share of the image's area
                interpolation="bicubic",
                hflip=0.5,
                color_jitter=None,  # one number: brightness, contrast and saturation
            ),
            skip_unreadable=True,
        ),
        total_batch_size=4096,
        num_workers=10,
    )
)
