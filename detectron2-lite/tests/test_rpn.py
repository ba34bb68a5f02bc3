"""RPN: golden cases, selection of proposals, labels of anchors, errors."""

import math

import numpy as np
import pytest
import torch
from golden_data import (
    assert_array,
    assert_grad_norms,
    feature,
    fill,
    ground_truth,
    load,
    state_dict_shapes,
)
from golden_detectors import (
    RPN_FEATURES,
    assert_boxes,
    assert_losses,
    assert_scalars,
    backward,
    build_rpn,
    golden_targets,
)

from detectron2.modeling.proposal_generator import StandardRPNHead
from detectron2.modeling.proposal_generator.proposal_utils import (
    add_ground_truth_to_proposals,
    find_top_rpn_proposals,
)
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage

ARRAYS, META = load("rpn")
BASE = META["base_arguments"]
SIZES = [tuple(size) for size in META["input"]["image_sizes"]]
CASES = [name for name, case in META.items() if "conv_dims" in case]
TRAINING = ["train_full", "train_sampled", "train_full_emptygt"]


def features():
    sides = (32, 16, 8, 4, 2)
    return {
        name: feature(100 + level, (2, 16, side, side))
        for level, (name, side) in enumerate(zip(RPN_FEATURES, sides, strict=True))
    }


def images():
    return ImageList(torch.zeros(2, 3, 128, 128), SIZES)


def filled_rpn(case, **overrides):
    return fill(
        build_rpn(BASE, META[case]["conv_dims"], **{**META[case]["overrides"], **overrides})
    )


@pytest.mark.parametrize("case", CASES)
def test_parameter_names_are_those_of_released_checkpoints(case):
    assert state_dict_shapes(filled_rpn(case)) == META[case]["state_dict"]


def test_head_outputs_equal_the_stored_ones():
    logits, deltas = filled_rpn("one").rpn_head(list(features().values()))
    for level in range(5):
        assert_array(ARRAYS, f"one.head.logits{level}", logits[level])
        assert_array(ARRAYS, f"one.head.deltas{level}", deltas[level])


@pytest.mark.parametrize("case", CASES)
def test_proposals_at_test_time_equal_the_stored_ones(case):
    proposals, losses = filled_rpn(case).eval()(images(), features())
    assert losses == {}
    for i, proposals_i in enumerate(proposals):
        assert proposals_i.image_size == SIZES[i]
        assert_boxes(ARRAYS, f"{case}.eval{i}.boxes", proposals_i.proposal_boxes)
        assert_array(ARRAYS, f"{case}.eval{i}.logits", proposals_i.objectness_logits)


@pytest.mark.parametrize("run", TRAINING)
@pytest.mark.parametrize("case", CASES)
def test_training_step_equals_the_stored_one(case, run):
    expected = META[case][run]
    rpn = filled_rpn(case, **expected["arguments"])
    targets = golden_targets(
        ARRAYS, SIZES, masks=False, second_empty=expected["second_image_without_gt"]
    )
    if expected["manual_seed"] is not None:
        torch.manual_seed(expected["manual_seed"])
    with EventStorage(0) as storage:
        proposals, losses = rpn(images(), features(), targets)
    assert_losses(expected["losses"], losses)
    assert_scalars(expected["scalars"], storage)
    assert [len(x) for x in proposals] == expected["num_proposals"]
    for i, proposals_i in enumerate(proposals):
        assert_boxes(ARRAYS, f"{case}.train{i}.boxes", proposals_i.proposal_boxes)
        assert not proposals_i.proposal_boxes.tensor.requires_grad
        assert not proposals_i.objectness_logits.requires_grad
    backward(losses)
    assert_grad_norms(expected["grad_norms"], rpn)


def test_proposals_equal_those_of_decoding_every_anchor():
    rpn = filled_rpn("two").eval()
    maps = list(features().values())
    anchors = rpn.anchor_generator(maps)
    logits, deltas = rpn.rpn_head(maps)
    boxes = []
    for level, anchors_l in enumerate(anchors):
        by_anchor = deltas[level].unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2)  # (N, H, W, A, 4)
        repeated = anchors_l.tensor.repeat(2, 1)
        decoded = rpn.box2box_transform.apply_deltas(by_anchor.reshape(-1, 4), repeated)
        boxes.append(decoded.view(2, -1, 4))
    scores = [x.permute(0, 2, 3, 1).flatten(1) for x in logits]
    expected = find_top_rpn_proposals(boxes, scores, SIZES, 0.7, 120, 50, 0.0, False)
    actual, _ = rpn(images(), features())
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a.proposal_boxes.tensor, b.proposal_boxes.tensor)
        torch.testing.assert_close(a.objectness_logits, b.objectness_logits)


