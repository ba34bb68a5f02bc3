"""The evaluator's own truth: ids of any kind, and what cannot be scored, told before inference."""

import json
import math

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances

pytestmark = [
    pytest.mark.lite,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

HEIGHT, WIDTH = 40, 50
BOXES = [[5, 5, 20, 10], [25, 20, 20, 15]]
NO_RLE = {"size": [HEIGHT, WIDTH]}


def polygon(x: float, y: float, width: float, height: float) -> list[float]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def truth() -> dict:
    """Two images with two objects each, of classes 1 and 2."""
    annotations = [
        dict(id=1 + 2 * k + j, image_id=1 + k, category_id=1 + j, bbox=box, iscrowd=0)
        | dict(area=box[2] * box[3], segmentation=[polygon(*box)])
        for k in range(2)
        for j, box in enumerate(BOXES)
    ]
    images = [dict(id=k, file_name=f"{k}.png", height=HEIGHT, width=WIDTH) for k in (1, 2)]
    categories = [dict(id=1, name="red"), dict(id=2, name="blue")]
    return dict(images=images, annotations=annotations, categories=categories)


@pytest.fixture
def evaluator(tmp_path, request):
    """Registers and loads a file, and makes its evaluator."""
    name = request.node.name

    def make(content: dict, tasks=("bbox", "segm"), load: bool = True) -> COCOEvaluator:
        (tmp_path / "gt.json").write_text(json.dumps(content))
        register_coco_instances(name, {}, tmp_path / "gt.json", tmp_path)
        if load:
            DatasetCatalog.get(name)
        return COCOEvaluator(name, tasks=tasks, distributed=False)

    yield make
    DatasetCatalog.pop(name, None)
    MetadataCatalog.pop(name, None)


def perfect_ap(evaluator: COCOEvaluator, classes=(0, 1), image_ids=(1, 2), masks=True) -> dict:
    """AP of detections that equal the truth, by task."""
    evaluator.reset()
    for image_id in image_ids:
        found = Instances((HEIGHT, WIDTH))
        boxes = torch.tensor(BOXES, dtype=torch.float32)
        boxes[:, 2:] += boxes[:, :2]
        found.pred_boxes, found.scores = Boxes(boxes), torch.tensor([0.9, 0.8])
        found.pred_classes = torch.tensor(classes)
        if masks:
            rles = [mask_util.frPyObjects([polygon(*box)], HEIGHT, WIDTH)[0] for box in BOXES]
            found.pred_masks = torch.from_numpy(mask_util.decode(rles).transpose(2, 0, 1)).bool()
        evaluator.process([{"image_id": image_id}], [{"instances": found}])
    return {task: metrics["AP"] for task, metrics in evaluator.evaluate().items()}


PERFECT = {"bbox": pytest.approx(100), "segm": pytest.approx(100)}


@pytest.mark.parametrize(
    "number",
    [lambda k: k, str, lambda k: k + 0.5, lambda k: None, lambda k: -k, lambda k: 2**40 + k],
    ids=["from 0", "text", "float", "null", "negative", "large"],
)
def test_ids_of_annotations_do_not_change_the_precision(evaluator, number):
    content = truth()
    for k, annotation in enumerate(content["annotations"]):
        annotation["id"] = number(k)
    assert perfect_ap(evaluator(content)) == PERFECT


def test_annotations_need_no_id(evaluator):
    content = truth()
    for annotation in content["annotations"]:
        del annotation["id"]
    assert perfect_ap(evaluator(content)) == PERFECT


def test_the_evaluator_tells_annotations_of_one_id_apart(evaluator):
    content = truth()
    for annotation in content["annotations"]:
        annotation["id"] = 1
    made = evaluator(content, load=False)  # the loader refuses it, as that of upstream Detectron2
    assert perfect_ap(made, classes=(1, 2)) == PERFECT


def test_ids_of_categories_may_be_text_and_stay_so_in_results(evaluator, tmp_path):
    content = truth()
    for category in content["categories"]:
        category["id"] = f"c{category['id']}"
    for annotation in content["annotations"]:
        annotation["category_id"] = f"c{annotation['category_id']}"
    made = evaluator(content)
    made._output_dir = str(tmp_path)
    assert perfect_ap(made) == PERFECT
    results = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert [result["category_id"] for result in results] == ["c1", "c2"] * 2


def test_polygons_of_two_points_do_not_count_as_in_training(evaluator):
    content = truth()
    content["annotations"][0]["segmentation"].insert(0, [0.0, 30.0, 9.0, 9.0])
    assert perfect_ap(evaluator(content)) == PERFECT


def test_boxes_need_no_masks(evaluator):
    content = truth()
    for annotation in content["annotations"]:
        annotation["segmentation"] = []
    for tasks in (("bbox",), None):
        assert perfect_ap(evaluator(content, tasks), masks=False) == {"bbox": PERFECT["bbox"]}
    with pytest.raises(ValueError, match=r"annotation 1 of image 1 in .*gt\.json has no segmen"):
        perfect_ap(evaluator(content, None))


RLE = mask_util.encode(np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F"))["counts"].decode()
BROKEN = [
    *(("iscrowd", value, "iscrowd must be 0 or 1") for value in (None, "0", 2, -1, [], math.nan)),
    *(("area", value, "area must be a number") for value in (None, "4", -1, [], math.inf)),
    *(("bbox", value, "bbox must be four") for value in ("1234", [1, 2, 3], ["1", 2, 3, 4], 5)),
    *(("bbox", [1, 1, value, 3], "bbox must be four") for value in (None, math.nan, math.inf)),
    ("bbox", [9, 9, -3, 3], "negative width or height"),
    *(("segmentation", [[0, 0, v, 0, v, v]], "too far") for v in (1e8, 1e9, -1e9, 1e30, math.nan)),
    ("segmentation", [[0, 0, "5", 0, 5, 5]], "something else than numbers"),
    *(("segmentation", value, "has no segmentation") for value in (None, [], {}, [[1, 1, 9, 9]])),
    *(("segmentation", value, "has no segmentation") for value in (polygon(1, 1, 5, 5), [NO_RLE])),
    ("segmentation", {"size": [30, 20], "counts": [600]}, r"of size \[30, 20\], the image of"),
    ("segmentation", {"size": [10**9, 10**9], "counts": [5]}, "of size"),
    ("segmentation", NO_RLE | {"counts": [1, 2]}, "sum to 3 pixels"),
    ("segmentation", NO_RLE | {"counts": [0, 10**7]}, "sum to 10000000 pixels"),
    ("segmentation", NO_RLE | {"counts": "zzzz~~~"}, "damaged"),
    ("segmentation", NO_RLE | {"counts": RLE[:-1]}, "damaged"),
]


@pytest.mark.parametrize("key, value, message", BROKEN, ids=str)
def test_what_cannot_be_scored_is_named_with_annotation_and_file(evaluator, key, value, message):
    content = truth()
    content["annotations"][2] |= {"id": 77, key: value}
    with pytest.raises(ValueError, match=rf"annotation 77 of image 2 in .*gt\.json .*{message}"):
        evaluator(content, load=False)


def test_run_lengths_that_are_whole_are_scored(evaluator):
    content = truth()
    for annotation in content["annotations"]:
        (rle,) = mask_util.frPyObjects(annotation["segmentation"], HEIGHT, WIDTH)
        runs = np.diff(np.flatnonzero(np.diff(mask_util.decode(rle).T.ravel(), prepend=0)))
        first = int(mask_util.decode(rle).T.ravel().argmax())
        counts = [first, *map(int, runs)]
        counts.append(HEIGHT * WIDTH - sum(counts))
        as_list, as_text = counts, rle["counts"].decode()
        annotation["segmentation"] = NO_RLE | {
            "counts": as_list if annotation["category_id"] == 1 else as_text
        }
    assert perfect_ap(evaluator(content)) == PERFECT


@pytest.mark.parametrize("value", ["1", 77])
def test_a_category_that_is_not_in_the_file_is_refused(evaluator, value):
    content = truth()
    content["annotations"][2]["category_id"] = value
    with pytest.raises(
        ValueError, match=r"annotation 3 .*gt\.json cannot be scored: its category_"
    ):
        evaluator(content, load=False)


@pytest.mark.parametrize("load", [True, False])
@pytest.mark.parametrize("key", ["image_id", "category_id"])
@pytest.mark.parametrize("value", [None, [1], {"a": 1}, True])
def test_references_that_are_neither_number_nor_text_are_refused(evaluator, key, value, load):
    content = truth()
    content["annotations"][2][key] = value
    with pytest.raises(ValueError, match=rf"annotations\[2\] in .*gt\.json .* text as '{key}'"):
        evaluator(content, load=load)


@pytest.mark.parametrize("load", [True, False])
@pytest.mark.parametrize("section", ["images", "categories"])
def test_ids_of_numbers_and_text_are_refused(evaluator, section, load):
    content = truth()
    content[section][1]["id"] = "2"
    with pytest.raises(
        ValueError, match=rf"ids of {section} must be all numbers or all text, .*gt"
    ):
        evaluator(content, load=load)
