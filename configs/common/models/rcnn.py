"""The parts of (Cascade) Mask R-CNN, from which detectors are composed.

He et al. 2017, arXiv 1703.06870; Cai and Vasconcelos 2017, arXiv 1712.00726. They read the
`out_channels` of the `backbone` beside them. What a function takes as `**arguments` goes to the
part that it makes.
"""

from omegaconf import MISSING

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    StandardROIHeads,
)


def pixels():
    """The colours of the images that a detector takes, and ImageNet's statistics of them."""
    return dict(
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
        input_format="RGB",
    )


def fpn(**arguments):
    """FPN on backbone maps c2..c5, with p6 by subsampling. Lin et al. 2016, arXiv 1612.03144."""
    defaults = dict(
        bottom_up=MISSING, in_features=["c2", "c3", "c4", "c5"], out_channels=256, norm=""
    )
    return L(FPN)(**{**defaults, **arguments}, top_block=L(LastLevelMaxPool)())


def rpn(head=StandardRPNHead, conv_dims=(-1,), **arguments):
    """The proposal generator on p2..p6; `arguments` go to its `head`."""
    return L(RPN)(
        in_features=["p2", "p3", "p4", "p5", "p6"],
        head=L(head)(
            in_channels="${...backbone.out_channels}",
            num_anchors=3,
            conv_dims=list(conv_dims),
            **arguments,
        ),
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=[[32], [64], [128], [256], [512]],
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=[4, 8, 16, 32, 64],
            offset=0.0,
        ),
        anchor_matcher=L(Matcher)(
            thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True
        ),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_topk=(2000, 1000),  # training, test; per level
        post_nms_topk=(1000, 1000),
        nms_thresh=0.7,
    )


def mask_rcnn_heads(convolutional=False, **norm):
    """Box and mask heads of the classes.

    Args:
        convolutional: four convolutions and one linear layer in the box head, else two linear
            layers.
        norm: `conv_norm` of the convolutions in both heads, if any.
    """
    return L(StandardROIHeads)(
        proposal_matcher=_proposal_matcher(0.5),
        box_head=_box_head("${....backbone.out_channels}", convolutional, norm),
        box_predictor=L(FastRCNNOutputLayers)(
            input_shape=L(ShapeSpec)(channels="${...box_head.fc_dims.0}"),
            test_score_thresh=0.05,
            box2box_transform=L(Box2BoxTransform)(weights=(10, 10, 5, 5)),
            num_classes="${..num_classes}",
        ),
        **_regions_and_masks(norm),
    )


def cascade_mask_rcnn_heads(convolutional=False, **norm):
    """As `mask_rcnn_heads`, with three box branches, each on the boxes of the one before."""
    return L(CascadeROIHeads)(
        # first: parts draw their initial weights in this order, and a seed gives the same ones
        **_regions_and_masks(norm),
        proposal_matchers=[_proposal_matcher(iou) for iou in (0.5, 0.6, 0.7)],
        box_heads=[
            _box_head("${.....backbone.out_channels}", convolutional, norm) for _ in range(3)
        ],
        box_predictors=[
            L(FastRCNNOutputLayers)(
                input_shape=L(ShapeSpec)(channels=f"${{....box_heads.{stage}.fc_dims.0}}"),
                test_score_thresh=0.05,
                box2box_transform=L(Box2BoxTransform)(
                    weights=(weight, weight, weight / 2, weight / 2)
                ),
                cls_agnostic_bbox_reg=True,
                num_classes="${...num_classes}",
            )
            for stage, weight in enumerate((10, 20, 30))
        ],
    )


def _proposal_matcher(iou):
    return L(Matcher)(thresholds=[iou], labels=[0, 1], allow_low_quality_matches=False)


def _box_head(channels, convolutional, norm):
    return L(FastRCNNConvFCHead)(
        input_shape=L(ShapeSpec)(channels=channels, height=7, width=7),
        conv_dims=[256, 256, 256, 256] if convolutional else [],
        fc_dims=[1024] if convolutional else [1024, 1024],
        **norm,
    )


def _regions_and_masks(norm):
    return dict(
        num_classes=80,
        batch_size_per_image=512,
        positive_fraction=0.25,
        box_in_features=["p2", "p3", "p4", "p5"],
        box_pooler=L(ROIPooler)(
            output_size=7,
            scales=(1.0 / 4, 1.0 / 8, 1.0 / 16, 1.0 / 32),
            sampling_ratio=0,
            pooler_type="ROIAlignV2",
        ),
        mask_in_features="${.box_in_features}",
        mask_pooler=L(ROIPooler)(
            output_size=14,
            scales="${..box_pooler.scales}",
            sampling_ratio=0,
            pooler_type="ROIAlignV2",
        ),
        mask_head=L(MaskRCNNConvUpsampleHead)(
            input_shape=L(ShapeSpec)(channels="${....backbone.out_channels}", height=14, width=14),
            num_classes="${..num_classes}",
            conv_dims=[256, 256, 256, 256, 256],
            **norm,
        ),
    )
