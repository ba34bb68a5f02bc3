"""GeneralizedRCNN: golden cases of a whole Mask R-CNN, and its own steps one by one."""

import pickle

import numpy as np
import pytest
import torch
from golden_data import (
    as_numpy,
    assert_array,
    assert_grad_norms,
    image,
    load,
    state_dict_shapes,
)
from golden_detectors import (
    assert_boxes,
    assert_losses,
    assert_scalars,
    backward,
    build_mask_rcnn,
    golden_targets,
)

from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Boxes, Instances, ROIMasks
from detectron2.utils.events import EventStorage

ARRAYS, META = load("mask_rcnn")
RPN_BASE = load("rpn")[1]["base_arguments"]
SIZES = [tuple(size) for size in META["input"]["sizes"]]
OUTPUT_SIZES = META["input"]["height_width"]
PIXEL_STATISTICS = ("pixel_mean", "pixel_std")
CASES = [name for name in META if name.startswith("mask_rcnn_")]


def build(case, **overrides):
    return build_mask_rcnn(RPN_BASE, META["parameters"], **META[case]["arguments"], **overrides)


def inputs():
    return [
        {"image": image(10 + i, *size), "height": height, "width": width}
        for i, (size, (height, width)) in enumerate(zip(SIZES, OUTPUT_SIZES, strict=True))
    ]


def training_inputs():
    targets = golden_targets(ARRAYS, SIZES)
    return [{**x, "instances": t} for x, t in zip(inputs(), targets, strict=True)]


@pytest.fixture(scope="module")
def small():
    """A model for tests that do not change it; left in eval mode."""
    return build("mask_rcnn_none").eval()


@pytest.mark.parametrize("case", CASES)
def test_parameter_names_are_those_of_released_checkpoints(case):
    assert state_dict_shapes(build(case)) == META[case]["state_dict"]


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_detections_equal_the_stored_ones(case):
    model = build(case).eval()
    assert_array(ARRAYS, f"{case}.preprocessed", model.preprocess_image(inputs()).tensor)
    raw = model.inference(inputs(), do_postprocess=False)
    post = model(inputs())
    for i in range(2):
        assert_boxes(ARRAYS, f"{case}.raw{i}.boxes", raw[i].pred_boxes)
        assert_array(ARRAYS, f"{case}.raw{i}.scores", raw[i].scores)
        assert_array(ARRAYS, f"{case}.raw{i}.classes", raw[i].pred_classes)
        assert_array(ARRAYS, f"{case}.raw{i}.masks", raw[i].pred_masks)
        assert_postprocessed(case, i, post[i]["instances"])


def assert_postprocessed(case, i, found):
    assert list(found.image_size) == META[case]["output_image_size"][i]
    assert_boxes(ARRAYS, f"{case}.post{i}.boxes", found.pred_boxes)
    assert_array(ARRAYS, f"{case}.post{i}.scores", found.scores)
    assert_array(ARRAYS, f"{case}.post{i}.classes", found.pred_classes)
    assert str(found.pred_masks.dtype) == META[case]["mask_dtype"]
    areas = as_numpy(found.pred_masks.flatten(1).sum(dim=1))
    expected = ARRAYS[f"{case}.post{i}.mask_areas"]
    assert (np.abs(areas - expected) <= np.maximum(2, 0.005 * expected)).all()
    assert_first_mask(f"{case}.post{i}.mask0", as_numpy(found.pred_masks[0]))


def assert_first_mask(name, mask):
    """Up to two pixels of 2 whose probability is at the threshold may differ, as in the areas."""
    if name in ARRAYS:
        expected = ARRAYS[name]
    else:
        shape = ARRAYS[f"{name}#shape"]
        bits = np.unpackbits(ARRAYS[f"{name}#bits"])[: np.prod(shape)]
        expected = bits.astype(bool).reshape(shape)
    mask = mask.reshape(expected.shape)
    assert (mask != expected).sum() <= max(2, 0.005 * expected.sum())


