import pytest
import torch
from golden_data import assert_array, load

from detectron2.modeling import detector_postprocess
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import Boxes, Instances, ROIMasks

ARRAYS, META = load("misc")


def stored_detections():
    results = Instances((50, 70))
    results.pred_boxes = Boxes(
        torch.from_numpy(ARRAYS["post.boxes"].copy())
    )  # scaled in place upstream
    results.pred_masks = torch.from_numpy(ARRAYS["post.masks"].copy())
    results.scores = torch.arange(len(results)) / 10
    return results


def detections():
    """Three boxes in an image of 10 x 20, the second of no height, the third over the border."""
    results = Instances((10, 20))
    results.pred_boxes = Boxes([[0.0, 0, 10, 10], [5, 5, 25, 5], [3, 3, 30, 20]])
    results.pred_masks = torch.full((3, 1, 28, 28), 0.9)
    results.scores = torch.tensor([0.9, 0.8, 0.7])
    return results


@pytest.mark.parametrize("name", [name for name in META if name.startswith("post.")])
def test_detections_in_output_size_equal_upstream(name):
    case = META[name]
    output = detector_postprocess(stored_detections(), case["height"], case["width"])
    assert list(output.image_size) == case["image_size"]
    assert_array(ARRAYS, f"{name}.boxes", output.pred_boxes.tensor, atol=1e-2)
    assert_array(ARRAYS, f"{name}.scores", output.scores)
    assert output.pred_masks.dtype == torch.bool
    assert list(output.pred_masks.shape) == case["mask_shape"]
    areas = output.pred_masks.sum(dim=(1, 2))
    assert (areas - torch.from_numpy(ARRAYS[f"{name}.areas"])).abs().max() <= 2


def test_boxes_are_scaled_clipped_and_dropped_where_empty():
    output = detector_postprocess(detections(), 20, 40)
    assert output.image_size == (20, 40)
    assert output.pred_boxes.tensor.tolist() == [[0, 0, 20, 20], [6, 6, 40, 20]]
    torch.testing.assert_close(output.scores, torch.tensor([0.9, 0.7]))
    assert output.pred_masks.sum(dim=(1, 2)).tolist() == [400, 476]


def test_each_axis_has_its_own_scale():
    results = detections()
    results.remove("pred_masks")
    output = detector_postprocess(results, 30, 20)
    assert output.pred_boxes.tensor[0].tolist() == [0, 0, 10, 30]
    assert not output.has("pred_masks")


def test_masks_below_the_threshold_are_empty():
    output = detector_postprocess(detections(), 20, 40, mask_threshold=0.95)
    assert output.pred_masks.sum() == 0


def test_roi_masks_are_pasted_like_mask_tensors():
    results = detections()
    expected = detector_postprocess(detections(), 20, 40).pred_masks
    results.pred_masks = ROIMasks(results.pred_masks[:, 0])
    assert torch.equal(detector_postprocess(results, 20, 40).pred_masks, expected)


def test_proposals_are_scaled_too():
    results = Instances((10, 20), proposal_boxes=Boxes([[0.0, 0, 10, 10]]))
    output = detector_postprocess(results, 20, 40)
    assert output.proposal_boxes.tensor.tolist() == [[0, 0, 20, 20]]


def test_no_detections_give_no_detections():
    output = detector_postprocess(detections()[:0], 20, 40)
    assert len(output) == 0
    assert output.pred_masks.shape == (0, 20, 40)


def test_results_without_boxes_are_an_error():
    with pytest.raises(AssertionError, match="boxes"):
        detector_postprocess(Instances((10, 20), scores=torch.zeros(1)), 20, 40)


@pytest.mark.lite
def test_the_input_is_left_unchanged():
    results = detections()
    before = results.pred_boxes.tensor.clone()
    detector_postprocess(results, 20, 40)
    assert torch.equal(results.pred_boxes.tensor, before)
    assert results.pred_masks.shape == (3, 1, 28, 28)


@pytest.mark.lite
def test_masks_kept_in_their_boxes_are_the_same_masks_when_pasted_later():
    output = detector_postprocess(detections(), 20, 40, paste_masks=False)
    assert isinstance(output.pred_masks, ROIMasks)
    pasted = output.pred_masks.to_bitmasks(output.pred_boxes, 20, 40).tensor
    assert torch.equal(pasted, detector_postprocess(detections(), 20, 40).pred_masks)


def test_segmentation_scores_are_cropped_to_the_image_and_resized():
    scores = torch.zeros(2, 6, 8)
    scores[:, :3, :4] = torch.tensor([1.0, 2.0])[:, None, None]
    resized = sem_seg_postprocess(scores, (3, 4), 9, 20)
    expected = torch.tensor([1.0, 2.0])[:, None, None].expand(2, 9, 20)
    torch.testing.assert_close(resized, expected)
