"""Cascade Mask R-CNN with FPN: three box branches, each on the boxes of the one before.

Cai and Vasconcelos 2017, arXiv 1712.00726. The rest is Mask R-CNN's.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNConvFCHead, FastRCNNOutputLayers

from .mask_rcnn_fpn import model

for _name in ("box_head", "box_predictor", "proposal_matcher"):
    model.roi_heads.pop(_name)

model.roi_heads._target_ = CascadeROIHeads
model.roi_heads.box_heads = [
    L(FastRCNNConvFCHead)(
        input_shape=L(ShapeSpec)(channels="${.....backbone.out_channels}", height=7, width=7),
        conv_dims=[],
        fc_dims=[1024, 1024],
    )
    for _ in range(3)
]
model.roi_heads.box_predictors = [
    L(FastRCNNOutputLayers)(
        input_shape=L(ShapeSpec)(channels=f"${{....box_heads.{_stage}.fc_dims.0}}"),
        test_score_thresh=0.05,
        box2box_transform=L(Box2BoxTransform)(weights=(_weight, _weight, _weight / 2, _weight / 2)),
        cls_agnostic_bbox_reg=True,
        num_classes="${...num_classes}",
    )
    for _stage, _weight in enumerate((10, 20, 30))
]
model.roi_heads.proposal_matchers = [
    L(Matcher)(thresholds=[_iou], labels=[0, 1], allow_low_quality_matches=False)
    for _iou in (0.5, 0.6, 0.7)
]