def test_one_image_gets_the_proposals_that_it_gets_in_a_batch():
    rpn = filled_rpn("one").eval()
    together, _ = rpn(images(), features())
    alone, _ = rpn(
        ImageList(torch.zeros(1, 3, 128, 128), SIZES[1:]),
        {name: x[1:] for name, x in features().items()},
    )
    torch.testing.assert_close(
        alone[0].proposal_boxes.tensor, together[1].proposal_boxes.tensor, atol=1e-3, rtol=0
    )


def test_labels_count_sampled_anchors_only():
    rpn = filled_rpn("one", batch_size_per_image=16, positive_fraction=0.25)
    anchors = rpn.anchor_generator(list(features().values()))
    targets = golden_targets(ARRAYS, SIZES, masks=False, second_empty=True)
    labels, boxes = rpn.label_and_sample_anchors(anchors, targets)
    assert [int((x == 1).sum()) for x in labels] == [4, 0]
    assert [int((x == 0).sum()) for x in labels] == [12, 16]
    assert labels[0].dtype == torch.int8
    assert boxes[0].shape == (sum(map(len, anchors)), 4)
    assert not boxes[1].any()


def test_anchors_outside_the_image_are_ignored_where_a_boundary_is_set():
    rpn = filled_rpn("boundary", batch_size_per_image=4096, positive_fraction=1.0)
    anchors = rpn.anchor_generator(list(features().values()))
    targets = golden_targets(ARRAYS, SIZES, masks=False)
    labels, _ = rpn.label_and_sample_anchors(anchors, targets)
    inside = Boxes.cat(anchors).inside_box(SIZES[0], 0)
    assert (labels[0][~inside] == -1).all()
    assert (labels[0][inside] != -1).any()


# ---- find_top_rpn_proposals, by hand


def find_top(boxes, logits, training=False, **overrides):
    arguments = {
        "image_sizes": [(50, 60)],
        "nms_thresh": 0.5,
        "pre_nms_topk": 10,
        "post_nms_topk": 10,
        "min_box_size": 0.0,
        "training": training,
        **overrides,
    }
    (result,) = find_top_rpn_proposals(
        [torch.tensor([level], dtype=torch.float32) for level in boxes],
        [torch.tensor([level]) for level in logits],
        **arguments,
    )
    return result


def test_overlaps_are_suppressed_within_a_level_but_not_across_levels():
    box, near = [0, 0, 10, 10], [0, 0, 10, 9]
    result = find_top([[box, near], [box]], [[1.0, 2.0], [0.5]])
    assert result.objectness_logits.tolist() == [2.0, 0.5]
    assert result.proposal_boxes.tensor.tolist() == [near, box]


def test_boxes_are_clipped_to_the_image_and_flat_ones_dropped():
    result = find_top([[[-5, -5, 100, 100], [70, 0, 80, 10]]], [[1.0, 2.0]])
    assert result.proposal_boxes.tensor.tolist() == [[0, 0, 60, 50]]


def test_min_box_size_is_exclusive():
    result = find_top([[[0, 0, 8, 20], [0, 20, 8.5, 40]]], [[1.0, 2.0]], min_box_size=8.0)
    assert result.objectness_logits.tolist() == [2.0]


