"""CascadeROIHeads in a whole detector and its own rules; alone it is in test_roi_heads.py."""

import numpy as np
import pytest
import torch
from golden_data import (
    as_numpy,
    assert_array,
    assert_grad_norms,
    feature,
    fill,
    image,
    load,
    state_dict_shapes,
)
from golden_detectors import (
    ROI_FEATURES,
    assert_boxes,
    assert_losses,
    assert_scalars,
    backward,
    build_mask_rcnn,
    build_roi_heads,
    golden_targets,
)

from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import CascadeROIHeads
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

ARRAYS, META = load("roi_heads")
SIZES = [tuple(size) for size in META["input"]["image_sizes"]]


def filled_heads(case="cascade_LN", **overrides):
    return fill(build_roi_heads(META["parameters"], **{**META[case]["arguments"], **overrides}))


def features(*, requires_grad=False):
    return {
        name: feature(200 + level, (2, META["input"]["c"], side, side)).requires_grad_(
            requires_grad
        )
        for level, (name, side) in enumerate(zip(ROI_FEATURES, (32, 16, 8, 4), strict=True))
    }


def proposals():
    return [
        Instances(
            size,
            proposal_boxes=Boxes(ARRAYS[f"proposals{i}.boxes"]),
            objectness_logits=torch.from_numpy(ARRAYS[f"proposals{i}.logits"]),
        )
        for i, size in enumerate(SIZES)
    ]


def assert_detections(arrays, name, found):
    assert_boxes(arrays, f"{name}.boxes", found.pred_boxes)
    assert_array(arrays, f"{name}.scores", found.scores)
    assert_array(arrays, f"{name}.classes", found.pred_classes)


# ---- the whole detector

DETECTOR_ARRAYS, DETECTOR_META = load("mask_rcnn")
DETECTOR = DETECTOR_META["cascade_LN"]
IMAGE_SIZES = [tuple(size) for size in DETECTOR_META["input"]["sizes"]]


def build_detector(**overrides):
    base = load("rpn")[1]["base_arguments"]
    return build_mask_rcnn(base, DETECTOR_META["parameters"], **DETECTOR["arguments"], **overrides)


def inputs():
    sizes = zip(IMAGE_SIZES, DETECTOR_META["input"]["height_width"], strict=True)
    return [
        {"image": image(10 + i, *size), "height": height, "width": width}
        for i, (size, (height, width)) in enumerate(sizes)
    ]


@torch.no_grad()
def test_detections_of_the_whole_detector_equal_the_stored_ones():
    model = build_detector().eval()
    assert state_dict_shapes(model) == DETECTOR["state_dict"]
    raw = model.inference(inputs(), do_postprocess=False)
    for i, output in enumerate(model(inputs())):
        assert_detections(DETECTOR_ARRAYS, f"cascade_LN.raw{i}", raw[i])
        assert_array(DETECTOR_ARRAYS, f"cascade_LN.raw{i}.masks", raw[i].pred_masks)
        found = output["instances"]
        assert list(found.image_size) == DETECTOR["output_image_size"][i]
        assert_detections(DETECTOR_ARRAYS, f"cascade_LN.post{i}", found)
        areas = as_numpy(found.pred_masks.flatten(1).sum(dim=1))
        expected = DETECTOR_ARRAYS[f"cascade_LN.post{i}.mask_areas"]
        assert (np.abs(areas - expected) <= np.maximum(2, 0.005 * expected)).all()


@pytest.mark.parametrize("run", ["train_full", "train_sampled"])
def test_training_step_of_the_whole_detector_equals_the_stored_one(run):
    expected = DETECTOR[run]
    model = build_detector(rpn=expected["rpn"], roi=expected["roi"])
    targets = golden_targets(DETECTOR_ARRAYS, IMAGE_SIZES)
    if expected["manual_seed"] is not None:
        torch.manual_seed(expected["manual_seed"])
    with EventStorage(0) as storage:
        losses = model([{**x, "instances": t} for x, t in zip(inputs(), targets, strict=True)])
    assert list(losses) == expected["loss_order"]
    assert_losses(expected["losses"], losses)
    assert_scalars(expected["scalars"], storage)
    backward(losses)
    assert_grad_norms(expected["grad_norms"], model)


