"""An evaluator whose files belong to a run."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from mimdet.evaluation.missed import ap_of_nothing
from mimdet.evaluation.results import write_json
from mimdet.evaluation.truth_file import write_truth_file

_OF_COCO = "coco_instances_results.json"
_WRITTEN = (_OF_COCO, "lvis_instances_results.json")

TRUTH = "instances_truth.json"
"""What `coco_instances_results.json` was scored against, see `write_truth_file`."""


@dataclass(frozen=True)
class Truth:
    """What a run's evaluator knows of its data besides the annotations.

    Attributes:
        json_file: the annotations that are scored against; None if nobody named them.
        image_ids: id in `json_file` -> id in the user's file, where they differ.
        category_ids: likewise.
        class_ids: name of a class -> its category id in `json_file`.
        image_root: folder of the images.
    """

    json_file: str | None = None
    image_ids: Mapping[int, Any] = field(default_factory=dict)
    category_ids: Mapping[int, Any] = field(default_factory=dict)
    class_ids: Mapping[str, int] = field(default_factory=dict)
    image_root: str | None = None


class RunEvaluator(DatasetEvaluator):
    """Another evaluator, with files that say what the user's do and outlive the next evaluation.

    Its predictions get the ids of the user's annotation file, whatever ids the truth that is scored
    against had to have. What an earlier evaluation wrote is kept under a number (`keep_earlier`);
    only `instances_predictions.pth`, which says the same once more, is always that of the newest.
    Without a single detection AP is 0 where there are objects (`ap_of_nothing`).

    Args:
        evaluator: computes the metrics.
        truth: of its dataset.
        results_file: what the caller will write the results to; numbered with the predictions.
        folder: where `evaluator` writes its predictions; None if nowhere.
        adds_masks: whether a model of masks is judged by them though it found nothing.
    """

    def __init__(
        self,
        evaluator: DatasetEvaluator,
        truth: Truth,
        results_file: Path,
        folder: Path | None,
        adds_masks: bool = True,
    ):
        self.evaluator = evaluator
        self._truth = truth
        self._results_file = results_file
        self._folder = folder
        self._adds_masks = adds_masks
        self._has_masks = False

    def reset(self) -> None:
        """Forget all predictions."""
        self.evaluator.reset()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Keep the detections of a batch."""
        self._has_masks |= any(
            "instances" in output and output["instances"].has("pred_masks") for output in outputs
        )
        self.evaluator.process(inputs, outputs)

    def evaluate(self) -> dict[str, Any] | None:
        """The metrics; files are written by the main process."""
        predictions = [self._folder / name for name in _WRITTEN] if self._folder else []
        if comm.is_main_process():
            # Before the evaluator writes its own under the same names.
            keep_earlier([self._results_file, *predictions])
        results = self.evaluator.evaluate()
        if not (comm.is_main_process() and results):
            return results
        for path in predictions:
            if path.exists():
                self._restore_ids(path)
        if self._folder and (self._folder / _OF_COCO).exists() and self._truth.json_file:
            # LVIS has no such file: what its annotators did not look for is no false alarm.
            self._write_truth(self._folder / TRUTH)
        return self._with_zeros(results)

    def _restore_ids(self, path: Path) -> None:
        images, categories = self._truth.image_ids, self._truth.category_ids
        if not (images or categories):
            return
        found = json.loads(path.read_text())
        for detection in found:
            image, category = detection["image_id"], detection["category_id"]
            detection["image_id"] = images.get(image, image)
            detection["category_id"] = categories.get(category, category)
        write_json(found, path)

    def _write_truth(self, path: Path) -> None:
        truth = self._truth
        ids = dict(image_ids=truth.image_ids, category_ids=truth.category_ids)
        write_truth_file(truth.json_file, path, truth.image_root, **ids)

    def _with_zeros(self, results: dict[str, Any]) -> dict[str, Any]:
        metrics = next(iter(results.values()))
        # With objects in the truth, AP is undefined only where nothing was detected.
        is_undefined = isinstance(metrics, Mapping) and math.isnan(metrics.get("AP", 0.0))
        if not (is_undefined and self._truth.json_file):
            return results
        tasks = [*results]
        if self._has_masks and self._adds_masks and "segm" not in tasks:
            tasks.append("segm")
        truth = json.loads(Path(self._truth.json_file).read_text())
        return {t: ap_of_nothing(list(metrics), truth, self._truth.class_ids) for t in tasks}


def keep_earlier(paths: Sequence[Path]) -> None:
    """Give the files of an earlier evaluation a number, the same for all of them.

    ``results.json`` becomes ``results.1.json``, that of the evaluation after it
    ``results.2.json``: the newest has no number.
    """
    existing = [path for path in paths if path.exists()]
    number = 1
    while any(_numbered(path, number).exists() for path in paths):
        number += 1
    for path in existing:
        os.replace(path, _numbered(path, number))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")
