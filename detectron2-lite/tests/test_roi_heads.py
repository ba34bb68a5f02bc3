"""ROI heads: golden cases, box and mask losses by hand, inference, errors."""

import math

import numpy as np
import pytest
import torch
from golden_data import (
    assert_array,
    assert_grad_norms,
    feature,
    fill,
    load,
    state_dict_shapes,
)
from golden_detectors import (
    ROI_FEATURES,
    assert_boxes,
    assert_losses,
    assert_scalars,
    backward,
    build_roi_heads,
    golden_targets,
)

from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import (
    BaseMaskRCNNHead,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    ROIHeads,
    fast_rcnn,
    select_foreground_proposals,
)
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_inference, mask_rcnn_loss
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

ARRAYS, META = load("roi_heads")
SIZES = [tuple(size) for size in META["input"]["image_sizes"]]
NUM_CLASSES = META["input"]["num_classes"]
CASES = [name for name in META if name.startswith(("std_", "cascade_"))]
RUNS = [(case, run) for case in CASES for run in META[case] if run.startswith("train_")]


def features(*, requires_grad=False):
    maps = {}
    for level, (name, side) in enumerate(zip(ROI_FEATURES, (32, 16, 8, 4), strict=True)):
        maps[name] = feature(200 + level, (2, META["input"]["c"], side, side))
        maps[name].requires_grad_(requires_grad)
    return maps


def golden_proposals():
    proposals = []
    for i, size in enumerate(SIZES):
        instances = Instances(size, proposal_boxes=Boxes(ARRAYS[f"proposals{i}.boxes"]))
        instances.objectness_logits = torch.from_numpy(ARRAYS[f"proposals{i}.logits"])
        proposals.append(instances)
    return proposals


def filled_heads(case, **overrides):
    return fill(build_roi_heads(META["parameters"], **{**META[case]["arguments"], **overrides}))


@pytest.mark.parametrize("case", CASES)
def test_parameter_names_are_those_of_released_checkpoints(case):
    assert state_dict_shapes(filled_heads(case)) == META[case]["state_dict"]


@pytest.mark.parametrize("case", CASES)
def test_detections_equal_the_stored_ones(case):
    detections, losses = filled_heads(case).eval()(None, features(), golden_proposals())
    assert losses == {}
    for i, found in enumerate(detections):
        assert_boxes(ARRAYS, f"{case}.eval{i}.boxes", found.pred_boxes)
        assert_array(ARRAYS, f"{case}.eval{i}.scores", found.scores)
        assert_array(ARRAYS, f"{case}.eval{i}.classes", found.pred_classes)
        if found.has("pred_masks"):
            assert_array(ARRAYS, f"{case}.eval{i}.masks", found.pred_masks)
    assert all(x.has("pred_masks") for x in detections) == META[case]["arguments"].get("mask", True)


@pytest.mark.parametrize(("case", "run"), RUNS)
def test_training_step_equals_the_stored_one(case, run):
    expected = META[case][run]
    heads = filled_heads(case, **expected["arguments"])
    targets = golden_targets(
        ARRAYS,
        SIZES,
        bitmasks=expected["gt_masks"] == "bitmask",
        second_empty=expected["second_image_without_gt"],
    )
    maps = features(requires_grad=True)
    if expected["manual_seed"] is not None:
        torch.manual_seed(expected["manual_seed"])
    with EventStorage(0) as storage:
        sampled, losses = heads(None, maps, golden_proposals(), targets)
    assert list(losses) == expected["loss_order"]
    assert_losses(expected["losses"], losses)
    assert_scalars(expected["scalars"], storage)
    assert [len(x) for x in sampled] == expected["sampled"]
    is_foreground = [x.gt_classes < NUM_CLASSES for x in sampled]
    assert [int(x.sum()) for x in is_foreground] == expected["sampled_fg"]
    assert sorted(sampled[0].get_fields()) == expected["fields"]
    backward(losses)
    assert_grad_norms(expected["grad_norms"], heads)
    assert_grad_norms(expected["feature_grad_norms"], {name: x.grad for name, x in maps.items()})


