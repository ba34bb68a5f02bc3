"""Cascade Mask R-CNN with FPN: three box branches, each on the boxes of the one before.

Cai and Vasconcelos 2017, arXiv 1712.00726. The rest is Mask R-CNN's.
"""

from detectron2.config import LazyCall as L
from mimdet.modeling.meta_arch import GeneralizedRCNN

from .rcnn import cascade_mask_rcnn_heads, fpn, pixels, rpn

model = L(GeneralizedRCNN)(
    backbone=fpn(),
    proposal_generator=rpn(),
    roi_heads=cascade_mask_rcnn_heads(),
    paste_masks=False,  # evaluators encode them as they leave the head
    **pixels(),
)
