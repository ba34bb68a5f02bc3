"""RetinaNet: golden cases, labels and losses by hand, the normaliser, the head."""

import numpy as np
import pytest
import torch
from golden_data import (
    TinyBackbone,
    assert_array,
    assert_grad_norms,
    ground_truth,
    image,
    load,
    state_dict_shapes,
)
from golden_detectors import (
    assert_boxes,
    assert_losses,
    assert_scalars,
    backward,
    build_retinanet,
    golden_targets,
)
from torch import nn

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch import DenseDetector
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage

ARRAYS, META = load("retinanet")
PARAMETERS = META["parameters"]
SIZES = [tuple(size) for size in META["input"]["sizes"]]
NUM_CLASSES = PARAMETERS["ncls"]
CASES = [name for name, value in META.items() if isinstance(value, dict) and "train" in value]


def build(case="none", **overrides):
    return build_retinanet(PARAMETERS, **{**META[case]["arguments"], **overrides})


def inputs(*, targets=False):
    batch = [
        {"image": image(10 + i, *size), "height": height, "width": width}
        for i, (size, (height, width)) in enumerate(
            zip(SIZES, META["input"]["height_width"], strict=True)
        )
    ]
    if targets:
        for x, instances in zip(batch, golden_targets(ARRAYS, SIZES, masks=False), strict=True):
            x["instances"] = instances
    return batch


def step(model, batch=None):
    with EventStorage(0) as storage:
        return model(batch or inputs(targets=True)), storage


@pytest.mark.parametrize("case", CASES)
def test_parameter_names_are_those_of_released_checkpoints(case):
    assert state_dict_shapes(build(case)) == META[case]["state_dict"]


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_detections_equal_the_stored_ones(case):
    for i, output in enumerate(build(case).eval()(inputs())):
        found = output["instances"]
        assert len(found) == META[case]["num_detections"][i]
        assert_boxes(ARRAYS, f"{case}.post{i}.boxes", found.pred_boxes)
        assert_array(ARRAYS, f"{case}.post{i}.scores", found.scores)
        assert_array(ARRAYS, f"{case}.post{i}.classes", found.pred_classes)


@pytest.mark.parametrize("case", CASES)
def test_three_training_forwards_equal_the_stored_ones(case):
    expected = META[case]["train"]
    model = build(case)
    for call in expected["three_identical_forward_calls_without_update"]:
        losses, storage = step(model)
        assert list(losses) == ["loss_cls", "loss_box_reg"]
        assert_losses(call["losses"], losses)
        assert_scalars(call["scalars"], storage)
        assert model.loss_normalizer == pytest.approx(call["loss_normalizer"])
    backward(losses)
    assert_grad_norms(expected["grad_norms_of_last"], model)


# ---- the normaliser


@pytest.mark.lite
def test_normaliser_starts_at_a_hundred_and_counts_an_empty_batch_as_one():
    model = build()
    empty = [{**x, "instances": x["instances"][:0]} for x in inputs(targets=True)]
    assert model.loss_normalizer == 100
    losses, storage = step(model, empty)
    assert model.loss_normalizer == pytest.approx(0.9 * 100 + 0.1 * 1)
    assert losses["loss_box_reg"] == 0 and storage.latest()["num_pos_anchors"][0] == 0
    backward(losses)
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.lite
def test_a_start_from_weights_alone_starts_with_a_hundred_and_warns_of_nothing(tmp_path, caplog):
    model, started = build(), build()
    step(model)
    assert model.loss_normalizer == pytest.approx(95.5)
    state = model.state_dict()
    assert not any("normalizer" in name for name in state)
    # where earlier versions had it
    state._metadata[""]["loss_normalizer"] = model.loss_normalizer
    torch.save({"model": state}, tmp_path / "model.pth")
    DetectionCheckpointer(started).load(str(tmp_path / "model.pth"))
    assert started.loss_normalizer == 100
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


# ---- labels and detections


def test_anchors_are_labelled_background_ignored_or_by_their_object():
    anchors = [Boxes([[0, 0, 10, 10], [0, 0, 10, 4.5]]), Boxes([[20, 20, 30, 30], [0, 0, 9, 10]])]
    targets = [
        ground_truth((40, 40), [[0, 0, 10, 10]], [2], masks=False),
        ground_truth((40, 40), np.zeros((0, 4)), [], masks=False),
    ]
    labels, boxes = build().label_anchors(anchors, targets)
    assert labels[0].tolist() == [2, -1, NUM_CLASSES, 2]  # IoU 1, 0.45, 0, 0.9
    assert labels[1].tolist() == [NUM_CLASSES] * 4
    assert boxes[0][0].tolist() == [0, 0, 10, 10] and not boxes[1].any()


@torch.no_grad()
def test_no_score_above_the_threshold_gives_no_detections():
    for output in build(test_score_thresh=1.0).eval()(inputs()):
        assert len(output["instances"]) == 0
        assert set(output["instances"].get_fields()) == {"pred_boxes", "scores", "pred_classes"}


