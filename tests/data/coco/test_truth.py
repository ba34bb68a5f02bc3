"""Detections that equal the objects score 100, whatever the file does to its ids and fields."""

import json
from pathlib import Path

import coco_files
import pytest
import torch
from coco_files import HEIGHT, WIDTH, changed, sound
from pycocotools.coco import COCO

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances, PolygonMasks
from mimdet.data.datasets import load_coco_folder

NAME = "test_truth"


@pytest.fixture(autouse=True)
def _own_catalogs(tmp_path, monkeypatch):
    with coco_files.own_catalogs(tmp_path, monkeypatch, NAME):
        yield


@pytest.fixture
def load(tmp_path):
    (tmp_path / "images").mkdir()

    def load_content(content, **options):
        path = coco_files.write(tmp_path, content)
        return load_coco_folder(
            NAME, path, str(tmp_path / "images"), **{"filter_empty": False, **options}
        )

    return load_content


def perfect(record: dict) -> Instances:
    """Detections that are the objects of an image."""
    objects = [a for a in record["annotations"] if not a["iscrowd"]]
    boxes = torch.tensor([a["bbox"] for a in objects]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    instances = Instances((HEIGHT, WIDTH))
    instances.pred_boxes = Boxes(boxes)
    instances.scores = torch.full((len(objects),), 0.9)
    instances.pred_classes = torch.tensor([a["category_id"] for a in objects], dtype=torch.long)
    if all("segmentation" in a for a in objects):
        masks = [PolygonMasks([a["segmentation"]]) for a in objects]
        # one cell per pixel of a square, of which the image is a part
        side = max(WIDTH, HEIGHT)
        square = torch.tensor([[0.0, 0.0, side, side]])
        instances.pred_masks = torch.cat(
            [m.crop_and_resize(square, side)[:, :HEIGHT, :WIDTH] for m in masks]
        )
    return instances


def evaluate(records: list[dict], tasks=("bbox", "segm")) -> dict:
    evaluator = COCOEvaluator(NAME, tasks=tasks)
    evaluator.reset()
    for record in records:
        evaluator.process([{"image_id": record["image_id"]}], [{"instances": perfect(record)}])
    return evaluator.evaluate()


def _text_ids(content):
    for image in content["images"]:
        image["id"] = f"img-{image['id']}"
    for annotation in content["annotations"]:
        annotation["image_id"] = f"img-{annotation['image_id']}"


def _text_categories(content):
    for entry, key in [(c, "id") for c in content["categories"]] + [
        (a, "category_id") for a in content["annotations"]
    ]:
        entry[key] = str(entry[key])


def _two_points_beside(content):
    content["annotations"][0]["segmentation"].insert(0, [8.0, 8.0, 20.0, 20.0])


def _from_zero(content):
    for annotation in content["annotations"]:
        annotation["id"] -= 1


def _same_name(content):
    content["categories"][1]["name"] = "red"


def _no_area(content):
    for annotation in content["annotations"]:
        del annotation["area"], annotation["iscrowd"]


@pytest.mark.parametrize(
    "change",
    [_from_zero, _text_ids, _text_categories, _two_points_beside, _same_name, _no_area],
)
def test_perfect_detections_have_precision_100(load, change):
    content = sound()
    change(content)
    results = evaluate(load(content))
    assert results["bbox"]["AP"] == pytest.approx(100) == results["segm"]["AP"]
    assert sum(key.startswith("AP-") for key in results["bbox"]) == 2


def test_a_sound_file_is_the_truth_itself_and_nothing_is_written(load, tmp_path):
    load(sound())
    assert MetadataCatalog.get(NAME).json_file == str(tmp_path / "instances.json")
    assert not (tmp_path / "cache").exists()


def test_the_truth_of_a_repaired_file_is_sound_coco(load):
    content = sound()
    _from_zero(content)
    content["annotations"][1]["iscrowd"] = None
    load(content)
    truth = MetadataCatalog.get(NAME).json_file
    api = COCO(truth)
    assert sorted(api.anns) == [1, 2, 3, 4, 5, 6]
    assert {a["iscrowd"] for a in api.anns.values()} == {0}
    assert api.imgs[1]["file_name"] == "1.png"
    before = Path(truth).read_bytes()
    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.remove(NAME)
    load(content)
    assert MetadataCatalog.get(NAME).json_file == truth and Path(truth).read_bytes() == before


def test_what_is_left_out_of_training_is_left_out_of_the_truth(load):
    records = load(changed("annotations", "bbox", [8.0, 8.0, 0.0, 16.0], slice(1)))
    assert [len(record["annotations"]) for record in records] == [1, 2, 2]
    truth = json.loads(Path(MetadataCatalog.get(NAME).json_file).read_text())
    assert len(truth["annotations"]) == 5


def test_missing_masks_can_be_rectangles(load):
    content = changed("annotations", "segmentation", None, slice(2))
    records = load(content, missing_masks="rectangle")
    assert records[0]["annotations"][0]["segmentation"] == [coco_files.rectangle(8, 8, 24, 16)]
    assert evaluate(records)["segm"]["AP"] == pytest.approx(100)


def test_missing_masks_can_make_a_dataset_of_boxes(load):
    content = changed("annotations", "segmentation", None, slice(2))
    records = load(content, missing_masks="boxes")
    assert not any("segmentation" in a for record in records for a in record["annotations"])
    assert evaluate(records, tasks=("bbox",))["bbox"]["AP"] == pytest.approx(100)


def test_another_word_for_missing_masks_is_refused(load):
    with pytest.raises(ValueError, match="missing_masks must be one of .*got 'circle'"):
        load(sound(), missing_masks="circle")


def test_what_is_refused_is_told_all_at_once_and_registers_nothing(load):
    content = changed("annotations", "iscrowd", "perhaps", slice(1))
    content["images"][1]["file_name"] = None
    with pytest.raises(ValueError) as e:
        load(content)
    assert "annotations have an iscrowd without a meaning (1: " in str(e.value)
    assert "images have a file_name that is no text (1: " in str(e.value)
    assert NAME not in DatasetCatalog.list()


def test_repairs_are_told_once_per_kind(load, caplog):
    load(changed("annotations", "iscrowd", None))
    warnings = [r.getMessage() for r in caplog.records if r.name == "mimdet.data.coco.problems"]
    assert len(warnings) == 1
    assert "annotations have an iscrowd that is neither 0 nor 1 (6, first" in warnings[0]
    load(changed("annotations", "iscrowd", None))
    assert len(caplog.records) == len({r.getMessage() for r in caplog.records})


def test_one_name_has_one_way_with_missing_masks(load):
    content = changed("annotations", "segmentation", None, slice(2))
    load(content, missing_masks="boxes")
    with pytest.raises(ValueError, match="or with another missing_masks"):
        load(content, missing_masks="rectangle")


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_a_truth_that_cannot_be_written_leaves_nothing_behind(load, step, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, full)
    with pytest.raises(OSError, match="No space left"):
        load(changed("annotations", "id", 0))
    assert list((tmp_path / "cache/mimdet").iterdir()) == []
    assert NAME not in DatasetCatalog.list()
