"""Mask R-CNN with FPN on backbone maps c2..c5; a system puts its backbone into `bottom_up`.

He et al. 2017, arXiv 1703.06870; Lin et al. 2016, arXiv 1612.03144.
"""

from detectron2.config import LazyCall as L
from mimdet.modeling.meta_arch import GeneralizedRCNN

from .rcnn import fpn, mask_rcnn_heads, pixels, rpn

model = L(GeneralizedRCNN)(
    backbone=fpn(),
    proposal_generator=rpn(),
    roi_heads=mask_rcnn_heads(),
    paste_masks=False,  # evaluators encode them as they leave the head
    **pixels(),
)
