"""LSJ post-processing against the published one."""

import numpy as np
import pytest
import torch
from golden_models import load

from detectron2.structures import Boxes, Instances, ROIMasks
from mimdet.modeling.postprocessing import image_masks, lsj_postprocess

CASES = load("forward/lsj_postprocess.json.gz")


def golden_inputs() -> list[Instances]:
    """The detections of all cases; they come from one stream of random numbers."""
    rng, inputs = np.random.RandomState(3), []
    for case in CASES:
        corner = rng.rand(6, 2) * 100
        boxes = np.concatenate([corner, corner + rng.rand(6, 2) * 60], axis=1)
        boxes[-1] = (120, 120, 128, 128)
        masks = rng.rand(6, 1, 28, 28)
        masks[:, :, 5:20, 3:25] += 0.3
        np.testing.assert_allclose(boxes, case["in_boxes"], rtol=1e-6)
        inputs.append(detections(boxes, masks, tuple(case["network_size"])))
    return inputs


def detections(boxes, masks=None, size: tuple[int, int] = (128, 128)) -> Instances:
    instances = Instances(size)
    instances.pred_boxes = Boxes(torch.as_tensor(np.asarray(boxes), dtype=torch.float32))
    instances.scores = torch.linspace(0.9, 0.4, 6)[: len(instances.pred_boxes)]
    instances.pred_classes = torch.arange(len(instances.pred_boxes))
    if masks is not None:
        instances.pred_masks = torch.as_tensor(masks, dtype=torch.float32)
    return instances


@pytest.mark.parametrize("index", range(len(CASES)))
def test_results_equal_the_published_ones_and_the_input_stays(index):
    case, given, original = CASES[index], golden_inputs()[index], golden_inputs()[index]
    output, expected = lsj_postprocess(given, *case["output"]), case["out"]
    assert (list(output.image_size), len(output)) == (expected["image_size"], expected["n"])
    # expected values are stored with 7 digits
    np.testing.assert_allclose(output.pred_boxes.tensor, expected["boxes"], rtol=1e-6)
    np.testing.assert_allclose(output.scores, expected["scores"], rtol=1e-6)
    assert output.scores.sum().item() == pytest.approx(expected["scores_sum"], rel=1e-6)
    assert output.pred_classes.tolist() == expected["classes"]
    assert list(output.pred_masks.shape) == expected["mask_shape"]
    assert output.pred_masks.dtype == torch.bool
    areas = output.pred_masks.flatten(1).sum(1)
    # a pixel whose probability is 0.5 to rounding may fall on either side
    np.testing.assert_allclose(areas, expected["mask_area"], atol=2)

    assert given.image_size == original.image_size
    assert list(given.get_fields()) == list(original.get_fields())
    assert torch.equal(given.pred_boxes.tensor, original.pred_boxes.tensor)
    assert torch.equal(given.pred_masks, original.pred_masks)
    assert torch.equal(given.scores, original.scores)


def test_both_axes_grow_by_the_factor_of_the_longer_side():
    output = lsj_postprocess(detections([[8, 16, 32, 64]]), 256, 512)  # 128 -> 512: 4
    assert output.pred_boxes.tensor.tolist() == [[32, 64, 128, 256]]
    assert output.image_size == (256, 512)


def test_boxes_are_clipped_to_the_image_and_those_in_the_padding_dropped():
    boxes = [[0, 100, 128, 110], [8, 32, 200, 80], [-5, -5, 4, 4]]
    output = lsj_postprocess(detections(boxes), 64, 128)
    assert output.pred_boxes.tensor.tolist() == [[8, 32, 128, 64], [0, 0, 4, 4]]
    assert output.pred_classes.tolist() == [1, 2]


def test_detections_without_masks_stay_without():
    assert not lsj_postprocess(detections([[8, 16, 32, 64]]), 100, 100).has("pred_masks")


def test_no_detections_stay_none():
    empty = detections(np.zeros((0, 4)), np.zeros((0, 1, 28, 28)))
    output = lsj_postprocess(empty, 40, 50)
    assert len(output) == 0
    assert output.pred_masks.shape == (0, 40, 50)


def test_mask_threshold_is_the_probability_from_which_a_pixel_belongs():
    given = detections([[16, 16, 48, 48]], np.full((1, 1, 28, 28), 0.6))
    inside = lsj_postprocess(given, 128, 128, mask_threshold=0.5).pred_masks[0]
    assert inside.sum() == 32 * 32 and inside[16:48, 16:48].all()
    assert not lsj_postprocess(given, 128, 128, mask_threshold=0.7).pred_masks.any()


def test_masks_may_stay_in_the_frames_of_their_boxes():
    given = golden_inputs()[0]
    regions = lsj_postprocess(given, 100, 120, paste_masks=False)
    assert isinstance(regions.pred_masks, ROIMasks) and 0 < len(regions) < len(given)
    pasted = lsj_postprocess(given, 100, 120)
    assert torch.equal(image_masks(regions), pasted.pred_masks)
    assert image_masks(pasted) is pasted.pred_masks
