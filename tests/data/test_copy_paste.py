"""Copy-paste against stored merges, by invariant, and what is refused."""

import numpy as np
import pytest
import torch
from golden_models import GOLDEN

import detectron2.data.transforms as T
from detectron2.data import DatasetMapper
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from mimdet.data.copy_paste import CopyPasteMapper, RandomPairs, paste
from mimdet.data.datasets import load_coco_folder

MERGES = dict(np.load(GOLDEN / "pretraining/copy_paste.npz"))
SIZE = (96, 96)


def image_of(name: str) -> torch.Tensor:
    return torch.from_numpy(MERGES[f"{name}_img"]).permute(2, 0, 1)


def instances_of(name: str) -> Instances:
    return Instances(
        SIZE,
        gt_boxes=Boxes(torch.from_numpy(MERGES[f"{name}_boxes"])),
        gt_classes=torch.from_numpy(MERGES[f"{name}_labels"]),
        gt_masks=BitMasks(MERGES[f"{name}_masks"]),
    )


def rectangles(*boxes: tuple[int, int, int, int]) -> Instances:
    masks = torch.zeros(len(boxes), *SIZE, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return Instances(
        SIZE,
        gt_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).view(-1, 4)),
        gt_classes=torch.arange(len(boxes)),
        gt_masks=BitMasks(masks),
    )


def pasted(target: Instances, source: Instances) -> Instances:
    black, white = torch.zeros(3, *SIZE), torch.ones(3, *SIZE)
    merged, instances = paste(black, target, white, source)
    assert torch.equal(merged[0].bool(), source.gt_masks.tensor.any(dim=0))
    return instances


# --- The merge ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["a", "b"])
def test_merge_equals_the_stored_one(case):
    target, source = f"{case}_dst", f"{case}_src"
    image, instances = paste(
        image_of(target), instances_of(target), image_of(source), instances_of(source)
    )
    assert image.dtype == torch.uint8 and torch.equal(image, image_of(f"{case}_out"))
    expected = instances_of(f"{case}_out")
    assert torch.equal(instances.gt_boxes.tensor, expected.gt_boxes.tensor)
    assert torch.equal(instances.gt_classes, expected.gt_classes)
    assert torch.equal(instances.gt_masks.tensor, expected.gt_masks.tensor)


@pytest.mark.parametrize(
    "covering, survives",
    [
        ((0, 0, 30, 20), True),  # no pixel in common
        ((0, 40, 90, 50), True),  # an edge moves by 10
        ((0, 40, 90, 51), True),  # by 11, but 9 * 40 = 360 pixels are left
        ((0, 40, 90, 53), False),  # by 13, and 7 * 40 = 280
        ((40, 40, 80, 60), False),  # all covered
    ],
)
def test_an_object_survives_where_little_moves_or_much_is_left(covering, survives):
    instances = pasted(rectangles((40, 40, 80, 60)), rectangles(covering))
    assert len(instances) == 1 + survives


def test_a_covered_object_near_the_corner_does_not_survive_as_an_empty_one():
    # Its box is within 10 pixels of the box of zeros that an empty mask has.
    assert len(pasted(rectangles((0, 0, 8, 8)), rectangles((0, 0, 20, 20)))) == 1


def test_a_survivor_has_the_box_of_what_is_left_and_the_input_stays_as_it_is():
    target = rectangles((20, 20, 60, 60))
    instances = pasted(target, rectangles((50, 0, 96, 96)))
    assert instances.gt_boxes.tensor.tolist() == [[20, 20, 50, 60], [50, 0, 96, 96]]
    assert target.gt_boxes.tensor.tolist() == [[20, 20, 60, 60]]
    assert target.gt_masks.tensor.sum() == 40 * 40


def test_pasting_into_an_image_without_objects():
    assert len(pasted(rectangles(), rectangles((1, 2, 3, 4)))) == 1


