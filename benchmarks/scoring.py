"""COCO scoring: pycocotools and faster-coco-eval."""

import contextlib
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.measure import Row, cpu_ms
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Boxes, Instances

_NAME = "benchmark_scoring"
_IMAGES, _OBJECTS, _DETECTIONS, _CLASSES = 250, 8, 80, 20


def measure(repeats: int) -> list[Row]:
    """CPU time of `COCOEvaluator.evaluate` for boxes, predictions kept already."""
    random = np.random.RandomState(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truth.json"
        path.write_text(json.dumps(_ground_truth(random)))
        register_coco_instances(_NAME, {}, str(path), "")
        try:
            DatasetCatalog.get(_NAME)
            detections = {image: _detections(random) for image in range(1, _IMAGES + 1)}
            plain, ours = cpu_ms(
                lambda: _plain(path, detections), lambda: _evaluate(detections), repeats
            )
        finally:
            DatasetCatalog.remove(_NAME)
            MetadataCatalog.remove(_NAME)
    what = f"COCO box scoring, {_IMAGES} images, {_DETECTIONS} detections each"
    return [Row(f"{what}: pycocotools / faster-coco-eval", plain, ours, "ms")]


def _plain(path: Path, detections: dict[int, Instances]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        results = []
        for image_id, instances in detections.items():
            results += instances_to_coco_json(instances, image_id)
        for result in results:
            result["category_id"] += 1
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()


def _evaluate(detections: dict[int, Instances]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOEvaluator(_NAME, ["bbox"], distributed=False)
        for image_id, instances in detections.items():
            evaluator.process([{"image_id": image_id}], [{"instances": instances}])
        evaluator.evaluate()


def _boxes(random: np.random.RandomState, count: int) -> np.ndarray:
    """(count, 4) x, y, width, height inside 640 x 480."""
    sides = np.exp(random.uniform(2, 5.5, (count, 2)))
    return np.concatenate([random.uniform(0, [640, 480] - sides), sides], axis=1)


def _ground_truth(random: np.random.RandomState) -> dict:
    annotations = [
        {
            "id": 1 + index,
            "image_id": 1 + index // _OBJECTS,
            "category_id": int(random.randint(_CLASSES)) + 1,
            "bbox": box.tolist(),
            "area": float(box[2] * box[3]),
            "iscrowd": 0,
        }
        for index, box in enumerate(_boxes(random, _IMAGES * _OBJECTS))
    ]
    images = [
        {"id": i, "file_name": "", "height": 480, "width": 640} for i in range(1, _IMAGES + 1)
    ]
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, _CLASSES + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _detections(random: np.random.RandomState) -> Instances:
    boxes = _boxes(random, _DETECTIONS)
    boxes[:, 2:] += boxes[:, :2]
    return Instances(
        (480, 640),
        pred_boxes=Boxes(boxes),
        scores=torch.from_numpy(random.rand(_DETECTIONS)),
        pred_classes=torch.from_numpy(random.randint(_CLASSES, size=_DETECTIONS)),
    )
