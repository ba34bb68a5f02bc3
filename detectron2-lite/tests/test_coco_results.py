"""Detections as entries of a COCO result list, against stored ones and each other."""

import golden_data
import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from crowded_scene import crowded_ground_truth, noisy_detections

from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Boxes, Instances, ROIMasks

# pycocotools 2.0.11 decodes masks by a protocol that numpy 2 has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

_, GOLDEN = golden_data.load("eval")


def test_instances_are_encoded_as_stored():
    case = GOLDEN["instances_to_coco_json"]
    size = case["output"][0]["segmentation"]["size"]
    instances = Instances(tuple(size))
    instances.pred_boxes = Boxes(torch.tensor(case["boxes"]))
    instances.scores = torch.tensor(case["scores"])
    instances.pred_classes = torch.tensor(case["classes"])
    masks = [mask_util.decode(entry["segmentation"]) for entry in case["output"]]
    instances.pred_masks = torch.from_numpy(np.stack(masks).astype(bool))
    assert instances_to_coco_json(instances, 77) == case["output"]
    assert instances_to_coco_json(instances[:0], 77) == case["empty"]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_masks_of_any_type_are_encoded_alike(dtype):
    instances = Instances((100, 100))
    instances.pred_boxes = Boxes(torch.tensor([[10.0, 10.0, 30.0, 30.0]]))
    instances.scores, instances.pred_classes = torch.tensor([0.9]), torch.tensor([0])
    instances.pred_masks = torch.zeros(1, 100, 100, dtype=torch.bool)
    instances.pred_masks[0, 10:30, 10:30] = True
    (expected,) = instances_to_coco_json(instances, 1)
    instances.pred_masks = instances.pred_masks.to(dtype)
    assert instances_to_coco_json(instances, 1) == [expected]
    assert mask_util.decode(expected["segmentation"]).sum() == 400


@pytest.mark.lite
def test_masks_kept_in_their_boxes_give_the_entries_of_full_size_masks():
    instances = noisy_detections(
        crowded_ground_truth(np.random.RandomState(0))["annotations"][:8], np.random.RandomState(1)
    )
    regions = ROIMasks(torch.rand(len(instances), 14, 14))
    pasted = regions.to_bitmasks(instances.pred_boxes, 100, 100).tensor
    instances.pred_masks = pasted
    expected = instances_to_coco_json(instances, 5)
    instances.pred_masks = regions
    assert instances_to_coco_json(instances, 5) == expected
    assert instances_to_coco_json(instances[:0], 5) == []