def test_images_of_different_sizes_are_refused():
    objects = rectangles((1, 2, 3, 4))
    with pytest.raises(ValueError, match=r"one size, got \(96, 96\) and \(96, 95\); end the aug"):
        paste(torch.zeros(3, 96, 96), objects, torch.zeros(3, 96, 95), objects)


def test_polygons_are_refused():
    objects = rectangles((1, 2, 3, 4))
    objects.gt_masks = PolygonMasks([[np.array([1.0, 2, 3, 2, 3, 4])]])
    with pytest.raises(ValueError, match="needs bitmasks, got PolygonMasks; set dataloader.train"):
        paste(torch.zeros(3, *SIZE), objects, torch.zeros(3, *SIZE), objects)


# --- The mapper -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(toy_root):
    json_file = f"{toy_root}/annotations/instances_train.json"
    return load_coco_folder("copy_paste_train", json_file, f"{toy_root}/train")


def mapper(**changes) -> DatasetMapper:
    arguments = dict(
        augmentations=[
            T.RandomFlip(horizontal=True),
            T.ResizeScale(0.5, 2.0, 96, 96),
            T.RandomCrop("absolute", (96, 96)),
            T.FixedSizeCrop((96, 96), pad_value=0.0),
        ],
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format="bitmask",
        recompute_boxes=True,
    )
    return DatasetMapper(True, **(arguments | changes))


def test_every_entry_gets_a_partner_and_partners_are_uniform(dataset):
    pairs = RandomPairs(dataset)
    assert len(pairs) == len(dataset)
    np.random.seed(0)
    partners = [pairs[0]["paste_from"]["image_id"] for _ in range(40 * len(dataset))]
    assert pairs[1]["image_id"] == dataset[1]["image_id"]
    _, counts = np.unique(partners, return_counts=True)
    assert len(counts) == len(dataset) and counts.min() > 20 and counts.max() < 70


def test_one_seed_determines_a_sample(dataset):
    map_pair, pairs = CopyPasteMapper(mapper()), RandomPairs(dataset)
    samples = []
    for _ in range(2):
        np.random.seed(3)
        samples.append([map_pair(pairs[0]) for _ in range(4)])
    for first, second in zip(*samples, strict=True):
        assert torch.equal(first["image"], second["image"])
        assert torch.equal(first["instances"].gt_masks.tensor, second["instances"].gt_masks.tensor)


def test_samples_are_consistent_and_some_hold_pasted_objects(dataset):
    np.random.seed(0)
    map_pair, pairs, counts = CopyPasteMapper(mapper()), RandomPairs(dataset), []
    for index in list(range(len(dataset))) * 3:
        sample = map_pair(pairs[index])
        instances, alone = sample["instances"], len(dataset[index]["annotations"])
        assert sample["image"].shape == (3, 96, 96) and sample["image"].dtype == torch.uint8
        assert sample["file_name"] == dataset[index]["file_name"]
        masks = instances.gt_masks
        assert torch.equal(masks.get_bounding_boxes().tensor, instances.gt_boxes.tensor)
        assert masks.nonempty().all()
        counts.append(len(instances) - alone)
    assert max(counts) > 0


def test_no_more_objects_are_pasted_than_allowed(dataset):
    np.random.seed(0)
    never, pairs = CopyPasteMapper(mapper(), max_num_pasted=0), RandomPairs(dataset)
    pair = pairs[0]
    np.random.seed(5)
    sample = never(pair)
    np.random.seed(5)
    expected = mapper()({k: v for k, v in pair.items() if k != "paste_from"})
    assert torch.equal(sample["image"], expected["image"])
    assert len(sample["instances"]) == len(expected["instances"])


def test_an_entry_without_a_partner_is_refused(dataset):
    with pytest.raises(KeyError, match="second entry under 'paste_from', which RandomPairs adds"):
        CopyPasteMapper(mapper())(dataset[0])
