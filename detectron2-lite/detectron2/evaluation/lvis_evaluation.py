"""LVIS metrics for boxes and masks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from detectron2.data import MetadataCatalog
from detectron2.data.datasets.lvis import read_lvis_file
from detectron2.evaluation.instance_evaluator import InstanceEvaluator
from detectron2.evaluation.scoring import GroundTruth

# Beyond what a data set needs.
_REQUIRED_KEYS = {
    "images": {"neg_category_ids", "not_exhaustive_category_ids"},
    "annotations": {"area", "bbox", "segmentation"},
    "categories": {"frequency"},
}


class LVISEvaluator(InstanceEvaluator):
    """Average precision of boxes and masks by the rules of LVIS.

    A prediction counts only in images where its category is known to be present or absent.
    Predicted classes are category ids of the data set less 1.

    Args:
        dataset_name: registered data set whose metadata names the ground truth (`json_file`).
        tasks: of "bbox" and "segm"; None takes bbox, and segm where predictions have masks.
        distributed: gather the predictions of all ranks on the main process. False: this process
            evaluates what it has processed itself.
        output_dir: folder for `instances_predictions.pth` (classes from 0) and
            `lvis_instances_results.json` (category ids of the data set); None writes nothing.
        max_dets_per_image: predictions per image that count, of all categories together, by score;
            None means 300 as in LVIS.

    Raises:
        KeyError: the ground truth lacks a key that evaluation needs.
        ValueError: unknown task, `max_dets_per_image` below 1, or an annotation of the ground truth
            cannot be scored.

    Reference: Gupta et al. 2019, arXiv 1908.03195.
    """

    rules = "LVIS"
    metrics = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
    ):
        max_dets = 300 if max_dets_per_image is None else max_dets_per_image
        super().__init__(tasks, distributed, output_dir, max_dets)
        self._json_file = MetadataCatalog.get(dataset_name).json_file
        content = read_lvis_file(self._json_file, own=True)
        annotations = content.pop("annotations", [])
        if annotations:
            # As in the package `lvis`: what has no area does not count, and there are no crowds.
            content["annotations"] = [a for a in annotations if a.get("area", 1) > 0]
            for annotation in annotations:
                annotation.pop("iscrowd", None)
        self._ground_truth = GroundTruth(content, self._json_file, _REQUIRED_KEYS, tasks)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Write the result files, compute the metrics and drop the predictions.

        Returns:
            `{"bbox": {"AP": ..., ..., "APr": ..., "APc": ..., "APf": ...}, "segm": {...}}` in
            percent, NaN where undefined. Empty if nothing was processed, and if the ground truth
            has no annotations. None on ranks other than the main process.

        Raises:
            AssertionError: a predicted class is not one of the data set.
            ValueError: an image id is not in the ground truth, or task "segm" has no masks.
        """
        return self._evaluate()

    def _dataset_ids(self) -> Mapping[int, int]:
        return {category_id - 1: category_id for category_id in self._ground_truth.category_ids}

    def _score(
        self, task: str, results: list[dict[str, Any]], img_ids: Sequence[Any] | None
    ) -> tuple[dict[str, float], np.ndarray]:
        best = _best_of_each_image(results, self._max_dets)
        best = [result for result in best if _area(result, task) > 0]
        return self._ground_truth.score(best, task, [self._max_dets], img_ids, lvis=True)


def _best_of_each_image(results: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    seen = Counter()
    best = []
    for result in sorted(results, key=lambda result: result["score"], reverse=True):
        seen[result["image_id"]] += 1
        if seen[result["image_id"]] <= limit:
            best.append(result)
    return best


def _area(result: dict[str, Any], task: str) -> float:
    if task == "segm":
        return mask_util.area(result["segmentation"])
    return result["bbox"][2] * result["bbox"][3]
