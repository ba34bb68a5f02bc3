"""Builds the detectors of the golden files `rpn`, `roi_heads`, `mask_rcnn` and `retinanet`."""

import numpy as np
import torch
from golden_data import TinyBackbone, as_numpy, fill, ground_truth

from detectron2.layers import NaiveSyncBatchNorm, ShapeSpec
from detectron2.modeling import FPN, GeneralizedRCNN, RetinaNet, StandardROIHeads
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
)
from detectron2.structures import BitMasks

ROI_FEATURES = ["p2", "p3", "p4", "p5"]
RPN_FEATURES = [*ROI_FEATURES, "p6"]


def build_rpn(base, conv_dims, *, in_channels=None, **overrides):
    """RPN from the `base_arguments` of rpn.json; not filled."""
    head = {**base["head"], "in_channels": in_channels or base["head"]["in_channels"]}
    arguments = {
        "in_features": RPN_FEATURES,
        "head": StandardRPNHead(**head, conv_dims=conv_dims),
        "anchor_generator": DefaultAnchorGenerator(
            sizes=base["anchor_sizes"],
            aspect_ratios=base["aspect_ratios"],
            strides=base["strides"],
            offset=base["offset"],
        ),
        "anchor_matcher": Matcher(**base["matcher"]),
        "box2box_transform": Box2BoxTransform(base["weights"]),
        "batch_size_per_image": 256,
        "positive_fraction": 0.5,
        "pre_nms_topk": base["pre_nms_topk"],
        "post_nms_topk": base["post_nms_topk"],
        "nms_thresh": base["nms_thresh"],
    }
    return RPN(**{**arguments, **overrides})


def roi_pooler(output_size):
    return ROIPooler(output_size, (1 / 4, 1 / 8, 1 / 16, 1 / 32), 0, "ROIAlignV2")


def conv_norm(name):
    if name == "NaiveSyncBN_N":
        return lambda channels: NaiveSyncBatchNorm(channels, stats_mode="N")
    return name


def build_roi_heads(
    parameters,
    *,
    norm,
    convs=4,
    fcs=None,
    thr=None,
    mask=True,
    agnostic=False,
    mask_agnostic=False,
    append=True,
    bs=100000,
    pf=0.25,
    train_on_pred_boxes=False,
    cascade=False,
    **output_layer_arguments,
):
    """Standard or cascade heads from the `parameters` and `arguments` of a case; not filled."""
    c, num_classes = parameters["c"], parameters["ncls"]
    fcs = [parameters["fc"]] if fcs is None else fcs
    mask_branch = {}
    if mask:
        mask_branch = {
            "mask_in_features": ROI_FEATURES,
            "mask_pooler": roi_pooler(14),
            "mask_head": MaskRCNNConvUpsampleHead(
                ShapeSpec(channels=c, height=14, width=14),
                num_classes=1 if mask_agnostic else num_classes,
                conv_dims=[c] * 5,
                conv_norm=conv_norm(norm),
            ),
        }

    def box_head():
        return FastRCNNConvFCHead(
            ShapeSpec(channels=c, height=7, width=7),
            conv_dims=[c] * convs,
            fc_dims=fcs,
            conv_norm=conv_norm(norm),
        )

    def box_predictor(scale=1):
        return FastRCNNOutputLayers(
            ShapeSpec(channels=fcs[-1]),
            box2box_transform=Box2BoxTransform((10 * scale, 10 * scale, 5 * scale, 5 * scale)),
            num_classes=num_classes,
            test_score_thresh=parameters["thr"] if thr is None else thr,
            cls_agnostic_bbox_reg=agnostic or cascade,
            **output_layer_arguments,
        )

    arguments = {
        "num_classes": num_classes,
        "batch_size_per_image": bs,
        "positive_fraction": pf,
        "proposal_append_gt": append,
        "box_in_features": ROI_FEATURES,
        "box_pooler": roi_pooler(7),
        **mask_branch,
    }
    if cascade:
        return CascadeROIHeads(
            box_heads=[box_head() for _ in range(3)],
            box_predictors=[box_predictor(scale) for scale in (1, 2, 3)],
            proposal_matchers=[Matcher([threshold], [0, 1]) for threshold in (0.5, 0.6, 0.7)],
            **arguments,
        )
    return StandardROIHeads(
        proposal_matcher=Matcher([0.5], [0, 1], allow_low_quality_matches=False),
        box_head=box_head(),
        box_predictor=box_predictor(),
        train_on_pred_boxes=train_on_pred_boxes,
        **arguments,
    )