def test_running_statistics_after_a_training_step_equal_the_stored_ones():
    heads = filled_heads("std_NaiveSyncBN_N")
    with EventStorage(0):
        heads(None, features(), golden_proposals(), golden_targets(ARRAYS, SIZES))
    norm = heads.box_head.conv1.norm
    assert_array(ARRAYS, "std_NaiveSyncBN_N.train.conv1.running_mean", norm.running_mean)
    assert_array(ARRAYS, "std_NaiveSyncBN_N.train.conv1.running_var", norm.running_var)


@torch.no_grad()
def test_values_between_the_layers_equal_the_stored_ones():
    heads = filled_heads("std_LN").eval()
    boxes = [x.proposal_boxes for x in golden_proposals()]
    pooled = heads.box_pooler(list(features().values()), boxes)
    hidden = heads.box_head(pooled)
    scores, deltas = heads.box_predictor(hidden)
    assert_array(ARRAYS, "std_LN.pooled", pooled)
    assert_array(ARRAYS, "std_LN.head", hidden)
    assert_array(ARRAYS, "std_LN.scores", scores)
    assert_array(ARRAYS, "std_LN.deltas", deltas)


def no_proposals():
    return [
        Instances(size, proposal_boxes=Boxes([]), objectness_logits=torch.zeros(0))
        for size in SIZES
    ]


def test_no_proposals_give_no_detections_with_all_fields():
    expected = META["std_LN"]["no_proposals"]
    detections, _ = filled_heads("std_LN").eval()(None, features(), no_proposals())
    assert [len(x) for x in detections] == expected["lengths"]
    assert sorted(detections[0].get_fields()) == expected["fields"]
    assert list(detections[0].pred_masks.shape) == expected["mask_shape"]


def test_training_without_any_object_gives_every_parameter_a_gradient():
    heads = filled_heads("std_LN")
    targets = [x[:0] for x in golden_targets(ARRAYS, SIZES)]
    with EventStorage(0):
        sampled, losses = heads(None, features(), golden_proposals(), targets)
    assert not sampled[0].has("gt_boxes")
    assert losses["loss_box_reg"] == losses["loss_mask"] == 0
    backward(losses)
    assert all(p.grad is not None for p in heads.parameters())


def test_training_without_objects_and_proposals_gives_finite_losses():
    heads = filled_heads("std_LN")
    targets = [x[:0] for x in golden_targets(ARRAYS, SIZES)]
    with EventStorage(0):
        _, losses = heads(None, features(), no_proposals(), targets)
    assert [float(x.detach()) for x in losses.values()] == [0, 0, 0]


# ---- sampling


def base_heads(**overrides):
    arguments = {
        "num_classes": 3,
        "batch_size_per_image": 10,
        "positive_fraction": 0.5,
        "proposal_matcher": Matcher([0.3, 0.5], [0, -1, 1]),
        "proposal_append_gt": False,
    }
    return ROIHeads(**{**arguments, **overrides})


def four_proposals():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 4], [20, 20, 30, 30], [0, 0, 10, 9]]
    return Instances((40, 40), proposal_boxes=Boxes(boxes), objectness_logits=torch.arange(4.0))


def target(**fields):
    return Instances((40, 40), **fields)


def test_sampled_proposals_carry_the_fields_of_their_object_foreground_first():
    gt = target(
        gt_boxes=Boxes([[20, 20, 30, 29], [0, 0, 10, 10]]),
        gt_classes=torch.tensor([2, 1]),
        gt_serial=torch.tensor([70, 71]),
        other=torch.zeros(2),
    )
    with EventStorage(0) as storage:
        (sampled,) = base_heads().label_and_sample_proposals([four_proposals()], [gt])
    found = dict(zip(sampled.objectness_logits.tolist(), sampled.gt_classes.tolist(), strict=True))
    assert found == {0.0: 1, 2.0: 2, 3.0: 1}  # proposal 1 has IoU 0.4: ignored
    assert [71 if c == 1 else 70 for c in sampled.gt_classes] == sampled.gt_serial.tolist()
    assert not sampled.has("other")
    assert storage.latest()["roi_head/num_fg_samples"][0] == 3


