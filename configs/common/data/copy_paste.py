"""Simple copy-paste on a square padded by black: objects of another such image lie on top.

Ghiasi et al. 2020, arXiv 2012.07177.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from mimdet.data.copy_paste import CopyPasteMapper, RandomPairs


def use_copy_paste(dataloader, size, min_scale=0.1):
    """Let a detection dataloader train on `size` x `size` images with pasted objects.

    Both images are flipped, resized to between `min_scale` and twice the square, cropped and
    padded.
    """
    loader = dataloader.train
    loader.mapper.augmentations = [
        L(T.RandomFlip)(horizontal=True),
        L(T.ResizeScale)(min_scale=min_scale, max_scale=2.0, target_height=size, target_width=size),
        L(T.RandomCrop)(crop_type="absolute", crop_size=(size, size)),
        L(T.FixedSizeCrop)(crop_size=(size, size), pad_value=0.0),  # has only to pad
    ]
    loader.mapper.instance_mask_format = "bitmask"
    loader.mapper.recompute_boxes = True  # from the masks that the crop left
    loader.mapper = L(CopyPasteMapper)(mapper=loader.mapper)
    loader.dataset = L(RandomPairs)(dataset=loader.dataset)
    dataloader.test.mapper.image_format = "${...train.mapper.mapper.image_format}"
