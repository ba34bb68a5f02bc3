"""The list of what is wrong with a dataset."""

import copy
import json

import pycocotools.mask as mask_util
import pytest
from PIL import Image

from mimdet.data.checks import check_coco_dataset

GOOD = {
    "images": [{"id": 5, "file_name": "five.png", "height": 8, "width": 10}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [
        {
            **{"id": 7, "image_id": 5, "category_id": 1, "bbox": [1, 2, 4, 4], "area": 16},
            **{"iscrowd": 0, "segmentation": [[1, 2, 5, 2, 5, 6, 1, 6]]},
        }
    ],
}
NAME = "annotation 7 of image 5 (five.png) "


@pytest.fixture
def check(tmp_path):
    """Check changed content -> the problems."""
    Image.new("RGB", (10, 8)).save(tmp_path / "five.png")

    def run(change=lambda content: None, **options) -> list[str]:
        content = copy.deepcopy(GOOD)
        changed = change(content)
        content = content if changed is None else changed
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "gt.json").write_text(text)
        return list(check_coco_dataset(tmp_path / "gt.json", tmp_path, **options))

    return run


def test_a_good_dataset_has_no_problems(check):
    assert check() == []
    assert check(read_images=False) == []


def test_the_toy_dataset_has_no_problems(toy_root):
    annotations = toy_root / "annotations/instances_train.json"
    assert list(check_coco_dataset(annotations, toy_root / "train")) == []


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"bbox": [1, 2, -4, 4]}, "has a bbox without area: [1, 2, -4, 4]"),
        ({"bbox": [1, 2, 0, 4]}, "has a bbox without area: [1, 2, 0, 4]"),
        ({"bbox": [1, float("nan"), 4, 4]}, "has a bbox that is not four finite numbers: [1, nan"),
        ({"bbox": [1, 2]}, "has a bbox that is not four finite numbers: [1, 2]"),
        ({"bbox": [8, 2, 4, 4]}, "has a bbox that reaches out of the image of 10 x 8"),
        ({"category_id": 2}, "has category_id 2, which is not in categories"),
        ({"segmentation": [[1, 2, 5, 2, 5]]}, "has 1 of 1 polygons that are not flat lists"),
        ({"segmentation": [[1, 2, 5, 2]]}, "has 1 of 1 polygons that are not flat lists"),
        ({"segmentation": [1, 2, 5, 2, 5, 6]}, "has 6 of 6 polygons that are not flat lists"),
        ({"segmentation": []}, "has a segmentation without polygons"),
        ({"segmentation": "x"}, "has a segmentation that is neither polygons nor RLE: 'x'"),
        ({"segmentation": {"size": [8, 10]}}, "has an RLE that needs size and counts"),
        (
            {"segmentation": {"size": [8, 10], "counts": [10, "x"]}},
            "has an RLE that is not made of numbers: {'size': [8, 10]",
        ),
        (
            {"segmentation": {"size": [8, 10], "counts": [10, 5]}},
            "has an RLE of size [8, 10] whose run lengths sum to 15",
        ),
        (
            {"segmentation": {"size": [8, 10], "counts": [10, -5, 75]}},
            "has an RLE of size [8, 10] whose run lengths sum to 80",
        ),
        (
            {"segmentation": {"size": [10, 8], "counts": [10, 5, 65]}},
            "has an RLE of size [10, 8], not [8, 10]",
        ),
    ],
)
def test_a_damaged_annotation_is_named(check, change, problem):
    (found,) = check(lambda content: content["annotations"][0].update(change))
    assert found.startswith(NAME + problem)


@pytest.mark.parametrize("runs", [[80], [3, 2, 75], [0, 1, 2, 3, 70, 1, 3], [0, 80]])
def test_compressed_rle_is_understood(check, runs):
    rle = mask_util.frPyObjects({"size": [8, 10], "counts": runs}, 8, 10)
    text = rle["counts"].decode()
    segmentation = {"size": [8, 10], "counts": text}
    assert check(lambda c: c["annotations"][0].update(segmentation=segmentation)) == []
    segmentation = {"size": [8, 10], "counts": text + text}
    assert len(check(lambda c: c["annotations"][0].update(segmentation=segmentation))) == 1


@pytest.mark.parametrize(
    "change, problems",
    [
        (lambda c: "{", ["gt.json is not valid JSON"]),
        (lambda c: "", ["gt.json is not valid JSON"]),
        (lambda c: "[]", ["gt.json must hold an object, it holds a list"]),
        (lambda c: {"images": 3, "annotations": []}, ["images must be a list", "categories must"]),
        (lambda c: dict.fromkeys(c, []), ["images is empty"]),
        (lambda c: c["annotations"][0].pop("area"), ["annotations[0] (id 7) has no area"]),
        (lambda c: c["categories"].append(3), ["categories[1] must be an object, got 3"]),
        (
            lambda c: c["annotations"].append(c["annotations"][0]),
            ["annotations: id 7 of id 7 is that of id 7"],
        ),
        (
            lambda c: c["images"].append({**c["images"][0], "id": 6}),
            ["file_name 'five.png' of id 6 is that of id 5"],
        ),
        (
            lambda c: c["images"].append({**c["images"][0], "file_name": "none.png"}),
            ["images: id 5 of id 5", "none.png) does not exist"],
        ),
        (
            lambda c: c["annotations"][0].update(image_id=6),
            ["annotation 7 of image 6 belongs to no image of the file"],
        ),
        (
            lambda c: c["images"][0].update(height="8", width=0),
            ["five.png) must have a height and width above 0 in pixels, got '8' and 0"],
        ),
        (
            lambda c: c["images"][0].update(height=10, width=8),
            ["five.png) has height and width (8, 10) (upright, by its EXIF orientation), not (10"],
        ),
    ],
)
def test_a_damaged_file_is_described(check, change, problems):
    found = check(
        lambda content: value if isinstance(value := change(content), dict | str) else None
    )
    assert len(found) == len(problems), found
    for line, problem in zip(found, problems, strict=True):
        assert problem in line


def test_images_that_cannot_be_read_are_named_unless_they_are_not_to_be_read(check, tmp_path):
    assert check() == []
    path = tmp_path / "five.png"
    path.write_bytes(path.read_bytes()[:40])
    (found,) = list(check_coco_dataset(tmp_path / "gt.json", tmp_path))
    assert found.startswith(f"image 5 ({path}) cannot be read: ")
    assert list(check_coco_dataset(tmp_path / "gt.json", tmp_path, read_images=False)) == []


def test_all_problems_are_listed_at_once(check):
    def change(content):
        content["annotations"][0].update(bbox=[1, 2, -1, 1], category_id=9)
        content["images"][0]["file_name"] = "none.png"

    assert len(check(change)) == 3