def test_appended_ground_truth_can_be_sampled():
    gt = target(gt_boxes=Boxes([[31, 31, 39, 39]]), gt_classes=torch.tensor([0]))
    with EventStorage(0):
        heads = base_heads(proposal_append_gt=True)
        (sampled,) = heads.label_and_sample_proposals([four_proposals()], [gt])
    assert len(sampled) == 5
    assert sampled.proposal_boxes.tensor[0].tolist() == [31, 31, 39, 39]
    assert sampled.gt_classes.tolist() == [0, 3, 3, 3, 3]


def test_foreground_is_neither_background_nor_ignored():
    proposals = four_proposals()
    proposals.gt_classes = torch.tensor([3, 0, -1, 2])
    (foreground,), (mask,) = select_foreground_proposals([proposals], bg_label=3)
    assert mask.tolist() == [False, True, False, True]
    assert foreground.objectness_logits.tolist() == [1.0, 3.0]


# ---- Fast R-CNN losses by hand

TRANSFORM = Box2BoxTransform((10, 10, 5, 5))
LOGITS = [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.5]]


def predictor(**arguments):
    return FastRCNNOutputLayers(8, box2box_transform=TRANSFORM, num_classes=2, **arguments)


def three_sampled_proposals():
    boxes = [[0, 0, 10, 10], [2, 2, 8, 9], [1, 1, 4, 4]]
    proposals = Instances((20, 20), proposal_boxes=Boxes(boxes))
    proposals.gt_boxes = Boxes([[1, 0, 10, 11], [2, 2, 8, 9], [0, 0, 1, 1]])
    proposals.gt_classes = torch.tensor([0, 1, 2])
    return proposals


def box_losses(layers, logits=LOGITS, proposals=None, storage=None):
    proposals = proposals or three_sampled_proposals()
    deltas = torch.full((len(logits), layers.bbox_pred.out_features), 0.1)
    with storage or EventStorage(0):
        return layers.losses((torch.tensor(logits), deltas), [proposals])


@pytest.mark.parametrize(
    ("arguments", "loss_cls", "loss_box_reg"),
    [
        ({}, 0.5285, 0.7345),
        ({"use_sigmoid_ce": True}, 1.0709, 0.7345),
        ({"box_reg_loss_type": "giou"}, 0.5285, 0.0742),
        ({"cls_agnostic_bbox_reg": True}, 0.5285, 0.7345),  # all deltas are equal
        ({"loss_weight": {"loss_box_reg": 2.0}}, 0.5285, 1.4690),
    ],
)
def test_losses_of_three_proposals(arguments, loss_cls, loss_box_reg):
    losses = box_losses(predictor(**arguments))
    assert float(losses["loss_cls"]) == pytest.approx(loss_cls, abs=1e-4)
    assert float(losses["loss_box_reg"]) == pytest.approx(loss_box_reg, abs=2e-4)


def test_class_statistics_count_foreground_and_misses():
    storage = EventStorage(0)
    logits = [[1.0, 0.0, 0.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.5]]
    box_losses(predictor(), logits, storage=storage)
    latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest["fast_rcnn/cls_accuracy"] == pytest.approx(2 / 3)
    assert latest["fast_rcnn/fg_cls_accuracy"] == pytest.approx(1 / 2)
    assert latest["fast_rcnn/false_negative"] == pytest.approx(1 / 2)


def test_proposals_without_ground_truth_boxes_have_no_box_loss():
    proposals = three_sampled_proposals()
    proposals.remove("gt_boxes")
    proposals.gt_classes = torch.full((3,), 2)
    storage = EventStorage(0)
    assert box_losses(predictor(), proposals=proposals, storage=storage)["loss_box_reg"] == 0
    assert "fast_rcnn/fg_cls_accuracy" not in storage.latest()


@pytest.mark.lite
@pytest.mark.parametrize("sigmoid", [False, True])
def test_losses_of_no_images_are_zero(sigmoid):
    predictions = torch.zeros(0, 3), torch.zeros(0, 8)
    with EventStorage(0):
        losses = predictor(use_sigmoid_ce=sigmoid).losses(predictions, [])
    assert [float(x) for x in losses.values()] == [0, 0]