def test_topk_counts_per_level_before_and_over_all_levels_after_suppression():
    levels = [[[0, 0, 5, 5], [20, 0, 25, 5]], [[0, 20, 5, 25], [20, 20, 25, 25]]]
    logits = [[1.0, 2.0], [3.0, 4.0]]
    before = find_top(levels, logits, pre_nms_topk=1)
    assert before.objectness_logits.tolist() == [4.0, 2.0]
    after = find_top(levels, logits, post_nms_topk=3)
    assert after.objectness_logits.tolist() == [4.0, 3.0, 2.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_dropped_at_test_time(bad):
    result = find_top([[[0, 0, 5, bad], [20, 0, 25, 5]]], [[9.0, 2.0]])
    assert result.objectness_logits.tolist() == [2.0]


def test_values_that_are_not_finite_end_training():
    with pytest.raises(FloatingPointError, match="Training has diverged"):
        find_top([[[0, 0, 5, math.nan]]], [[1.0]], training=True)


@pytest.mark.lite
def test_divergence_error_names_level_and_iteration():
    levels = [[[0, 0, 5, 5]], [[0, 0, 5, 5]]]
    with EventStorage(17), pytest.raises(FloatingPointError, match=r"\[1\].*iteration 17"):
        find_top(levels, [[1.0], [math.inf]], training=True)


# ---- add_ground_truth_to_proposals


def test_appended_ground_truth_equals_the_stored_result():
    boxes = load("misc")[0]["append_gt.boxes"]
    logits = load("misc")[0]["append_gt.logits"]
    is_gt = logits > 23  # logit of 1 - 1e-10
    proposals = Instances((60, 80))
    proposals.proposal_boxes = Boxes(boxes[~is_gt])
    proposals.objectness_logits = torch.from_numpy(logits[~is_gt])
    gt = ground_truth((60, 80), boxes[is_gt], [1] * int(is_gt.sum()), masks=False)
    (result,) = add_ground_truth_to_proposals([gt], [proposals])
    np.testing.assert_array_equal(result.proposal_boxes.tensor.numpy(), boxes)
    np.testing.assert_allclose(result.objectness_logits.numpy(), logits, rtol=1e-6)
    assert set(result.get_fields()) == {"proposal_boxes", "objectness_logits"}


def test_appended_ground_truth_has_logit_23():
    proposals = Instances((10, 10), proposal_boxes=Boxes([]), objectness_logits=torch.zeros(0))
    gt = ground_truth((10, 10), [[1, 1, 5, 5]], [0], masks=False)
    (result,) = add_ground_truth_to_proposals([gt], [proposals])
    assert result.objectness_logits.item() == pytest.approx(23.02585, abs=1e-4)


def test_extra_proposal_fields_are_taken_from_the_ground_truth():
    proposals = Instances((10, 10), proposal_boxes=Boxes([[0, 0, 2, 2]]))
    proposals.objectness_logits, proposals.weight = torch.zeros(1), torch.ones(1)
    gt = ground_truth((10, 10), [[1, 1, 5, 5]], [0], masks=False)
    with pytest.raises(AssertionError, match="weight"):
        add_ground_truth_to_proposals([gt], [proposals])
    gt.weight = torch.full((1,), 3.0)
    (result,) = add_ground_truth_to_proposals([gt], [proposals])
    assert result.weight.tolist() == [1.0, 3.0]


@pytest.mark.lite
def test_ground_truth_for_too_few_images_is_an_error():
    with pytest.raises(AssertionError, match="got 0 for 1 images"):
        add_ground_truth_to_proposals([], [Instances((10, 10))])


def test_no_images_get_no_proposals():
    assert add_ground_truth_to_proposals([], []) == []


# ---- construction and errors


def test_head_starts_from_small_weights_and_zero_biases():
    torch.manual_seed(0)
    head = StandardRPNHead(in_channels=32, num_anchors=3, conv_dims=[-1, -1])
    assert head.conv.conv1.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not head.objectness_logits.bias.any()


def test_head_with_a_convolution_without_channels_is_an_error():
    with pytest.raises(ValueError, match="0"):
        StandardRPNHead(in_channels=4, num_anchors=3, conv_dims=[4, 0])


def test_training_without_ground_truth_is_an_error():
    with EventStorage(0), pytest.raises(AssertionError, match="gt_instances"):
        filled_rpn("one").train()(images(), features())


@pytest.mark.lite
def test_loss_weight_may_be_an_int():
    def losses(loss_weight):
        rpn = filled_rpn("one", loss_weight=loss_weight, batch_size_per_image=4096)
        with EventStorage(0):
            return rpn(images(), features(), golden_targets(ARRAYS, SIZES, masks=False))[1]

    torch.manual_seed(0)
    single = losses(1.0)
    torch.manual_seed(0)
    assert_losses({name: 2 * float(x.detach()) for name, x in single.items()}, losses(2))


@pytest.mark.lite
@pytest.mark.parametrize(
    ("loss_weight", "error", "message"),
    [
        ({"loss_rpn_class": 1.0}, ValueError, "unknown keys.*loss_rpn_class.*loss_rpn_cls"),
        ("1.0", TypeError, "must be a number or a mapping"),
    ],
)
def test_loss_weight_of_another_kind_is_an_error(loss_weight, error, message):
    with pytest.raises(error, match=message):
        filled_rpn("one", loss_weight=loss_weight)


def test_unknown_box_loss_is_an_error():
    rpn = filled_rpn("one", box_reg_loss_type="l3")
    with EventStorage(0), pytest.raises(ValueError, match="l3"):
        rpn(images(), features(), golden_targets(ARRAYS, SIZES, masks=False))
