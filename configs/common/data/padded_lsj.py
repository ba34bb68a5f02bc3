"""Large-scale jitter on a padded square, for backbones that take images of one size only.

Ghiasi et al. 2020, arXiv 2012.07177. Results lie on the square: `model.lsj_postprocess=True`.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L


def use_padded_lsj(dataloader, size, min_scale=0.1):
    """Give a detection dataloader `size` x `size` images, padded at the right and bottom by grey.

    In training an image is resized to between `min_scale` and twice the square, cropped and
    flipped; in evaluation it is fitted into the square.
    """
    dataloader.train.mapper.augmentations = [
        L(T.ResizeScale)(min_scale=min_scale, max_scale=2.0, target_height=size, target_width=size),
        L(T.FixedSizeCrop)(crop_size=(size, size)),
        L(T.RandomFlip)(horizontal=True),
    ]
    dataloader.train.mapper.recompute_boxes = True  # from the masks that the crop left
    dataloader.test.mapper.augmentations = [
        L(T.ResizeShortestEdge)(short_edge_length=size, max_size=size),
        L(T.FixedSizeCrop)(crop_size=(size, size)),
    ]
