"""LVIS: loading, metadata, repeat-factor sampling and metrics, on a data set made up by hand."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from crowded_scene import CATEGORIES, crowded_ground_truth, noisy_detections

from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_train_loader,
    detection_utils,
    get_detection_dataset_dicts,
)
from detectron2.data.datasets import load_lvis_json, register_lvis_instances
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.evaluation import LVISEvaluator, inference_on_dataset
from detectron2.structures import Boxes, BoxMode, Instances

NAME = "small_lvis"
METRICS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"]
PERFECT = {"AP": 100, "AP50": 100, "AP75": 100, "APs": 100, "APr": 100, "APf": 100}
LVIS_NAMES = {
    "lvis_v1_train": "lvis/lvis_v1_train.json",
    "lvis_v1_val": "lvis/lvis_v1_val.json",
    "lvis_v1_test_dev": "lvis/lvis_v1_image_info_test_dev.json",
    "lvis_v1_test_challenge": "lvis/lvis_v1_image_info_test_challenge.json",
}


@pytest.fixture(autouse=True)
def catalogs_are_left_as_they_were():
    names = set(MetadataCatalog)
    yield
    for name in set(MetadataCatalog) - names:
        MetadataCatalog.pop(name)
        DatasetCatalog.pop(name, None)


def square(x: int, y: int, side: int = 20) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def annotation(id_: int, image_id: int, category_id: int, x: int = 10, y: int = 10) -> dict:
    return {
        **{"id": id_, "image_id": image_id, "category_id": category_id, "area": 400},
        **{"bbox": [x, y, 20, 20], "segmentation": [square(x, y)]},
    }


def content() -> dict:
    """Category 1 is frequent and in all images, 3 is rare and in one, 2 is common and in none."""
    categories = [
        {"id": 3, "name": "c", "synonyms": ["crane"], "frequency": "r", "image_count": 4},
        {
            "id": 1,
            "name": "a",
            "synonyms": ["ant", "pismire"],
            "frequency": "f",
            "image_count": 900,
        },
        {"id": 2, "name": "b", "synonyms": ["bee"], "frequency": "c", "image_count": 25},
    ]
    images = [
        {
            **{"id": i, "height": 100, "width": 100},
            **{"neg_category_ids": [], "not_exhaustive_category_ids": []},
            "coco_url": f"http://images.cocodataset.org/{folder}/{i:04d}.jpg",
        }
        for i, folder in ((8, "train2017"), (4, "val2017"))
    ]
    annotations = [annotation(1, 4, 1), annotation(2, 8, 1), annotation(3, 8, 3, x=60)]
    return {"images": images, "categories": categories, "annotations": annotations}


@pytest.fixture
def write(tmp_path):
    def write(change=lambda value: None, file: str = "lvis.json") -> str:
        value = content()
        change(value)
        (tmp_path / file).write_text(json.dumps(value))
        return str(tmp_path / file)

    return write


@pytest.fixture
def register(write):
    def register(change=lambda value: None) -> str:
        register_lvis_instances(NAME, {}, write(change), "images/")
        return NAME

    return register


# Loading


@pytest.mark.lite
def test_records_follow_the_file(register):
    first, second = DatasetCatalog.get(register())
    assert [first["image_id"], second["image_id"]] == [4, 8]
    assert first["file_name"] == "images/val2017/0004.jpg"
    assert second["file_name"] == "images/train2017/0008.jpg"
    assert (first["height"], first["width"]) == (100, 100)
    assert first["annotations"] == [
        {
            **{"bbox": [10, 10, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0},
            "segmentation": [square(10, 10)],
        }
    ]
    assert [a["category_id"] for a in second["annotations"]] == [0, 2]


def test_lists_of_categories_per_image_keep_the_ids_of_the_file(write):
    def change(value):
        value["images"][0].update(neg_category_ids=[2], not_exhaustive_category_ids=[1, 3])

    record = load_lvis_json(write(change), "")[1]
    assert record["neg_category_ids"] == [2]
    assert record["not_exhaustive_category_ids"] == [1, 3]


@pytest.mark.lite
def test_extra_keys_are_copied_on_request(write):
    record = load_lvis_json(write(), "", extra_annotation_keys=["area", "none"])[0]
    assert record["annotations"][0]["area"] == 400 and "none" not in record["annotations"][0]


@pytest.mark.lite
def test_names_and_counts_come_from_the_file(register):
    DatasetCatalog.get(register())
    metadata = MetadataCatalog.get(NAME)
    assert metadata.thing_classes == ["ant", "bee", "crane"]
    assert metadata.class_image_count == [
        {"id": i, "image_count": n} for i, n in ((1, 900), (2, 25), (3, 4))
    ]
    assert metadata.evaluator_type == "lvis"


@pytest.mark.lite
def test_classes_are_not_known_before_the_file_is_read(register):
    metadata = MetadataCatalog.get(register())
    with pytest.raises(AttributeError, match="small_lvis.*'thing_classes'"):
        _ = metadata.thing_classes


@pytest.mark.lite
def test_weights_of_the_federated_loss_load_the_file_where_needed(register):
    weights = detection_utils.get_fed_loss_cls_weights(register(), 0.5)
    assert weights.tolist() == [30, 5, 2]


@pytest.mark.lite
def test_file_without_image_counts_sets_none(write):
    def change(value):
        del value["categories"][0]["image_count"]

    load_lvis_json(write(change), "", NAME)
    assert MetadataCatalog.get(NAME).get("class_image_count") is None
    with pytest.raises(ValueError, match="class_image_count.*small_lvis"):
        detection_utils.get_fed_loss_cls_weights(NAME)


@pytest.mark.parametrize("name", LVIS_NAMES)
def test_builtin_names_are_registered(name):
    metadata = MetadataCatalog.get(name)
    assert name in DatasetCatalog and metadata.evaluator_type == "lvis"
    assert metadata.json_file.endswith(LVIS_NAMES[name])
    assert metadata.image_root.endswith("coco/")


@pytest.mark.lite
def test_builtin_names_load_from_the_root_of_the_moment(write, tmp_path, monkeypatch):
    (tmp_path / "lvis").mkdir()
    write(file="lvis/lvis_v1_val.json")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    before = MetadataCatalog.get("lvis_v1_val")
    try:
        MetadataCatalog["lvis_v1_val"] = type(before)(name="lvis_v1_val")
        assert DatasetCatalog.get("lvis_v1_val")[0]["file_name"] == (
            f"{tmp_path}/coco/val2017/0004.jpg"
        )
        assert MetadataCatalog.get("lvis_v1_val").thing_classes == ["ant", "bee", "crane"]
    finally:
        MetadataCatalog["lvis_v1_val"] = before


def test_a_taken_name_is_an_error(register):
    register()
    with pytest.raises(AssertionError, match=NAME):
        register()


@pytest.mark.parametrize("polygons", [[], [[1, 1, 2, 2]], [square(1, 1), [1, 1, 5, 1, 5]]])
def test_an_invalid_polygon_is_an_error(write, polygons):
    with pytest.raises(AssertionError):
        load_lvis_json(write(lambda v: v["annotations"][1].update(segmentation=polygons)), "")


@pytest.mark.lite
@pytest.mark.parametrize(
    "change, error, message",
    [
        (
            lambda v: v["annotations"][1].update(segmentation=[[1, 1]]),
            AssertionError,
            r"annotation 2 of image 8 in .*lvis.json must have a 'segmentation' of polygons",
        ),
        (
            lambda v: v["annotations"][1].pop("bbox"),
            KeyError,
            "annotation 2 of image 8 in .*lvis.json has no 'bbox'",
        ),
        (
            lambda v: v["annotations"][1].update(category_id=4),
            KeyError,
            r"annotation 2 of image 8 in .*lvis.json has category_id 4.*1\.\.3",
        ),
        (lambda v: v["images"][0].pop("coco_url"), KeyError, r"images\[0\] \(id 8\).*'coco_url'"),
        (lambda v: v.pop("categories"), KeyError, "lvis.json has no 'categories'.*small_lvis"),
        (
            lambda v: v["categories"].pop(1),
            ValueError,
            "numbered from 1 without a gap, but the 2 categories of .*lvis.json.* from 2 to 3",
        ),
        (
            lambda v: v["annotations"][1].update(id=1),
            AssertionError,
            "lvis.json uses id 1 again: in image 4 and in image 8",
        ),
        (
            lambda v: v["images"][0].update(id="8"),
            ValueError,
            "ids of images must be all numbers or all text, but .*lvis.json",
        ),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(write, change, error, message):
    with pytest.raises(error, match=message):
        load_lvis_json(write(change), "", NAME)


@pytest.mark.lite
def test_annotations_need_no_id(write):
    expected = load_lvis_json(write(), "")
    without = write(lambda v: [each.pop("id") for each in v["annotations"]], "without.json")
    assert load_lvis_json(without, "") == expected


# Sampling


@pytest.mark.lite
def test_images_of_rare_categories_are_repeated(register):
    dicts = get_detection_dataset_dicts(register())
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(dicts, 4.5)
    # Category 1 is in all images, so they repeat sqrt(4.5 / 1) times; 3 in half: sqrt(9) = 3.
    assert factors.tolist() == pytest.approx([math.sqrt(4.5), 3])
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(dicts, 1.0)
    assert factors.tolist() == pytest.approx([1, math.sqrt(2)])
    loader = build_detection_train_loader(
        dicts,
        mapper=lambda record: record["image_id"],
        sampler=RepeatFactorTrainingSampler(torch.tensor([1.0, 3.0]), seed=1),
        total_batch_size=4,
        aspect_ratio_grouping=False,
    )
    for epoch in itertools.islice(loader, 5):
        assert sorted(epoch) == [4, 8, 8, 8]


# Evaluation


@pytest.fixture
def evaluator(register):
    return lambda change=lambda value: None, **options: LVISEvaluator(register(change), **options)


def detections(*found: tuple, masks: bool = False) -> dict:
    """Detections (class, x, y, score) of 20 x 20 squares."""
    instances = Instances((100, 100))
    boxes = [[x, y, x + 20, y + 20] for _, x, y, _ in found]
    instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.pred_classes = torch.tensor([f[0] for f in found], dtype=torch.int64)
    instances.scores = torch.tensor([f[3] for f in found])
    if masks:
        instances.pred_masks = torch.zeros(len(found), 100, 100, dtype=torch.bool)
        for mask, (_, x, y, _) in zip(instances.pred_masks, found, strict=True):
            mask[y : y + 20, x : x + 20] = True
    return {"instances": instances}


FOUR, EIGHT = ((0, 10, 10, 0.9),), ((0, 10, 10, 0.8), (2, 60, 10, 0.7))


def run(evaluator, outputs: dict[int, dict]) -> dict:
    inputs = [[{"image_id": image_id}] for image_id in outputs]
    return inference_on_dataset(lambda batch: [outputs[batch[0]["image_id"]]], inputs, evaluator)


def test_perfect_detections_have_precision_100(evaluator, capsys):
    outputs = {4: detections(*FOUR, masks=True), 8: detections(*EIGHT, masks=True)}
    results = run(evaluator(), outputs)
    assert list(results) == ["bbox", "segm"]
    for metrics in results.values():
        assert list(metrics) == METRICS
        assert {k: metrics[k] for k in PERFECT} == pytest.approx(PERFECT)
    assert "Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all" in capsys.readouterr().out


@pytest.mark.lite
def test_metrics_of_groups_without_an_object_are_undefined(evaluator):
    metrics = run(evaluator(), {4: detections(*FOUR), 8: detections(*EIGHT)})["bbox"]
    assert {k for k, v in metrics.items() if math.isnan(v)} == {"APm", "APl", "APc"}


def test_half_of_the_objects_found_is_half_of_the_precision(evaluator):
    metrics = run(evaluator(), {4: detections(*FOUR), 8: detections((2, 60, 10, 0.7))})["bbox"]
    # Category 1: of 101 recall points those up to 0.5 have precision 1. Category 3 is perfect.
    assert metrics["APf"] == pytest.approx(100 * 51 / 101)
    assert metrics["APr"] == pytest.approx(100)
    assert metrics["AP"] == pytest.approx((100 + 100 * 51 / 101) / 2)


def test_a_box_counts_up_to_its_overlap(evaluator):
    # Shifted by 2 of 20 pixels: IoU 18 / 22 = 0.818 is enough for 7 of the 10 thresholds.
    outputs = {4: detections((0, 12, 10, 0.9)), 8: detections((0, 12, 10, 0.8), (2, 62, 10, 0.7))}
    metrics = run(evaluator(), outputs)["bbox"]
    assert [metrics[k] for k in ("AP", "AP50", "AP75")] == pytest.approx([70, 100, 100])


@pytest.mark.parametrize(
    "lists, expected",
    [
        ({}, 100),  # nothing is known about category 3 in image 4
        ({"neg_category_ids": [3]}, 50),  # it is known to be absent: one of two is wrong
        ({"neg_category_ids": [3], "not_exhaustive_category_ids": [3]}, 100),
    ],
)
def test_a_detection_counts_only_where_its_category_is_known(evaluator, lists, expected):
    outputs = {4: detections(*FOUR, (2, 50, 50, 0.95)), 8: detections(*EIGHT)}
    metrics = run(evaluator(lambda v: v["images"][1].update(lists)), outputs)["bbox"]
    assert metrics["APr"] == pytest.approx(expected)


@pytest.mark.parametrize("limit, expected", [(1, 0), (2, 50), (None, 50)])
def test_only_the_best_detections_of_an_image_count(evaluator, limit, expected):
    outputs = {8: detections((2, 60, 10, 0.7), (2, 10, 50, 0.9))}
    metrics = run(evaluator(max_dets_per_image=limit), outputs)["bbox"]
    assert metrics["APr"] == pytest.approx(expected)


@pytest.mark.parametrize("task, expected", [("bbox", 50), ("segm", 100)])
def test_the_area_of_a_detection_is_that_of_the_task(evaluator, task, expected):
    """A wrong detection counts where its area is medium: its box is, its mask of 2 rows is not."""
    side = {"area": 1600, "bbox": [10, 10, 40, 40], "segmentation": [square(10, 10, 40)]}
    made = evaluator(lambda v: v["annotations"][0].update(side), tasks=[task])
    instances = Instances((100, 100))
    instances.pred_boxes = Boxes(torch.tensor([[10.0, 10, 50, 50], [50, 50, 90, 90]]))
    instances.pred_classes = torch.tensor([0, 0])
    instances.scores = torch.tensor([0.5, 0.9])
    instances.pred_masks = torch.zeros(2, 100, 100, dtype=torch.bool)
    instances.pred_masks[0, 10:50, 10:50] = True
    instances.pred_masks[1, [50, 89], 50:90] = True
    metrics = run(made, {4: {"instances": instances}})[task]
    assert metrics["APm"] == pytest.approx(expected)


def test_without_predictions_all_metrics_are_nan(evaluator):
    results = run(evaluator(), {4: detections(), 8: detections()})
    assert list(results) == ["bbox"] and list(results["bbox"]) == METRICS
    assert all(math.isnan(value) for value in results["bbox"].values())


def test_nothing_processed_gives_no_results(evaluator):
    evaluator = evaluator()
    evaluator.reset()
    assert evaluator.evaluate() == {}


def test_files_hold_classes_from_zero_and_ids_of_the_file(evaluator, tmp_path):
    run(evaluator(output_dir=str(tmp_path / "out")), {8: detections(*EIGHT, masks=True)})
    stored = torch.load(tmp_path / "out/instances_predictions.pth", weights_only=True)
    assert [r["category_id"] for r in stored[0]["instances"]] == [0, 2]
    results = json.loads((tmp_path / "out/lvis_instances_results.json").read_text())
    assert [r["category_id"] for r in results] == [1, 3]
    assert results[1]["bbox"] == [60, 10, 20, 20] and results[1]["image_id"] == 8
    assert results[1]["segmentation"]["size"] == [100, 100]
    assert sorted(results[1]) == ["bbox", "category_id", "image_id", "score", "segmentation"]


def test_without_annotations_only_files_are_written(evaluator, tmp_path):
    made = evaluator(lambda v: v.update(annotations=[]), output_dir=str(tmp_path / "out"))
    assert run(made, {4: detections(*FOUR)}) == {}
    assert (tmp_path / "out/lvis_instances_results.json").exists()


def test_tasks_can_be_chosen(evaluator):
    outputs = {4: detections(*FOUR, masks=True)}
    assert list(run(evaluator(tasks=("segm",)), outputs)) == ["segm"]


@pytest.mark.lite
def test_a_second_round_gives_the_same_results_and_the_records_stay(evaluator):
    made = evaluator()
    before = json.dumps(DatasetCatalog.get(NAME))
    outputs = {4: detections(*FOUR, masks=True), 8: detections(*EIGHT, masks=True)}
    first = run(made, outputs)
    np.testing.assert_equal(run(made, outputs), first)
    assert json.dumps(DatasetCatalog.get(NAME)) == before


@pytest.mark.lite
@pytest.mark.parametrize(
    "output, image_id, error, message",
    [
        (detections((3, 1, 1, 0.5)), 4, AssertionError, "image 4 .*class 3.*has 3 categories"),
        (detections(*FOUR), 5, ValueError, "1 images .*lvis.json.*image id 5"),
    ],
)
def test_predictions_for_another_data_set_are_an_error(evaluator, output, image_id, error, message):
    with pytest.raises(error, match=message):
        run(evaluator(), {image_id: output})


@pytest.mark.lite
def test_missing_masks_and_image_ids_are_an_error(evaluator):
    made = evaluator(tasks=["segm"])
    with pytest.raises(ValueError, match="'segm' needs pred_masks"):
        run(made, {4: detections(*FOUR)})
    with pytest.raises(KeyError, match="'image_id'.*file_name"):
        made.process([{"file_name": "a.jpg"}], [detections()])


@pytest.mark.lite
@pytest.mark.parametrize(
    "change, message",
    [
        (lambda v: v["images"][0].pop("neg_category_ids"), "'neg_category_ids'.*images.*id 8"),
        (lambda v: v["annotations"][2].pop("area"), "'area'.*annotations.*id 3"),
        (lambda v: v["categories"][0].pop("frequency"), "'frequency'.*categories.*id 3"),
    ],
)
def test_ground_truth_that_cannot_be_evaluated_is_refused_at_once(register, change, message):
    with pytest.raises(KeyError, match=f"{message} in .*lvis.json"):
        LVISEvaluator(register(change))


@pytest.mark.lite
def test_wrong_arguments_are_an_error(register):
    with pytest.raises(ValueError, match="tasks .*keypoints"):
        LVISEvaluator(register(), tasks=["keypoints"])
    with pytest.raises(ValueError, match="max_dets_per_image.*0"):
        LVISEvaluator(NAME, max_dets_per_image=0)


def by_lvis(file: str, results: list[dict], task: str, max_dets: int) -> dict[str, float]:
    """The metrics of the package `lvis`."""
    lvis = pytest.importorskip("lvis", exc_type=ImportError)
    dropped = "bbox" if task == "segm" else "segmentation"
    detections = [{k: v for k, v in result.items() if k != dropped} for result in results]
    truth = lvis.LVIS(file)
    found = lvis.LVISResults(truth, detections, max_dets=max_dets)
    reference = lvis.LVISEval(truth, found, task)
    reference.params.max_dets = max_dets
    reference.run()
    return {name: 100 * reference.get_results()[name] for name in METRICS}


@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("max_dets", "seed"), [(None, 0), (None, 1), (7, 2)])
def test_every_metric_is_that_of_the_package_lvis(max_dets, seed, tmp_path, monkeypatch):
    random = np.random.RandomState(seed)
    truth = crowded_ground_truth(random, size=360)
    for position, category in enumerate(truth["categories"]):
        category.update(id=position + 1, frequency="rcf"[position])
    for entry in truth["annotations"]:
        entry["category_id"] = CATEGORIES.index(entry["category_id"]) + 1
        entry["iscrowd"] = 0
    for image in truth["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/val2017/{image['id']}.jpg"
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            image[key] = np.flatnonzero(random.rand(3) < 0.4).tolist()
    file = tmp_path / "lvis.json"
    file.write_text(json.dumps(truth))
    register_lvis_instances(NAME, {}, str(file), "")
    made = LVISEvaluator(NAME, output_dir=str(tmp_path), max_dets_per_image=max_dets)
    outputs = {}
    for image in truth["images"]:
        known = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        known = [{**a, "category_id": CATEGORIES[a["category_id"] - 1]} for a in known]
        outputs[image["id"]] = {"instances": noisy_detections(known, random, size=360)}
    actual = run(made, outputs)
    results = json.loads((tmp_path / "lvis_instances_results.json").read_text())
    monkeypatch.setattr(np, "float", float, raising=False)  # lvis 0.5.3 is older than numpy 1.24
    for task in ("bbox", "segm"):
        expected = by_lvis(str(file), results, task, max_dets or 300)
        assert all(1 < value < 99 for value in expected.values())
        assert dict(actual[task]) == pytest.approx(expected, rel=0, abs=1e-12)