@pytest.mark.parametrize("run", ["train_full", "train_sampled"])
@pytest.mark.parametrize("case", CASES)
def test_training_step_equals_the_stored_one(case, run):
    expected = META[case][run]
    model = build(case, rpn=expected["rpn"], roi=expected["roi"])
    if expected["manual_seed"] is not None:
        torch.manual_seed(expected["manual_seed"])
    with EventStorage(0) as storage:
        losses = model(training_inputs())
    assert list(losses) == expected["loss_order"]
    assert_losses(expected["losses"], losses)
    assert_scalars(expected["scalars"], storage)
    backward(losses)
    assert_grad_norms(expected["grad_norms"], model)


# ---- preprocessing


@torch.no_grad()
def test_uint8_and_float_images_give_the_same_batch(small):
    as_float = [{"image": x["image"].float()} for x in inputs()]
    expected = small.preprocess_image(inputs())
    actual = small.preprocess_image(as_float)
    assert torch.equal(actual.tensor, expected.tensor)
    assert expected.tensor.dtype == torch.float32
    assert expected.image_sizes == SIZES


def test_padding_is_the_mean_colour(small):
    batch = small.preprocess_image(inputs())
    assert not batch.tensor[1, :, SIZES[1][0] :].any()
    assert not batch.tensor[1, :, :, SIZES[1][1] :].any()


def test_pixel_statistics_are_not_part_of_the_checkpoint(small):
    assert not any(name.startswith("pixel") for name in small.state_dict())
    assert small.device == torch.device("cpu")


# ---- inference


@torch.no_grad()
def test_given_boxes_get_the_masks_they_had(small):
    raw = small.inference(inputs(), do_postprocess=False)
    given = [Instances(x.image_size, **x.get_fields()) for x in raw]
    for instances in given:
        instances.remove("pred_masks")
    again = small.inference(inputs(), detected_instances=given, do_postprocess=False)
    for a, b in zip(again, raw, strict=True):
        torch.testing.assert_close(a.pred_masks, b.pred_masks)


@torch.no_grad()
def test_output_has_the_size_of_the_image_by_default(small):
    outputs = small([{"image": x["image"]} for x in inputs()])
    assert [x["instances"].image_size for x in outputs] == SIZES


def test_inference_in_training_mode_is_an_error():
    with pytest.raises(AssertionError):
        build("mask_rcnn_none").train().inference(inputs())


# ---- training


def test_training_without_instances_is_an_error():
    with EventStorage(0), pytest.raises(AssertionError):
        build("mask_rcnn_none")(inputs())


def without_proposal_generator(model):
    return GeneralizedRCNN(
        backbone=model.backbone,
        proposal_generator=None,
        roi_heads=model.roi_heads,
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )


@torch.no_grad()
def test_proposals_can_come_with_the_inputs(small):
    images = small.preprocess_image(inputs())
    proposals, _ = small.proposal_generator(images, small.backbone(images.tensor))
    given = [{**x, "proposals": p} for x, p in zip(inputs(), proposals, strict=True)]
    outputs = without_proposal_generator(small).eval()(given)
    for a, b in zip(outputs, small(inputs()), strict=True):
        torch.testing.assert_close(a["instances"].scores, b["instances"].scores)


@pytest.mark.lite
def test_missing_proposals_are_an_error(small):
    with pytest.raises(AssertionError, match="proposals"):
        without_proposal_generator(small).eval()(inputs())


def draw(model, batch, boxes):
    pictures = []
    proposals = [Instances(SIZES[0], proposal_boxes=Boxes(boxes))]
    with EventStorage(0) as storage:
        storage.put_image = lambda name, picture: pictures.append(np.asarray(picture))
        model.visualize_training(batch, proposals)
    return pictures


def black_input(boxes):
    instances = Instances(SIZES[0], gt_boxes=Boxes(boxes))
    return [{"image": torch.zeros(3, *SIZES[0], dtype=torch.uint8), "instances": instances}]