def test_proposals_that_require_a_gradient_are_an_error():
    proposals = three_sampled_proposals()
    proposals.proposal_boxes.tensor.requires_grad_(True)
    with pytest.raises(AssertionError, match="gradient"):
        box_losses(predictor(), proposals=proposals)


# ---- the federated loss


def federated(weights, count):
    return FastRCNNOutputLayers(
        8,
        box2box_transform=TRANSFORM,
        num_classes=3,
        use_sigmoid_ce=True,
        use_fed_loss=True,
        get_fed_loss_cls_weights=lambda: torch.tensor(weights),
        fed_loss_num_classes=count,
    )


def one_proposal(gt_class):
    proposals = Instances((20, 20), proposal_boxes=Boxes([[0, 0, 10, 10]]))
    proposals.gt_boxes, proposals.gt_classes = Boxes([[0, 0, 10, 10]]), torch.tensor([gt_class])
    return proposals


def bce(logit, target):
    return math.log1p(math.exp(-logit if target else logit))


@pytest.mark.parametrize(
    ("weights", "count", "gt_class", "expected"),
    [
        ([1.0, 1.0, 1.0], 1, 0, bce(1, True)),  # the present class only
        ([1.0, 0.0, 1.0], 2, 0, bce(1, True) + bce(3, False)),  # class 1 has no chance
        ([1.0, 1.0, 1.0], 3, 0, bce(1, True) + bce(2, False) + bce(3, False)),
        ([0.0, 1.0, 0.0], 2, 3, bce(2, False)),  # background takes one of the two places
    ],
)
def test_federated_loss_counts_present_and_drawn_classes(weights, count, gt_class, expected):
    logits = [[1.0, 2.0, 3.0, 0.0]]
    losses = box_losses(federated(weights, count), logits, proposals=one_proposal(gt_class))
    assert float(losses["loss_cls"]) == pytest.approx(expected, rel=1e-5)


def test_federated_weights_are_part_of_the_checkpoint():
    assert federated([1.0, 2.0, 3.0], 2).state_dict()["fed_loss_cls_weights"].tolist() == [1, 2, 3]


def test_federated_loss_without_sigmoid_is_an_error():
    with pytest.raises(AssertionError):
        predictor(use_fed_loss=True, get_fed_loss_cls_weights=lambda: torch.ones(2))


def test_federated_loss_with_weights_of_another_length_is_an_error():
    with pytest.raises(AssertionError):
        federated([1.0, 1.0], 2)


@pytest.mark.lite
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"use_sigmoid_ce": False}, AssertionError, "needs use_sigmoid_ce=True"),
        ({"get_fed_loss_cls_weights": None}, AssertionError, "needs get_fed_loss_cls_weights"),
        (
            {"get_fed_loss_cls_weights": lambda: torch.ones(5)},
            AssertionError,
            "num_classes = 2 weights, got 5",
        ),
        ({"fed_loss_num_classes": 3}, ValueError, "at most num_classes = 2, got 3"),
        ({"loss_weight": {"cls": 1.0}}, ValueError, "unknown keys"),
    ],
)
def test_wrong_arguments_of_the_predictor_are_explained(arguments, error, message):
    right = {
        "use_fed_loss": True,
        "use_sigmoid_ce": True,
        "get_fed_loss_cls_weights": lambda: torch.ones(2),
        "fed_loss_num_classes": 2,
    }
    with pytest.raises(error, match=message):
        predictor(**{**right, **arguments})


# ---- Fast R-CNN inference

MISC_ARRAYS, MISC = load("misc")


@pytest.mark.parametrize("kind", ["specific", "agnostic"])
@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_inference_equals_the_stored_one(case, kind):
    boxes = torch.from_numpy(MISC_ARRAYS["frcnn.boxes"])
    boxes = boxes if kind == "specific" else boxes[:, :4]
    scores = torch.from_numpy(MISC_ARRAYS["frcnn.scores"])
    arguments = MISC[f"frcnn.{case}"]["args"]
    (found,), (rows,) = fast_rcnn_inference([boxes], [scores], [(50, 55)], *arguments)
    name = f"frcnn.{case}.{kind}"
    assert_boxes(MISC_ARRAYS, f"{name}.boxes", found.pred_boxes)
    assert_array(MISC_ARRAYS, f"{name}.scores", found.scores)
    assert_array(MISC_ARRAYS, f"{name}.classes", found.pred_classes)
    assert_array(MISC_ARRAYS, f"{name}.kept_rows", rows)


