"""DETR's multi-scale training: half of the images are resized, cropped and resized again.

Carion et al. 2020, arXiv 2005.12872.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L


def use_detr_scales(dataloader, short_edges=tuple(range(480, 801, 32))):
    """Give a detection dataloader training images whose shorter side is one of `short_edges`."""
    dataloader.train.mapper.augmentations = [
        L(T.RandomFlip)(horizontal=True),
        L(T.RandomApply)(
            tfm_or_aug=L(T.AugmentationList)(
                augs=[
                    L(T.ResizeShortestEdge)(
                        short_edge_length=(400, 500, 600), sample_style="choice"
                    ),
                    L(T.RandomCrop)(crop_type="absolute_range", crop_size=(384, 600)),
                ]
            ),
            prob=0.5,
        ),
        L(T.ResizeShortestEdge)(
            short_edge_length=short_edges, max_size=1333, sample_style="choice"
        ),
    ]
