"""The evaluator of a run: ids of the user's file, no file lost, AP 0 for no detections."""

import json
import math

import pytest
import torch

from detectron2.structures import Instances
from mimdet.evaluation.missed import ap_of_nothing
from mimdet.evaluation.run_evaluator import RunEvaluator, Truth, keep_earlier

NAN = pytest.approx(math.nan, nan_ok=True)


class Fake:
    """Writes what a COCOEvaluator would, and reports the given metrics."""

    def __init__(self, folder, detections=(), metrics=None):
        self.folder, self.detections, self.metrics = folder, list(detections), metrics

    def reset(self):
        self.was_reset = True

    def process(self, inputs, outputs):
        self.seen = (inputs, outputs)

    def evaluate(self):
        path = self.folder / "coco_instances_results.json"
        path.write_text(json.dumps(self.detections))
        return {"bbox": self.metrics or {"AP": 1.0}}


def detection(image_id, category_id) -> dict:
    return {"image_id": image_id, "category_id": category_id, "bbox": [1, 2, 3, 4], "score": 0.5}


def predictions(folder, name="coco_instances_results.json") -> list[dict]:
    return json.loads((folder / name).read_text())


# --- ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "images, categories, expected",
    [
        ({7: "img-7"}, {}, ("img-7", 2)),
        ({}, {2: "red"}, (7, "red")),
        ({7: 7.5}, {2: "2"}, (7.5, "2")),
        ({8: "other"}, {}, (7, 2)),
    ],
)
def test_predictions_have_the_ids_of_the_users_file(tmp_path, images, categories, expected):
    truth = Truth(image_ids=images, category_ids=categories)
    evaluator = Fake(tmp_path, [detection(7, 2)])
    RunEvaluator(evaluator, truth, tmp_path / "results.json", tmp_path).evaluate()
    assert predictions(tmp_path) == [detection(*expected)]


# --- earlier files --------------------------------------------------------------------------------


def test_an_evaluation_never_overwrites_the_files_of_an_earlier_one(tmp_path):
    for number in range(3):
        evaluator = Fake(tmp_path, [detection(number, 1)])
        RunEvaluator(evaluator, Truth(), tmp_path / "results.json", tmp_path).evaluate()
        (tmp_path / "results.json").write_text(str(number))
    names = ["results.1.json", "results.2.json", "results.json"]
    assert [(tmp_path / name).read_text() for name in names] == ["0", "1", "2"]
    names = [f"coco_instances_{name}" for name in names]
    assert [predictions(tmp_path, name)[0]["image_id"] for name in names] == [0, 1, 2]


def test_files_of_one_evaluation_get_one_number_though_some_are_missing(tmp_path):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text("1")
    keep_earlier([first, second])
    first.write_text("2"), second.write_text("2")
    keep_earlier([first, second])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a.1.json": "1",
        "a.2.json": "2",
        "b.2.json": "2",
    }


def test_an_evaluation_that_fails_loses_nothing(tmp_path):
    class Failing(Fake):
        def evaluate(self):
            raise ValueError("no")

    (tmp_path / "results.json").write_text("first")
    with pytest.raises(ValueError, match="no"):
        RunEvaluator(Failing(tmp_path), Truth(), tmp_path / "results.json", tmp_path).evaluate()
    assert (tmp_path / "results.1.json").read_text() == "first"


# --- no detections --------------------------------------------------------------------------------

CONTENT = {
    "categories": [{"id": 3, "frequency": "r"}, {"id": 5, "frequency": "f"}, {"id": 8}],
    "annotations": [
        {"category_id": 3, "area": 32**2, "iscrowd": 0},  # small and medium
        {"category_id": 5, "area": 40**2},
        {"category_id": 8, "area": 200**2, "iscrowd": 1},  # no object to be found
    ],
}
CLASSES = {"red": 3, "blue": 5, "green": 8}


def test_ap_without_detections_is_0_where_there_are_objects():
    names = ("AP", "AP50", "APs", "APm", "APl", "APr", "APc", "APf")
    assert ap_of_nothing(names, CONTENT, CLASSES) == {
        **{"AP": 0, "AP50": 0, "APs": 0, "APm": 0, "APl": NAN, "APr": 0, "APc": NAN, "APf": 0},
        **{"AP-red": 0, "AP-blue": 0, "AP-green": NAN},
    }


def test_ap_without_objects_stays_undefined():
    crowd = {**CONTENT, "annotations": CONTENT["annotations"][2:]}
    assert ap_of_nothing(["AP"], crowd, {"green": 8}) == {"AP": NAN}


def with_nothing(masks: bool) -> list[dict]:
    instances = Instances((4, 4))
    if masks:
        instances.pred_masks = torch.zeros(0, 4, 4)
    return [{"instances": instances}]


@pytest.mark.parametrize(
    "masks, adds_masks, tasks",
    [(False, True, ["bbox"]), (True, True, ["bbox", "segm"]), (True, False, ["bbox"])],
)
def test_a_run_without_detections_has_ap_0_for_boxes_and_masks(tmp_path, masks, adds_masks, tasks):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(CONTENT))
    truth = Truth(json_file=str(path), class_ids={"red": 3})
    inner = Fake(tmp_path, metrics={"AP": math.nan, "APl": math.nan})
    evaluator = RunEvaluator(inner, truth, tmp_path / "results.json", tmp_path, adds_masks)
    evaluator.reset()
    evaluator.process([{}], with_nothing(masks))
    assert inner.was_reset and inner.seen
    assert evaluator.evaluate() == {task: {"AP": 0, "APl": NAN} for task in tasks}


@pytest.mark.parametrize("metrics", [{"AP": 3.0, "APl": math.nan}, {"top1": math.nan}])
def test_metrics_of_detections_and_of_other_tasks_stay_as_they_are(tmp_path, metrics):
    truth = Truth(json_file=str(tmp_path / "not_read.json"))
    inner = Fake(tmp_path, metrics=metrics)
    results = RunEvaluator(inner, truth, tmp_path / "results.json", None).evaluate()
    assert results["bbox"] is metrics
