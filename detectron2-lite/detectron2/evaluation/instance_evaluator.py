"""What the evaluators of COCO and LVIS share: they collect detections, check and score them."""

import importlib.metadata
import itertools
import logging
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from detectron2.data import MetadataCatalog
from detectron2.evaluation.coco_results import instances_to_coco_json
from detectron2.evaluation.evaluator import DatasetEvaluator, write_results
from detectron2.evaluation.scoring import GroundTruth
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table

_TASKS = ("bbox", "segm")
_NAMES = {
    **{"AP": "AP_all", "AP50": "AP_50", "AP75": "AP_75"},
    **{"APs": "AP_small", "APm": "AP_medium", "APl": "AP_large"},
    **{"APr": "APr", "APc": "APc", "APf": "APf"},
}


class InstanceEvaluator(DatasetEvaluator):
    """Collects the detections of all ranks, writes them and scores them.

    A subclass says whose rules these are and what the arguments mean.

    Raises:
        ValueError: unknown task, or `max_dets_per_image` below 1.
    """

    rules: str
    """Whose rules and file format they are: "COCO" or "LVIS"."""
    metrics: tuple[str, ...]
    """The names of the metrics of each task."""
    default_max_dets: int
    """`max_dets_per_image` where it is None."""

    required_keys: Mapping[str, set[str]]
    """By section, the keys of the ground truth beyond those that a data set needs."""

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
    ):
        max_dets = self.default_max_dets if max_dets_per_image is None else max_dets_per_image
        if unknown := set(tasks or ()) - set(_TASKS):
            raise ValueError(f"tasks must be of {_TASKS}, got {sorted(unknown)}")
        if max_dets < 1:
            raise ValueError(f"max_dets_per_image must be at least 1, got {max_dets}")
        self._logger = logging.getLogger(type(self).__module__)
        self._metadata = MetadataCatalog.get(dataset_name)
        self._tasks = tasks
        self._distributed = distributed
        self._output_dir = output_dir
        self._max_dets = max_dets
        self._predictions: list[dict[str, Any]] = []
        self._json_file = self._ground_truth_file()
        self._ground_truth = GroundTruth(
            self._read_truth(), self._json_file, self.required_keys, tasks
        )

    def _ground_truth_file(self) -> str:
        return self._metadata.json_file

    def _read_truth(self) -> dict[str, Any]:
        """The content of the file, whose entries may be changed."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget all predictions."""
        self._predictions = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Keep the detections of a batch, encoded.

        Args:
            inputs: dicts with `image_id`.
            outputs: dicts with `instances` (see `instances_to_coco_json`), on any device.

        Raises:
            KeyError: an input has no `image_id`.
        """
        for image, output in zip(inputs, outputs, strict=True):
            if "image_id" not in image:
                raise KeyError(
                    f"{type(self).__name__} needs 'image_id' in each input dict, "
                    f"got the keys {sorted(image)}"
                )
            if "instances" in output:
                instances = output["instances"].to(torch.device("cpu"))
                results = instances_to_coco_json(instances, image["image_id"])
                self._predictions.append({"image_id": image["image_id"], "instances": results})

    def _dataset_ids(self) -> Mapping[int, int] | None:
        """Class of the model -> category id of the data set; None if they are the same."""
        raise NotImplementedError

    def _counted(self, task: str, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The results that count in a task."""
        return results

    def _more_metrics(self, task: str, precision: np.ndarray) -> dict[str, float]:
        """Further metrics of a task, from its precision."""
        return {}

    def _evaluate(self, img_ids: Sequence[Any] | None = None) -> dict[str, dict[str, float]] | None:
        """Write the files and score; None on ranks other than the main process."""
        predictions = self._gather()
        if self._distributed and not comm.is_main_process():
            return None
        if not predictions:
            self._logger.warning(f"{type(self).__name__} did not receive valid predictions.")
            return {}
        write_results(self._output_dir, "instances_predictions.pth", predictions)
        self._logger.info(f"Preparing results for {self.rules} format ...")
        results = list(itertools.chain(*(p["instances"] for p in predictions)))
        # In place, so only now: the file above has the classes of the model, like upstream's.
        self._to_dataset_ids(results)
        write_results(self._output_dir, f"{self.rules.lower()}_instances_results.json", results)
        # A test set, whose results are sent elsewhere: the file is what was wanted.
        if not self._ground_truth.annotated:
            self._logger.info("Annotations are not available for evaluation.")
            return {}
        self._check_image_ids(results)
        version = importlib.metadata.version("faster-coco-eval")
        self._logger.info(
            f"Evaluating predictions with unofficial {self.rules} API... "
            f"(faster-coco-eval {version})"
        )
        return OrderedDict(
            (task, self._evaluate_task(task, results, img_ids)) for task in self._tasks_of(results)
        )

    def _gather(self) -> list[dict[str, Any]]:
        """Hand out the predictions of all ranks (on the main process) and keep none of them.

        Those of a big data set take gigabytes, and nothing needs them later.
        """
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            predictions = list(itertools.chain(*comm.gather(predictions, dst=0)))
        self.reset()
        return predictions

    def _to_dataset_ids(self, results: list[dict[str, Any]]) -> None:
        """Replace classes of the model by category ids of the data set, in place."""
        dataset_ids = self._dataset_ids()
        if dataset_ids is None:
            return
        for result in results:
            number = result["category_id"]
            assert number in dataset_ids, (
                f"image {result['image_id']} has a prediction of class {number}, but the data set "
                f"of {self._json_file} has {len(dataset_ids)} categories, which a model numbers "
                "from 0; check num_classes of the model"
            )
            result["category_id"] = dataset_ids[number]

    def _check_image_ids(self, results: list[dict[str, Any]]) -> None:
        unknown = {result["image_id"] for result in results} - self._ground_truth.image_ids
        if unknown:
            raise ValueError(
                f"{len(unknown)} images with predictions are not in {self._json_file}, for "
                f"instance image id {min(unknown, key=str)!r}; was another data set loaded?"
            )

    def _tasks_of(self, results: list[dict[str, Any]]) -> list[str]:
        has_masks = any("segmentation" in result for result in results)
        if self._tasks is None:
            return ["bbox", "segm"] if has_masks else ["bbox"]
        if "segm" in self._tasks and results and not has_masks:
            raise ValueError("task 'segm' needs pred_masks, the predictions have only boxes")
        return sorted(self._tasks)

    def _evaluate_task(
        self, task: str, results: list[dict[str, Any]], img_ids: Sequence[Any] | None
    ) -> dict[str, float]:
        if not results:
            self._logger.warning("No predictions from the model!")
            return dict.fromkeys(self.metrics, math.nan)
        shares, precision = self._ground_truth.score(
            self._counted(task, results), task, self._max_dets, img_ids, lvis=self.rules == "LVIS"
        )
        values = {name: shares[_NAMES[name]] for name in self.metrics}
        # -1 where there is nothing to be found.
        metrics = {k: 100 * value if value >= 0 else math.nan for k, value in values.items()}
        self._logger.info(f"Evaluation results for {task}: \n" + create_small_table(metrics))
        if any(map(math.isnan, metrics.values())):
            self._logger.info("Metrics that are undefined for these data are shown as NaN.")
        return metrics | self._more_metrics(task, precision)
