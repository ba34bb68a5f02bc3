"""Mask R-CNN with FPN as the ViT detectors of Li et al. 2021 (arXiv 2111.11429) have it.

Against the plain one: normalisation everywhere, two convolutions in the RPN head, four
convolutions and one linear layer in the box head.
"""

from mimdet.modeling.meta_arch import GeneralizedRCNNImageListForward

from .mask_rcnn_fpn import model

model._target_ = GeneralizedRCNNImageListForward
model.lsj_postprocess = False

model.backbone.norm = "SyncBN"
model.proposal_generator.head.conv_dims = [-1, -1]

# Weighted by samples, so that processes with no or fewer regions count right.
model.roi_heads.box_head.conv_norm = "naiveSyncBN_N"
model.roi_heads.mask_head.conv_norm = "naiveSyncBN_N"
model.roi_heads.box_head.conv_dims = [256, 256, 256, 256]
model.roi_heads.box_head.fc_dims = [1024]