HAND_BOXES = torch.tensor([[0, 0, 10, 10, 0, 0, 10, 10], [0, 0, 10, 10.5, 5, 5, 5, 9]])
HAND_SCORES = torch.tensor([[0.6, 0.5, 0.1], [0.7, 0.55, 0.05]])


def test_inference_by_hand():
    (found,), (rows,) = fast_rcnn_inference([HAND_BOXES], [HAND_SCORES], [(20, 20)], 0.05, 0.5, 100)
    np.testing.assert_allclose(found.scores, [0.7, 0.55, 0.5])
    assert found.pred_classes.tolist() == [0, 1, 1]
    assert rows.tolist() == [1, 1, 0]
    assert found.pred_boxes.tensor[1].tolist() == [5, 5, 5, 9]  # a flat box stays


def test_score_threshold_is_exclusive_and_topk_keeps_the_best():
    def scores_found(score_thresh, topk):
        arguments = [(20, 20)], score_thresh, 0.5, topk
        (found,), _ = fast_rcnn_inference([HAND_BOXES], [HAND_SCORES], *arguments)
        return found.scores.tolist()

    assert scores_found(0.5, 1) == pytest.approx([0.7])
    assert scores_found(0.5, 100) == pytest.approx([0.7, 0.55])
    assert scores_found(0.05, -1) == pytest.approx([0.7, 0.55, 0.5])
    assert scores_found(0.05, 0) == []


@pytest.mark.lite
def test_rows_that_are_not_finite_are_reported(monkeypatch):
    messages = []
    monkeypatch.setattr(fast_rcnn, "log_first_n", lambda level, message: messages.append(message))
    scores = torch.tensor([[math.nan, 0.5, 0.1], [0.7, 0.55, 0.05]])
    _, (rows,) = fast_rcnn_inference([HAND_BOXES], [scores], [(20, 20)], 0.05, 0.5, 100)
    assert rows.tolist() == [0, 0]  # among the finite rows
    assert len(messages) == 1 and "Dropped 1 of 2 predicted rows" in messages[0]


@torch.no_grad()
def test_predicted_boxes_of_gt_classes_are_columns_of_all_boxes():
    layers = fill(predictor())
    proposals = three_sampled_proposals()
    predictions = layers(feature(5, (3, 8)))
    (boxes,) = layers.predict_boxes(predictions, [proposals])
    (chosen,) = layers.predict_boxes_for_gt_classes(predictions, [proposals])
    torch.testing.assert_close(chosen[0], boxes[0, :4])
    torch.testing.assert_close(chosen[1], boxes[1, 4:])
    assert boxes.shape == (3, 8)
    (probs,) = layers.predict_probs(predictions, [proposals])
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(3))


def test_no_images_get_no_boxes():
    assert predictor().predict_boxes((torch.zeros(0, 3), torch.zeros(0, 8)), []) == []


def test_predictor_flattens_maps():
    layers = FastRCNNOutputLayers(
        ShapeSpec(channels=2, height=3, width=4), box2box_transform=TRANSFORM, num_classes=2
    )
    logits, deltas = layers(torch.zeros(5, 2, 3, 4))
    assert logits.shape == (5, 3) and deltas.shape == (5, 8)


# ---- box head


def test_box_head_names_and_shapes():
    head = FastRCNNConvFCHead(
        ShapeSpec(channels=4, height=7, width=7),
        conv_dims=[8, 8],
        fc_dims=[16],
        conv_norm="naiveSyncBN_N",
    )
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    expected = []
    for conv in ("conv1", "conv2"):
        expected += [f"{conv}.weight", *(f"{conv}.norm.{name}" for name in norm)]
    assert list(head.state_dict()) == [*expected, "fc1.weight", "fc1.bias"]
    names = [name for name, _ in head.named_children()]
    assert names == ["conv1", "conv2", "flatten", "fc1", "fc_relu1"]
    assert head.output_shape.channels == 16
    assert head(torch.zeros(2, 4, 7, 7)).shape == (2, 16)


