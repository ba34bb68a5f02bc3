"""LVIS metrics for boxes and masks, computed by the package `lvis`."""

import contextlib
import itertools
import logging
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from detectron2.data import MetadataCatalog
from detectron2.data.datasets.lvis import read_lvis_file
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table

from .coco_evaluation import InstanceEvaluator

if TYPE_CHECKING:
    from lvis import LVIS

_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")

# What the package reads from the ground truth, beyond what a dataset needs.
_EVALUATION_KEYS = {
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
        max_dets_per_image: predictions per image that count, by score; None means 300 as in LVIS.

    Raises:
        ImportError: the package `lvis` cannot be imported.
        KeyError: the ground truth lacks a key that evaluation needs.
        ValueError: unknown task, or `max_dets_per_image` below 1.

    Reference: Gupta et al. 2019, arXiv 1908.03195.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
    ):
        super().__init__(
            tasks,
            distributed,
            output_dir,
            300 if max_dets_per_image is None else max_dets_per_image,
        )
        self._json_file = MetadataCatalog.get(dataset_name).json_file
        self._ground_truth = _load_ground_truth(self._json_file)

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
        predictions = self._gather()
        if self._distributed and not comm.is_main_process():
            return None
        if not predictions:
            self._logger.warning("LVISEvaluator did not receive valid predictions.")
            return {}
        self._write("instances_predictions.pth", predictions)
        self._logger.info("Preparing results in the LVIS format ...")
        results = list(itertools.chain(*(p["instances"] for p in predictions)))
        self._to_dataset_ids(results)
        self._write("lvis_instances_results.json", results)
        if not self._ground_truth.anns:
            self._logger.info("Annotations are not available for evaluation.")
            return {}
        self._logger.info("Evaluating predictions ...")
        return OrderedDict(
            (task, self._evaluate_task(task, results)) for task in self._tasks_of(results)
        )

    def _to_dataset_ids(self, results: list[dict[str, Any]]) -> None:
        """Turn classes from 0 into category ids from 1, in place, and check all ids."""
        for result in results:
            result["category_id"] += 1
            assert result["category_id"] in self._ground_truth.cats, (
                f"image {result['image_id']} has a prediction of class "
                f"{result['category_id'] - 1}, but {self._json_file} has "
                f"{len(self._ground_truth.cats)} categories; check num_classes of the model"
            )
        self._check_image_ids(results)

    def _evaluate_task(self, task: str, results: list[dict[str, Any]]) -> dict[str, float]:
        if not results:
            self._logger.warning("No predictions from the model!")
            return dict.fromkeys(_METRICS, float("nan"))
        values = _run_lvis_eval(self._ground_truth, results, task, self._max_dets)
        # The package says -1 where a metric is undefined.
        metrics = {
            name: 100 * float(values[name]) if values[name] >= 0 else float("nan")
            for name in _METRICS
        }
        self._logger.info(f"Evaluation results for {task}: \n" + create_small_table(metrics))
        return metrics


def _import_lvis() -> ModuleType:
    try:
        import lvis
    except ImportError as e:
        raise ImportError(
            f"LVISEvaluator needs the package lvis, which cannot be imported ({e}); "
            "pip install lvis, which brings opencv-python and matplotlib along"
        ) from e
    return lvis


def _load_ground_truth(json_file: str | os.PathLike) -> "LVIS":
    content = read_lvis_file(json_file, own=True)
    content = {"annotations": [], "categories": []} | content
    for section, keys in _EVALUATION_KEYS.items():
        for entry in content[section]:
            if missing := keys - entry.keys():
                raise KeyError(
                    f"evaluation needs {min(missing)!r} in each of the {section}, but id "
                    f"{entry['id']} in {json_file} has none"
                )
    return _lvis_api(content)


def _lvis_api(content: dict[str, Any]) -> "LVIS":
    """The package's index over content that is in memory; its constructor would parse a file."""
    lvis = _import_lvis()
    api = object.__new__(lvis.LVIS)
    api.logger = logging.getLogger("lvis.lvis")
    api.dataset = content
    api._create_index()
    return api


def _run_lvis_eval(
    ground_truth: "LVIS", results: list[dict[str, Any]], task: str, max_dets: int
) -> dict[str, float]:
    """Evaluate one task; the summary lines go to stdout, the metrics are shares of 1."""
    lvis = _import_lvis()
    # Without a box the package takes the area of a mask, not of its box, for small/medium/large.
    dropped = "bbox" if task == "segm" else "segmentation"
    detections = [
        {key: value for key, value in result.items() if key != dropped} for result in results
    ]
    # Detections take the place of annotations in a copy, so those need not be copied.
    images_only = _lvis_api(ground_truth.dataset | {"annotations": []})
    with _names_of_old_releases():
        lvis_results = lvis.LVISResults(images_only, detections, max_dets=max_dets)
        lvis_eval = lvis.LVISEval(ground_truth, lvis_results, task)
        lvis_eval.params.max_dets = max_dets
        lvis_eval.run()
        lvis_eval.print_results()
    return lvis_eval.get_results()


@contextlib.contextmanager
def _names_of_old_releases() -> Iterator[None]:
    """Let lvis 0.5.3 use `np.float`, removed in numpy 1.24, and the deprecated `Logger.warn`."""
    added = "float" not in vars(np)
    if added:
        np.float = float
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The 'warn' method is deprecated")
            yield
    finally:
        if added:
            del np.float