# ---- rules


def test_no_proposals_give_no_detections_and_finite_losses():
    none = [x[:0] for x in proposals()]
    detections, _ = filled_heads().eval()(None, features(), none)
    assert [len(x) for x in detections] == [0, 0] and detections[0].has("pred_masks")
    targets = [x[:0] for x in golden_targets(ARRAYS, SIZES)]
    with EventStorage(0):
        _, losses = filled_heads()(None, features(), none, targets)
    assert all(float(x.detach()) == 0 for x in losses.values())


def test_later_stages_train_without_the_boxes_that_became_empty():
    heads = filled_heads()
    with torch.no_grad():  # the first stage shrinks every width to nothing in float32
        heads.box_predictor[0].bbox_pred.weight.zero_()
        heads.box_predictor[0].bbox_pred.bias.copy_(torch.tensor([0.0, 0.0, -1e6, 0.0]))
    with EventStorage(0) as storage:
        _, losses = heads(None, features(), proposals(), golden_targets(ARRAYS, SIZES))
    assert losses["loss_cls_stage1"] == losses["loss_box_reg_stage2"] == 0
    assert storage.latest()["stage1/roi_head/num_bg_samples"][0] == 0


def test_an_ignored_label_keeps_the_class_in_later_stages():
    heads = filled_heads()
    heads.proposal_matchers[1] = Matcher([0.01, 0.999], [0, -1, 1])
    with EventStorage(0) as storage:
        _, losses = heads(None, features(), proposals(), golden_targets(ARRAYS, SIZES))
    latest = storage.latest()
    assert latest["stage1/roi_head/num_fg_samples"][0] == 0
    assert "stage1/fast_rcnn/fg_cls_accuracy" in latest  # so there was foreground
    assert losses["loss_box_reg_stage1"] > 0


def build_cascade(**overrides):
    heads = filled_heads(mask=False)
    arguments = {
        "num_classes": 4,
        "batch_size_per_image": 8,
        "positive_fraction": 0.25,
        "box_in_features": ROI_FEATURES,
        "box_pooler": heads.box_pooler,
        "box_heads": list(heads.box_head),
        "box_predictors": list(heads.box_predictor),
        "proposal_matchers": heads.proposal_matchers,
    }
    return CascadeROIHeads(**{**arguments, **overrides})


def test_one_matcher_or_lists_of_different_lengths_are_errors():
    matcher = Matcher([0.5], [0, 1])
    for wrong in ({"proposal_matcher": matcher}, {"proposal_matchers": [matcher] * 2}):
        with pytest.raises(AssertionError):
            build_cascade(**wrong)


def test_training_without_targets_is_an_error():
    with EventStorage(0), pytest.raises(AssertionError):
        build_cascade()(None, features(), proposals())


@pytest.mark.lite
def test_wrong_arguments_are_explained():
    matcher = Matcher([0.5], [0, 1])
    with pytest.raises(AssertionError, match="takes proposal_matchers, one per stage"):
        build_cascade(proposal_matcher=matcher)
    with pytest.raises(AssertionError, match=r"one entry per stage, got \(3, 3, 2\)"):
        build_cascade(proposal_matchers=[matcher] * 2)
    with EventStorage(0), pytest.raises(AssertionError, match="must have 'instances'"):
        build_cascade()(None, features(), proposals())


@pytest.mark.lite
def test_a_predictor_with_a_box_per_class_is_explained():
    standard = fill(build_roi_heads(META["parameters"], norm="LN"))
    heads = build_cascade(box_predictors=[standard.box_predictor] * 3)
    with pytest.raises(
        AssertionError, match=r"set cls_agnostic_bbox_reg=True in box_predictors\[0"
    ):
        heads.eval()(None, features(), proposals())