def test_box_head_of_convolutions_keeps_the_map():
    head = FastRCNNConvFCHead(ShapeSpec(channels=4, height=5, width=6), conv_dims=[8], fc_dims=[])
    assert (head.output_shape.channels, head.output_shape.height) == (8, 5)
    assert head(torch.zeros(2, 4, 5, 6)).shape == (2, 8, 5, 6)


def test_box_head_without_layers_is_an_error():
    with pytest.raises(AssertionError):
        FastRCNNConvFCHead(ShapeSpec(channels=4, height=7, width=7), conv_dims=[], fc_dims=[])


# ---- mask head


def rectangle(x0, y0, x1, y1):
    return [np.array([x0, y0, x1, y0, x1, y1, x0, y1], dtype=np.float64)]


def two_masked_proposals():
    proposals = three_sampled_proposals()[:2]
    proposals.gt_masks = PolygonMasks([rectangle(1, 0, 10, 11), rectangle(2, 2, 8, 9)])
    return proposals


@pytest.mark.parametrize("channels", [1, 2])
def test_mask_loss_of_two_rectangles(channels):
    with EventStorage(0) as storage:
        loss = mask_rcnn_loss(torch.full((2, channels, 28, 28), 0.3), [two_masked_proposals()])
    assert float(loss) == pytest.approx(0.5704, abs=1e-4)
    latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest["mask_rcnn/false_negative"] == 0  # every pixel is predicted positive
    assert latest["mask_rcnn/false_positive"] == 1


def test_mask_loss_reads_the_channel_of_the_class_and_skips_images_without_regions():
    logits = torch.full((2, 2, 28, 28), 0.3)
    logits[0, 1] = logits[1, 0] = 99.0
    proposals = two_masked_proposals()
    with EventStorage(0):
        loss = mask_rcnn_loss(logits, [proposals[:1], proposals[:0], proposals[1:]])
    assert float(loss) == pytest.approx(0.5704, abs=1e-4)


@pytest.mark.parametrize("iteration", [0, 3, 4])
def test_mask_pictures_appear_at_every_period(iteration):
    pictures = []
    with EventStorage(iteration) as storage:
        storage.put_image = lambda name, image: pictures.append(np.asarray(image).shape)
        mask_rcnn_loss(torch.zeros(2, 2, 28, 28), [two_masked_proposals()], vis_period=4)
    assert pictures == ([] if iteration == 3 else [(3, 28, 56)] * 2)


def test_predicted_mask_is_that_of_the_predicted_class():
    logits = feature(3, (3, 2, 4, 4))
    detections = [
        Instances((9, 9), pred_classes=torch.tensor([1, 0])),
        Instances((9, 9), pred_classes=torch.zeros(0, dtype=torch.int64)),
        Instances((9, 9), pred_classes=torch.tensor([1])),
    ]
    mask_rcnn_inference(logits, detections)
    assert [tuple(x.pred_masks.shape) for x in detections] == [
        (2, 1, 4, 4),
        (0, 1, 4, 4),
        (1, 1, 4, 4),
    ]
    torch.testing.assert_close(detections[0].pred_masks[0, 0], logits[0, 1].sigmoid())
    torch.testing.assert_close(detections[2].pred_masks[0, 0], logits[2, 1].sigmoid())


def test_mask_head_names_and_shapes():
    head = MaskRCNNConvUpsampleHead(
        ShapeSpec(channels=4, height=14, width=14),
        num_classes=2,
        conv_dims=[8, 8, 8],
        conv_norm="LN",
    )
    shapes = {name: tuple(x.shape) for name, x in head.state_dict().items()}
    assert shapes == {
        "mask_fcn1.weight": (8, 4, 3, 3),
        "mask_fcn1.norm.weight": (8,),
        "mask_fcn1.norm.bias": (8,),
        "mask_fcn2.weight": (8, 8, 3, 3),
        "mask_fcn2.norm.weight": (8,),
        "mask_fcn2.norm.bias": (8,),
        "deconv.weight": (8, 8, 2, 2),
        "deconv.bias": (8,),
        "predictor.weight": (2, 8, 1, 1),
        "predictor.bias": (2,),
    }
    assert head.layers(torch.zeros(3, 4, 14, 14)).shape == (3, 2, 28, 28)


