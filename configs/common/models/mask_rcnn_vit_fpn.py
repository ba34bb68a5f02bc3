"""Mask R-CNN with FPN as the ViT detectors of Li et al. 2021 (arXiv 2111.11429) have it.

Against the plain one: normalisation everywhere, two convolutions in the RPN head, four
convolutions and one linear layer in the box head; the backbone is given the sizes of the images.
"""

from detectron2.config import LazyCall as L
from mimdet.modeling.meta_arch import GeneralizedRCNNImageListForward

from .rcnn import fpn, mask_rcnn_heads, pixels, rpn

model = L(GeneralizedRCNNImageListForward)(
    backbone=fpn(norm="SyncBN"),
    proposal_generator=rpn(conv_dims=[-1, -1]),
    # Weighted by samples, so that processes with no or fewer regions count right.
    roi_heads=mask_rcnn_heads(convolutional=True, conv_norm="naiveSyncBN_N"),
    lsj_postprocess=False,
    paste_masks=False,  # evaluators encode them as they leave the head
    **pixels(),
)