def build_mask_rcnn(rpn_base, parameters, *, norm, rpn=None, roi=None, **arguments):
    """GeneralizedRCNN on TinyBackbone and FPN, filled; `rpn` and `roi` override arguments."""
    c = parameters["c"]
    backbone = FPN(
        bottom_up=TinyBackbone(),
        in_features=["res2", "res3", "res4", "res5"],
        out_channels=c,
        norm=norm,
        top_block=LastLevelMaxPool(),
    )
    model = GeneralizedRCNN(
        backbone=backbone,
        proposal_generator=build_rpn(rpn_base, [-1, -1], in_channels=c, **(rpn or {})),
        roi_heads=build_roi_heads(parameters, norm=norm, **arguments, **(roi or {})),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
        input_format="RGB",
    )
    return fill(model)


def build_retinanet(parameters, *, norm, **arguments):
    """RetinaNet on TinyBackbone and FPN from the `arguments` of a case, filled."""
    c = parameters["c"]
    defaults = {
        "backbone": FPN(
            bottom_up=TinyBackbone(),
            in_features=["res3", "res4", "res5"],
            out_channels=c,
            top_block=LastLevelP6P7(24, c),
        ),
        "head": RetinaNetHead(
            input_shape=[ShapeSpec(channels=c)] * 5,
            num_classes=parameters["ncls"],
            num_anchors=9,
            conv_dims=[c, c],
            norm=norm,
        ),
        "head_in_features": ["p3", "p4", "p5", "p6", "p7"],
        "anchor_generator": DefaultAnchorGenerator(
            sizes=[[x * 2 ** (k / 3) for k in range(3)] for x in (16, 32, 64, 96, 128)],
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128],
            offset=0.0,
        ),
        "box2box_transform": Box2BoxTransform((1, 1, 1, 1)),
        "anchor_matcher": Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
        "num_classes": parameters["ncls"],
        "pixel_mean": [103.53, 116.28, 123.675],
        "pixel_std": [57.375, 57.12, 58.395],
        "test_topk_candidates": 60,
    }
    return fill(RetinaNet(**{**defaults, **arguments}))


def golden_targets(arrays, image_sizes, *, masks=True, bitmasks=False, second_empty=False):
    """The ground truth of both images; `bitmasks` rasterises the polygons."""
    targets = []
    for i, size in enumerate(image_sizes):
        boxes, classes = arrays[f"gt{i}.boxes"], arrays[f"gt{i}.classes"]
        if second_empty and i == 1:
            boxes, classes = boxes[:0], classes[:0]
        instances = ground_truth(size, boxes, classes, masks=masks)
        if bitmasks:
            instances.gt_masks = BitMasks.from_polygon_masks(instances.gt_masks, *size)
        targets.append(instances)
    return targets


def assert_losses(expected, losses):
    """The same losses within a relative 1e-4."""
    assert set(losses) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(float(losses[name].detach()), value, rtol=1e-4, err_msg=name)


def assert_scalars(expected, storage):
    """The storage holds exactly the expected scalars, within the default tolerance."""
    latest = {name: value for name, (value, _) in storage.latest().items()}
    assert set(latest) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(latest[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


def assert_boxes(arrays, name, boxes):
    """Boxes equal the stored ones to a hundredth of a pixel, in order."""
    actual = as_numpy(boxes.tensor)
    assert actual.shape == arrays[name].shape, name
    np.testing.assert_allclose(actual, arrays[name], atol=1e-2, rtol=0, err_msg=name)


def backward(losses):
    torch.stack(list(losses.values())).sum().backward()
