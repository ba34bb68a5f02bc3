"""LVIS metrics for boxes and masks."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pycocotools.mask as mask_util

from detectron2.data.datasets.coco_file import own_entries, read_coco_file
from detectron2.evaluation.instance_evaluator import InstanceEvaluator


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
    required_keys = {
        "images": {"neg_category_ids", "not_exhaustive_category_ids"},
        "annotations": {"area", "bbox", "segmentation"},
        "categories": {"frequency"},
    }
    default_max_dets = 300

    def _read_truth(self) -> dict[str, Any]:
        content = own_entries(read_coco_file(self._json_file, image_path_key="coco_url"))
        annotations = content.pop("annotations", [])
        if annotations:
            # As in the package `lvis`: what has no area does not count, and there are no crowds.
            content["annotations"] = [a for a in annotations if a.get("area", 1) > 0]
            for annotation in annotations:
                annotation.pop("iscrowd", None)
        return content

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

    def _counted(self, task: str, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        best = _best_of_each_image(results, self._max_dets)
        return [result for result in best if _area(result, task) > 0]


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