def test_mask_head_without_a_deconvolution_is_an_error():
    with pytest.raises(AssertionError):
        MaskRCNNConvUpsampleHead(ShapeSpec(channels=4), num_classes=2, conv_dims=[])


def test_mask_head_weighs_its_loss():
    head = MaskRCNNConvUpsampleHead(
        ShapeSpec(channels=4), num_classes=2, conv_dims=[8], loss_weight=3.0
    )
    torch.nn.init.zeros_(head.predictor.weight)
    with EventStorage(0):
        losses = head(torch.ones(2, 4, 14, 14), [two_masked_proposals()])
    assert float(losses["loss_mask"].detach()) == pytest.approx(3 * math.log(2), rel=1e-5)


def test_mask_head_needs_layers():
    with pytest.raises(NotImplementedError):
        BaseMaskRCNNHead()(torch.zeros(1, 4, 14, 14), [])


# ---- StandardROIHeads


def test_forward_with_given_boxes_repeats_the_masks():
    heads = filled_heads("std_LN").eval()
    detections, _ = heads(None, features(), golden_proposals())
    expected = [x.pred_masks for x in detections]
    for found in detections:
        found.remove("pred_masks")
    again = heads.forward_with_given_boxes(features(), detections)
    for found, masks in zip(again, expected, strict=True):
        torch.testing.assert_close(found.pred_masks, masks)


def test_forward_with_given_boxes_needs_eval_mode_and_fields():
    heads = filled_heads("std_LN")
    with pytest.raises(AssertionError):
        heads.forward_with_given_boxes(features(), [])
    with pytest.raises(AssertionError):
        heads.eval().forward_with_given_boxes(features(), golden_proposals())


@pytest.mark.lite
def test_given_instances_without_boxes_are_named():
    message = r"must have \['pred_boxes', 'pred_classes'\], image 0"
    with pytest.raises(AssertionError, match=message):
        filled_heads("std_LN").eval().forward_with_given_boxes(features(), golden_proposals())


def test_mask_branch_can_train_on_predicted_boxes():
    heads = filled_heads("std_LN", train_on_pred_boxes=True)
    plain = filled_heads("std_LN")
    with EventStorage(0):
        torch.manual_seed(0)
        moved, losses = heads(None, features(), golden_proposals(), golden_targets(ARRAYS, SIZES))
        torch.manual_seed(0)
        kept, expected = plain(None, features(), golden_proposals(), golden_targets(ARRAYS, SIZES))
    torch.testing.assert_close(losses["loss_box_reg"], expected["loss_box_reg"])
    assert abs(losses["loss_mask"] - expected["loss_mask"]) > 1e-6
    assert not moved[0].proposal_boxes.tensor.requires_grad
    assert not torch.equal(moved[0].proposal_boxes.tensor, kept[0].proposal_boxes.tensor)


def test_training_without_targets_is_an_error():
    with EventStorage(0), pytest.raises(AssertionError):
        filled_heads("std_nomask")(None, features(), golden_proposals())


@pytest.mark.lite
def test_missing_targets_are_explained():
    with EventStorage(0), pytest.raises(AssertionError, match="must have 'instances'"):
        filled_heads("std_nomask")(None, features(), golden_proposals())


def test_base_class_has_no_forward():
    with pytest.raises(NotImplementedError):
        base_heads()(None, {}, [])


@pytest.mark.lite
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keypoint_head": torch.nn.Identity()}, "no keypoint branch"),
        ({"mask_in_features": ["p2"]}, "mask_pooler and mask_head must be"),
    ],
)
def test_branches_that_cannot_be_built_are_errors(arguments, message):
    heads = filled_heads("std_nomask")
    with pytest.raises(ValueError, match=message):
        type(heads)(
            num_classes=4,
            batch_size_per_image=8,
            positive_fraction=0.25,
            proposal_matcher=heads.proposal_matcher,
            box_in_features=ROI_FEATURES,
            box_pooler=heads.box_pooler,
            box_head=heads.box_head,
            box_predictor=heads.box_predictor,
            **arguments,
        )
