"""COCO metrics and their files, against stored numbers and by hand."""

import contextlib
import json
import math
import re

import golden_data
import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from crowded_scene import crowded_ground_truth, noisy_detections
from log_records import captured, messages
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import (
    COCOEvaluator,
)
from detectron2.structures import Boxes, Instances

# pycocotools 2.0.11 decodes masks by a protocol that numpy 2 has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

_, GOLDEN = golden_data.load("eval")
_, PREDICTIONS = golden_data.load("eval_predictions")
GROUND_TRUTH_FILE = golden_data.GOLDEN / "eval_gt.json"
GROUND_TRUTH = json.loads(GROUND_TRUTH_FILE.read_text())
CATEGORY_IDS = sorted(category["id"] for category in GROUND_TRUTH["categories"])
NAMES = ["person", "dog"]


@contextlib.contextmanager
def registered(json_file, name: str = "small_set"):
    """A COCO data set under `name` with its metadata, removed afterwards."""
    register_coco_instances(name, {}, str(json_file), "")
    try:
        DatasetCatalog.get(name)  # fills the metadata
        yield name
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def dataset():
    with registered(GROUND_TRUTH_FILE, "golden_eval") as name:
        yield name


def to_instances(image: dict, results: list[dict]) -> Instances:
    """Detections of an image from entries of a COCO result list."""
    instances = Instances((image["height"], image["width"]))
    boxes = torch.tensor([r["bbox"] for r in results], dtype=torch.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    instances.pred_boxes = Boxes(boxes.float())
    instances.scores = torch.tensor([r["score"] for r in results])
    classes = [CATEGORY_IDS.index(r["category_id"]) for r in results]
    instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
    masks = [mask_util.decode(r["segmentation"]) for r in results]
    shape = (len(masks), image["height"], image["width"])
    instances.pred_masks = torch.from_numpy(np.array(masks, dtype=bool).reshape(shape))
    return instances


def golden_batches(predictions: list[dict]) -> list[tuple[list[dict], list[dict]]]:
    batches = []
    for image in GROUND_TRUTH["images"]:
        results = [r for r in predictions if r["image_id"] == image["id"]]
        outputs = [{"instances": to_instances(image, results)}]
        batches.append(([{"image_id": image["id"]}], outputs))
    return batches


def run_evaluator(evaluator: COCOEvaluator, batches) -> dict:
    evaluator.reset()
    for inputs, outputs in batches:
        evaluator.process(inputs, outputs)
    return evaluator.evaluate()


def assert_results(actual: dict, expected: dict) -> None:
    assert list(actual) == list(expected)
    for task, metrics in expected.items():
        metrics = {name: math.nan if v == "nan" else v for name, v in metrics.items()}
        assert list(actual[task]) == list(metrics)
        assert dict(actual[task]) == pytest.approx(metrics, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", GOLDEN["runs"])
def test_coco_metrics_equal_stored_results(name, fast, dataset, tmp_path):
    run = GOLDEN["runs"][name]
    arguments = {**run["arguments"], "use_fast_impl": fast}
    evaluator = COCOEvaluator(dataset, distributed=False, output_dir=str(tmp_path), **arguments)
    predictions = [] if name == "no_predictions" else PREDICTIONS
    results = run_evaluator(evaluator, golden_batches(predictions))
    assert_results(results, run["results"])
    assert list(results) == run["task_order"]
    assert sorted(path.name for path in tmp_path.iterdir()) == run["output_files"]


def test_metadata_equals_that_of_the_stored_run(dataset):
    expected = GOLDEN["metadata_after_load"]["thing_classes"]
    assert MetadataCatalog.get(dataset).thing_classes == expected


@pytest.mark.parametrize("max_dets", [100, 200])
def test_summary_lines_on_stdout_hold_the_twelve_stored_numbers(max_dets, dataset, capsys):
    evaluator = COCOEvaluator(
        dataset, distributed=False, use_fast_impl=False, max_dets_per_image=max_dets
    )
    run_evaluator(evaluator, golden_batches(PREDICTIONS))
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith(" Average")]
    values = [line.rpartition("=")[2].strip() for line in lines]
    stats = GOLDEN["stats12"]
    assert values == [f"{value:.3f}" for task in ("bbox", "segm") for value in stats[task]]
    assert lines[0].startswith(" Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=")


@pytest.mark.lite
def test_summary_lines_are_those_of_pycocotools(dataset, capsys):
    truth = COCO(str(GROUND_TRUTH_FILE))
    reference = COCOeval(truth, truth.loadRes([dict(r) for r in PREDICTIONS]), "bbox")
    reference.evaluate()
    reference.accumulate()
    capsys.readouterr()
    reference.summarize()
    expected = capsys.readouterr().out
    evaluator = COCOEvaluator(dataset, ["bbox"], distributed=False)
    run_evaluator(evaluator, golden_batches(PREDICTIONS))
    assert capsys.readouterr().out.endswith(expected)


def test_result_file_equals_the_stored_one(dataset, tmp_path):
    evaluator = COCOEvaluator(
        dataset, distributed=False, output_dir=str(tmp_path), use_fast_impl=False
    )
    run_evaluator(evaluator, golden_batches(PREDICTIONS))
    written = json.loads((tmp_path / "coco_instances_results.json").read_text())
    order = [image["id"] for image in GROUND_TRUTH["images"]]
    expected = sorted(PREDICTIONS, key=lambda result: order.index(result["image_id"]))
    assert len(written) == len(expected)
    for actual, stored in zip(written, expected, strict=True):
        assert list(actual) == list(stored)
        assert actual["bbox"] == pytest.approx(stored["bbox"], rel=1e-6, abs=1e-4)
        assert {**actual, "bbox": None} == {**stored, "bbox": None}


def test_prediction_file_holds_contiguous_classes_for_every_image(dataset, tmp_path):
    evaluator = COCOEvaluator(
        dataset, distributed=False, output_dir=str(tmp_path), use_fast_impl=False
    )
    run_evaluator(evaluator, golden_batches(PREDICTIONS))
    stored = torch.load(tmp_path / "instances_predictions.pth", weights_only=True)
    layout = GOLDEN["runs"]["default"]["instances_predictions.pth"]
    assert [entry["image_id"] for entry in stored] == [i["id"] for i in GROUND_TRUTH["images"]]
    assert all(sorted(entry) == layout["keys"] for entry in stored)
    instances = [instance for entry in stored for instance in entry["instances"]]
    assert all(sorted(instance) == layout["instance_keys"] for instance in instances)
    assert {i["category_id"] for i in instances} <= set(range(len(CATEGORY_IDS)))
    assert {i["category_id"] for i in instances} != {r["category_id"] for r in PREDICTIONS}


@pytest.mark.lite
def test_predictions_are_dropped_after_evaluation(dataset):
    evaluator = COCOEvaluator(dataset, distributed=False)
    run_evaluator(evaluator, golden_batches(PREDICTIONS))
    assert evaluator.evaluate() == {}


@pytest.mark.lite
def test_evaluation_leaves_the_loaded_data_set_as_it_was(dataset):
    before = json.dumps(DatasetCatalog.get(dataset))
    evaluator = COCOEvaluator(dataset, distributed=False)
    run_evaluator(evaluator, golden_batches(PREDICTIONS))
    assert json.dumps(DatasetCatalog.get(dataset)) == before


def test_a_second_round_gives_the_same_results(dataset):
    evaluator = COCOEvaluator(dataset, distributed=False, use_fast_impl=False)
    expected = GOLDEN["runs"]["default"]["results"]
    for _ in range(2):
        assert_results(run_evaluator(evaluator, golden_batches(PREDICTIONS)), expected)


def write_ground_truth(path, **changes):
    """Two images of 100 x 100 with one 20 x 20 person each; category ids 3 and 7."""
    box = [10, 10, 20, 20]
    polygon = [10, 10, 30, 10, 30, 30, 10, 30]
    common = {"category_id": 3, "bbox": box, "segmentation": [polygon], "area": 400, "iscrowd": 0}
    content = {
        "info": {},
        "images": [{"id": i, "file_name": f"{i}.png", "height": 100, "width": 100} for i in (1, 2)],
        "categories": [{"id": 3, "name": NAMES[0]}, {"id": 7, "name": NAMES[1]}],
        "annotations": [{"id": i, "image_id": i, **common} for i in (1, 2)],
    }
    content = {key: value for key, value in (content | changes).items() if value is not None}
    path.write_text(json.dumps(content))
    return path


def detection(box=(10, 10, 30, 30), category=0, masks=False) -> dict:
    instances = Instances((100, 100))
    instances.pred_boxes = Boxes(torch.tensor([box], dtype=torch.float32))
    instances.scores = torch.tensor([0.9])
    instances.pred_classes = torch.tensor([category])
    if masks:
        instances.pred_masks = torch.zeros(1, 100, 100, dtype=torch.bool)
        instances.pred_masks[0, 10:30, 10:30] = True
    return {"instances": instances}


@pytest.fixture
def small(tmp_path):
    with registered(write_ground_truth(tmp_path / "gt.json")) as name:
        yield name


def test_one_of_two_objects_found_exactly_is_half_of_the_precision(small):
    evaluator = COCOEvaluator(small, distributed=False, use_fast_impl=False)
    results = run_evaluator(evaluator, [([{"image_id": 1}], [detection()])])
    # Of 101 recall points those up to 0.5 have precision 1: 51 / 101.
    assert results["bbox"]["AP"] == pytest.approx(100 * 51 / 101)
    assert list(results) == ["bbox"]
    assert math.isnan(results["bbox"]["AP-dog"])


@pytest.mark.lite
def test_img_ids_restrict_the_ground_truth(small):
    evaluator = COCOEvaluator(small, distributed=False, use_fast_impl=False)
    evaluator.process([{"image_id": 1}], [detection()])
    assert evaluator.evaluate(img_ids=[1])["bbox"]["AP"] == pytest.approx(100)


def test_masks_are_evaluated_where_predictions_have_them(small):
    evaluator = COCOEvaluator(small, distributed=False, use_fast_impl=False)
    batches = [([{"image_id": i}], [detection(masks=True)]) for i in (1, 2)]
    results = run_evaluator(evaluator, batches)
    assert results["segm"]["AP"] == results["bbox"]["AP"] == pytest.approx(100)


def test_tasks_come_in_sorted_order(small):
    evaluator = COCOEvaluator(small, ("segm", "bbox"), distributed=False, use_fast_impl=False)
    results = run_evaluator(evaluator, [([{"image_id": 1}], [detection(masks=True)])])
    assert list(results) == ["bbox", "segm"]


@pytest.mark.lite
@pytest.mark.parametrize(("max_dets", "expected"), [(1, 0.0), (2, 100.0)])
def test_a_small_limit_of_detections_counts_the_best_only(max_dets, expected, tmp_path):
    with registered(write_ground_truth(tmp_path / "gt.json")) as name:
        evaluator = COCOEvaluator(name, ["bbox"], distributed=False, max_dets_per_image=max_dets)
        wrong = detection(box=(50, 50, 70, 70))["instances"]
        wrong.scores[:] = 0.95
        both = {"instances": Instances.cat([wrong, detection()["instances"]])}
        evaluator.process([{"image_id": 1}], [both])
        result = evaluator.evaluate(img_ids=[1])["bbox"]["AP"]
    assert result == pytest.approx(expected / 2)  # behind one wrong detection precision is 1/2


def test_without_annotations_only_files_are_written(tmp_path):
    truth = write_ground_truth(tmp_path / "test_dev.json", annotations=None)
    register_coco_instances("test_dev", {}, str(truth), "")
    MetadataCatalog.get("test_dev").set(thing_dataset_id_to_contiguous_id={3: 0, 7: 1})
    try:
        evaluator = COCOEvaluator("test_dev", distributed=False, output_dir=str(tmp_path / "out"))
        with captured("detectron2") as records:
            results = run_evaluator(evaluator, [([{"image_id": 1}], [detection(category=1)])])
    finally:
        DatasetCatalog.remove("test_dev")
        MetadataCatalog.remove("test_dev")
    assert results == {}
    assert "Annotations are not available for evaluation." in messages(records)
    written = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert [entry["category_id"] for entry in written] == [7]


def test_a_data_set_without_json_file_is_converted(tmp_path):
    record = {"file_name": "1.png", "image_id": 1, "height": 100, "width": 100}
    annotation = {"bbox": [10, 10, 30, 30], "bbox_mode": 0, "category_id": 0, "iscrowd": 0}
    DatasetCatalog.register("own", lambda: [{**record, "annotations": [annotation]}])
    MetadataCatalog.get("own").thing_classes = NAMES
    try:
        evaluator = COCOEvaluator(
            "own", ["bbox"], distributed=False, output_dir=str(tmp_path), use_fast_impl=False
        )
        results = run_evaluator(evaluator, [([{"image_id": 1}], [detection()])])
    finally:
        DatasetCatalog.remove("own")
        MetadataCatalog.remove("own")
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert (tmp_path / "own_coco_format.json").exists()


def test_a_data_set_without_json_file_needs_an_output_dir():
    try:
        with pytest.raises(ValueError, match="output_dir must be"):
            COCOEvaluator("no_such_json", distributed=False)
    finally:
        MetadataCatalog.remove("no_such_json")


def test_log_lines_hold_the_tables(small, tmp_path):
    evaluator = COCOEvaluator(small, distributed=False, output_dir=str(tmp_path))
    with captured("detectron2") as records:
        run_evaluator(evaluator, [([{"image_id": 1}], [detection()])])
    text = messages(records)
    assert "Preparing results for COCO format ..." in text
    assert f"Saving results to {tmp_path / 'coco_instances_results.json'}" in text
    assert re.search("Evaluating predictions with (un)?official COCO API...", text)
    table = r"Evaluation results for bbox: \n\| +AP +\| +AP50 +\| +AP75 +\| +APs +\| +APm +\| +APl"
    assert re.search(table, text)
    assert "shown as NaN." in text
    assert re.search(r"Per-category bbox AP: \n\| category +\| AP +\| category +\| AP +\|", text)
    assert re.search(r"\| person +\| 50.495 \| dog +\| nan +\|", text)


def by_pycocotools(truth: COCO, results: list[dict], task: str, max_dets: int) -> dict:
    """The metrics of `COCOEvaluator` from pycocotools' precision."""
    dropped = "bbox" if task == "segm" else None
    detections = [{k: v for k, v in result.items() if k != dropped} for result in results]
    reference = COCOeval(truth, truth.loadRes(detections), task)
    reference.params.maxDets = [1, max_dets // 2, max_dets]
    reference.evaluate()
    reference.accumulate()
    precision = reference.eval["precision"][..., -1]  # (T, R, K, areas)

    def mean(values):
        return 100 * values[values > -1].mean()

    whole = precision[..., 0]
    return {
        **{"AP": mean(whole), "AP50": mean(whole[0]), "AP75": mean(whole[5])},
        **{f"AP{size}": mean(precision[..., i]) for i, size in enumerate("sml", 1)},
        **{f"AP-{c['name']}": mean(whole[:, :, k]) for k, c in enumerate(truth.cats.values())},
    }


@pytest.mark.parametrize(("max_dets", "seed"), [(None, 0), (None, 1), (12, 2)])
def test_every_metric_is_that_of_pycocotools(max_dets, seed, tmp_path):
    random = np.random.RandomState(seed)
    truth = crowded_ground_truth(random, size=360)
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    batches = []
    for image in truth["images"]:
        annotations = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        found = {"instances": noisy_detections(annotations, random, size=360)}
        batches.append(([{"image_id": image["id"]}], [found]))
    with registered(tmp_path / "gt.json") as name:
        evaluator = COCOEvaluator(
            name, distributed=False, output_dir=str(tmp_path), max_dets_per_image=max_dets
        )
        actual = run_evaluator(evaluator, batches)
    results = json.loads((tmp_path / "coco_instances_results.json").read_text())
    index = COCO(str(tmp_path / "gt.json"))
    assert list(actual) == ["bbox", "segm"]
    for task, metrics in actual.items():
        expected = by_pycocotools(index, results, task, max_dets or 100)
        assert all(1 < value < 99 for value in expected.values())
        assert dict(metrics) == pytest.approx(expected, rel=0, abs=1e-12)


@pytest.mark.lite
def test_image_ids_may_be_text(tmp_path):
    truth = json.loads(write_ground_truth(tmp_path / "gt.json").read_text())
    for image in truth["images"]:
        image["id"] = f"image {image['id']}"
    for annotation in truth["annotations"]:
        annotation["image_id"] = f"image {annotation['image_id']}"
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    with registered(tmp_path / "gt.json") as name:
        evaluator = COCOEvaluator(name, distributed=False)
        results = run_evaluator(evaluator, [([{"image_id": "image 1"}], [detection()])])
        assert results["bbox"]["AP"] == pytest.approx(100 * 51 / 101)
        evaluator.process([{"image_id": "image 1"}], [detection()])
        assert evaluator.evaluate(["image 1"])["bbox"]["AP"] == pytest.approx(100)


def test_nothing_processed_gives_no_results(small):
    evaluator = COCOEvaluator(small, distributed=False)
    with captured("detectron2") as records:
        assert run_evaluator(evaluator, []) == {}
    assert [record.levelname for record in records] == ["WARNING"]


def test_an_unknown_class_is_refused(small):
    evaluator = COCOEvaluator(small, distributed=False, use_fast_impl=False)
    with pytest.raises(AssertionError, match="class.*2"):
        run_evaluator(evaluator, [([{"image_id": 1}], [detection(category=2)])])


@pytest.mark.lite
def test_an_image_outside_of_the_ground_truth_is_named(small):
    evaluator = COCOEvaluator(small, distributed=False)
    with pytest.raises(ValueError, match=r"1 images .* not in .*gt\.json, .* image id 5"):
        run_evaluator(evaluator, [([{"image_id": 5}], [detection()])])


@pytest.mark.lite
def test_masks_are_demanded_for_segm(small):
    evaluator = COCOEvaluator(small, ["segm"], distributed=False)
    with pytest.raises(ValueError, match="'segm' needs pred_masks"):
        run_evaluator(evaluator, [([{"image_id": 1}], [detection()])])


def test_an_input_without_image_id_is_refused(small):
    evaluator = COCOEvaluator(small, distributed=False)
    with pytest.raises(KeyError, match="image_id"):
        evaluator.process([{"file_name": "1.png"}], [detection()])


@pytest.mark.lite
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": ["keypoints"]}, r"tasks must be of .*, got \['keypoints'\]"),
        ({"max_dets_per_image": 0}, "max_dets_per_image must be at least 1, got 0"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message, small):
    with pytest.raises(ValueError, match=message):
        COCOEvaluator(small, distributed=False, **arguments)


@pytest.mark.lite
@pytest.mark.parametrize("key", ["area", "iscrowd"])
def test_ground_truth_that_cannot_be_evaluated_is_refused_at_once(key, tmp_path):
    annotation = {"id": 4, "image_id": 1, "category_id": 3, "bbox": [1, 1, 5, 5]}
    annotation |= {"area": 25, "iscrowd": 0}
    del annotation[key]
    truth = write_ground_truth(tmp_path / "gt.json", annotations=[annotation])
    with (
        registered(truth) as name,
        pytest.raises(KeyError, match=rf"4 in .*gt\.json has no '{key}'"),
    ):
        COCOEvaluator(name, distributed=False)


@pytest.mark.lite
def test_a_class_list_that_does_not_fit_the_ground_truth_is_refused(tmp_path):
    truth = write_ground_truth(tmp_path / "gt.json")
    MetadataCatalog.get("misfit").set(json_file=str(truth), thing_classes=["a", "b", "c"])
    MetadataCatalog.get("misfit").thing_dataset_id_to_contiguous_id = {3: 0, 7: 1}
    try:
        evaluator = COCOEvaluator("misfit", distributed=False)
        with pytest.raises(AssertionError, match=r"3 thing_classes, .*gt\.json has 2 categories"):
            run_evaluator(evaluator, [([{"image_id": 1}], [detection()])])
    finally:
        MetadataCatalog.remove("misfit")


@pytest.mark.lite
def test_a_failed_write_leaves_the_earlier_result_file(small, tmp_path, monkeypatch):
    evaluator = COCOEvaluator(small, distributed=False, output_dir=str(tmp_path / "out"))
    batches = [([{"image_id": 1}], [detection()])]
    run_evaluator(evaluator, batches)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def fail(content, file):
        file.write("[{")
        raise OSError("disk full")

    monkeypatch.setattr(json, "dump", fail)
    with pytest.raises(OSError, match="disk full"):
        run_evaluator(evaluator, batches)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def _evaluate_one_half(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    with registered(GROUND_TRUTH_FILE, "golden_eval") as name:
        evaluator = COCOEvaluator(name, ["bbox"], output_dir=folder, use_fast_impl=False)
        results = run_evaluator(evaluator, golden_batches(PREDICTIONS)[rank::2])
    torch.save(dict(results), f"{folder}/results{rank}")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12; no threads here
def test_two_processes_give_the_results_of_one(tmp_path):
    mp.start_processes(_evaluate_one_half, (str(tmp_path),), nprocs=2, start_method="fork")
    results = torch.load(tmp_path / "results0", weights_only=False)
    assert_results(results, GOLDEN["runs"]["bbox_only"]["results"])
    assert torch.load(tmp_path / "results1", weights_only=False) == {}


@pytest.mark.lite
def test_a_name_that_is_left_out_explains_itself():
    with pytest.raises(ImportError, match="COCOPanopticEvaluator is not part of detectron2-lite"):
        from detectron2.evaluation import COCOPanopticEvaluator  # noqa: F401