@pytest.mark.lite
def test_picture_shows_ground_truth_left_and_twenty_proposals_right(small):
    height, width = SIZES[0]
    proposals = [[0, 2 * i, 5, 2 * i + 1] for i in range(30)]
    (picture,) = draw(small, black_input([[10, 10, 50, 50]]), proposals)
    assert picture.shape == (3, height, 2 * width)
    left, right = picture[0, :, :width], picture[0, :, width:]
    assert left[10, 30] and left[30, 10] and not left[30, 30]
    assert right[:40].any() and not right[42:].any()


@pytest.mark.lite
def test_picture_without_boxes_is_the_image_twice(small):
    (picture,) = draw(small, black_input([]), [])
    assert not picture.any()


@pytest.mark.lite
def test_picture_of_a_bgr_model_is_rgb(small):
    batch = black_input([])
    batch[0]["image"][0] = 200  # blue
    small.input_format = "BGR"
    try:
        (picture,) = draw(small, batch, [])
    finally:
        small.input_format = "RGB"
    assert (picture[2] == 200).all() and not picture[0].any()


def test_pictures_are_drawn_at_every_period():
    model = build("mask_rcnn_none", rpn={"batch_size_per_image": 8}, roi={"bs": 8})
    model.vis_period = 2
    seen = []
    model.visualize_training = lambda batch, proposals: seen.append(len(proposals))
    for iteration in (1, 2):
        with EventStorage(iteration):
            model(training_inputs())
    assert seen == [2]


@pytest.mark.lite
@torch.no_grad()
def test_masks_that_are_not_pasted_are_those_that_would_be(small):
    pasted = small(inputs())
    parts = {name: getattr(small, name) for name in ("backbone", "proposal_generator", "roi_heads")}
    statistics = {name: getattr(small, name).flatten().tolist() for name in PIXEL_STATISTICS}
    model = GeneralizedRCNN(**parts, **statistics, paste_masks=False).eval()
    model = pickle.loads(pickle.dumps(model))
    for found, whole, size in zip(model(inputs()), pasted, OUTPUT_SIZES, strict=True):
        found, whole = found["instances"], whole["instances"]
        assert isinstance(found.pred_masks, ROIMasks) and len(found) > 0
        assert instances_to_coco_json(found, 1) == instances_to_coco_json(whole, 1)
        bitmaps = found.pred_masks.to_bitmasks(found.pred_boxes, *size).tensor
        assert torch.equal(bitmaps, whole.pred_masks)


@pytest.mark.parametrize(
    "arguments", [{"pixel_std": [1.0]}, {"vis_period": 5}], ids=["std", "vis_period"]
)
def test_wrong_arguments_are_errors(small, arguments):
    right = {"pixel_mean": [1.0, 2.0, 3.0], "pixel_std": [1.0, 1.0, 1.0]}
    with pytest.raises(AssertionError):
        GeneralizedRCNN(
            backbone=small.backbone,
            proposal_generator=None,
            roi_heads=small.roi_heads,
            **{**right, **arguments},
        )


@pytest.mark.lite
def test_wrong_arguments_are_explained(small):
    parts = {"backbone": small.backbone, "proposal_generator": None, "roi_heads": small.roi_heads}
    with pytest.raises(AssertionError, match="one value per channel, got 3 and 1"):
        GeneralizedRCNN(**parts, pixel_mean=[1.0] * 3, pixel_std=[1.0])
    with pytest.raises(AssertionError, match="vis_period=5 needs input_format"):
        GeneralizedRCNN(**parts, pixel_mean=[1.0] * 3, pixel_std=[1.0] * 3, vis_period=5)


def test_mixed_precision_gives_float32_losses_close_to_full_precision():
    expected = META["mask_rcnn_LN"]["train_full"]
    model = build("mask_rcnn_LN", rpn=expected["rpn"])
    with EventStorage(0), torch.autocast("cpu", torch.bfloat16):
        losses = model(training_inputs())
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        # bfloat16 has 8 bits of precision, and other proposals may be sampled
        assert float(loss.detach()) == pytest.approx(expected["losses"][name], rel=0.1, abs=0.01)
