"""Large-scale jitter for detectors that pad images to a square themselves, as ViTDet does.

Ghiasi et al. 2020, arXiv 2012.07177. Images are smaller than the square or fill it; the model pads
them by the mean colour (`model.backbone.square_pad`).
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L


def use_lsj(dataloader, size, min_scale=0.1):
    """Give a detection dataloader images that fit into `size` x `size` pixels.

    In training an image is flipped, resized to between `min_scale` and twice the square, and
    cropped; in evaluation its longer side becomes `size`.
    """
    dataloader.train.mapper.augmentations = [
        L(T.RandomFlip)(horizontal=True),
        L(T.ResizeScale)(min_scale=min_scale, max_scale=2.0, target_height=size, target_width=size),
        L(T.FixedSizeCrop)(crop_size=(size, size), pad=False),
    ]
    dataloader.train.mapper.recompute_boxes = True  # from the masks that the crop left
    dataloader.test.mapper.augmentations = [
        L(T.ResizeShortestEdge)(short_edge_length=size, max_size=size)
    ]