def test_a_score_that_equals_the_threshold_is_not_above_it():
    model = build(test_score_thresh=0.5)
    anchors = [Boxes([[0, 0, 10, 10], [20, 20, 30, 30]])]
    scores = torch.zeros(2, NUM_CLASSES)
    scores[0, 0], scores[1, 1] = 0.5, 0.5001
    found = model.inference_single_image(anchors, [scores], [torch.zeros(2, 4)], (40, 40))
    assert found.pred_classes.tolist() == [1]


def test_training_without_instances_is_an_error():
    with EventStorage(0), pytest.raises(AssertionError):
        build()(inputs())


@pytest.mark.lite
def test_training_without_instances_is_explained():
    with EventStorage(0), pytest.raises(AssertionError, match="every input must have 'instances'"):
        build()(inputs())


def test_unknown_box_loss_is_an_error():
    with pytest.raises(ValueError, match="l3"):
        step(build(box_reg_loss_type="l3"))


@pytest.mark.lite
def test_picture_is_drawn_at_every_period():
    model = build(vis_period=2)
    pictures = []
    for iteration in (1, 2):
        with EventStorage(iteration) as storage:
            storage.put_image = lambda name, picture: pictures.append(picture)
            model(inputs(targets=True))
    (picture,) = pictures
    assert picture.shape == (3, SIZES[0][0], 2 * SIZES[0][1])


def test_features_of_the_head_are_by_default_all_from_fine_to_coarse():
    detector = DenseDetector(
        TinyBackbone(), nn.Identity(), pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3
    )
    assert detector.head_in_features == ["res2", "res3", "res4", "res5"]
    assert not detector.state_dict().keys() & {"pixel_mean", "pixel_std"}


def test_mixed_precision_gives_losses_close_to_full_precision():
    model = build()
    with torch.autocast("cpu", torch.bfloat16):
        losses, _ = step(model)
    expected = META["none"]["train"]["three_identical_forward_calls_without_update"][0]["losses"]
    for name, loss in losses.items():
        # bfloat16 has 8 bits of precision
        assert float(loss.detach()) == pytest.approx(expected[name], rel=0.1)


# ---- the head


def head(**arguments):
    defaults = {"num_classes": 2, "num_anchors": 3, "conv_dims": [4, 4]}
    return RetinaNetHead(input_shape=[ShapeSpec(channels=4)] * 2, **{**defaults, **arguments})


def two_levels():
    torch.manual_seed(0)
    return [torch.randn(2, 4, 8, 8), torch.randn(2, 4, 4, 4)]


def test_head_starts_with_the_prior_probability():
    assert head().cls_score.bias[0].item() == pytest.approx(META["initial_cls_bias"])
    scores = torch.sigmoid(head(prior_prob=0.2).cls_score.bias)
    assert torch.allclose(scores, torch.tensor(0.2))


def test_head_with_bn_has_statistics_per_level_and_one_affine_map():
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    names = [name for name, _ in state_dict_shapes(head(norm="BN")) if "cls_subnet" in name]
    assert names == [
        name
        for i in (0, 3)
        for name in (
            f"cls_subnet.{i}.weight",
            f"cls_subnet.{i}.bias",
            f"cls_subnet.{i + 1}.weight",
            f"cls_subnet.{i + 1}.bias",
            *(f"cls_subnet.{i + 1}.{level}.{x}" for level in (0, 1) for x in statistics),
        )
    ]


@pytest.mark.parametrize("norm", ["", "BN", "SyncBN", "LN"])
def test_head_gives_one_map_of_scores_and_deltas_per_level(norm):
    logits, deltas = head(norm=norm)(two_levels())
    assert [tuple(x.shape) for x in logits] == [(2, 6, 8, 8), (2, 6, 4, 4)]
    assert [tuple(x.shape) for x in deltas] == [(2, 12, 8, 8), (2, 12, 4, 4)]


def test_each_level_moves_its_own_statistics():
    network = head(norm="BN")
    network([torch.zeros(2, 4, 8, 8), torch.ones(2, 4, 4, 4)])
    norm = network.cls_subnet[1]
    assert not torch.equal(norm[0].running_mean, norm[1].running_mean)


@pytest.mark.lite
def test_an_error_between_levels_does_not_shift_the_statistics_of_later_calls():
    network = head(norm="BN").eval()
    network.cls_subnet[1][0].running_mean += 1
    features = two_levels()
    expected = network(features)[0]
    with pytest.raises(RuntimeError):
        network([features[0], torch.zeros(2, 5, 4, 4)])
    for actual, before in zip(network(features)[0], expected, strict=True):
        assert torch.equal(actual, before)


def test_another_number_of_levels_is_an_error():
    with pytest.raises(AssertionError):
        head()(two_levels()[:1])


@pytest.mark.lite
def test_another_number_of_levels_is_explained():
    with pytest.raises(AssertionError, match="built for 2 levels .* got 1"):
        head()(two_levels()[:1])
