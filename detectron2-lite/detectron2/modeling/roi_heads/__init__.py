"""Heads that work on regions of interest: class, box and mask of every proposal."""

from detectron2.modeling.roi_heads.box_head import FastRCNNConvFCHead
from detectron2.modeling.roi_heads.cascade_rcnn import CascadeROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead, MaskRCNNConvUpsampleHead
from detectron2.modeling.roi_heads.roi_heads import (
    ROIHeads,
    StandardROIHeads,
    select_foreground_proposals,
)
