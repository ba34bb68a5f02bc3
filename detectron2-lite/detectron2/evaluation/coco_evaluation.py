"""COCO metrics for boxes and masks."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from detectron2.data.datasets.coco_export import convert_to_coco_json
from detectron2.data.datasets.coco_file import own_entries, read_coco_file
from detectron2.evaluation.coco_results import instances_to_coco_json
from detectron2.evaluation.instance_evaluator import InstanceEvaluator
from detectron2.evaluation.scoring import mean_precision
from detectron2.utils.logger import create_wide_table

__all__ = ["COCOEvaluator", "instances_to_coco_json"]


class COCOEvaluator(InstanceEvaluator):
    """Average precision of boxes and masks by the rules of the COCO challenge.

    Predicted classes are contiguous numbers from 0; they are mapped to the category ids of the data
    set by its metadata entry `thing_dataset_id_to_contiguous_id`, where there is one.

    Args:
        dataset_name: registered data set. Its metadata names the ground truth (`json_file`);
            without it the data set is converted to COCO format under `output_dir`.
        tasks: of "bbox" and "segm"; None takes bbox, and segm where predictions have masks.
        distributed: gather the predictions of all ranks on the main process. False: this process
            evaluates what it has processed itself.
        output_dir: folder for `instances_predictions.pth` (classes from 0) and
            `coco_instances_results.json` (category ids of the data set); None writes nothing.
        max_dets_per_image: predictions per image and category that count, by score; None means 100
            as in COCO.
        use_fast_impl: accepted for compatibility; the fast one, whose numbers are those of
            pycocotools, is the only one.
        kpt_oks_sigmas: accepted for compatibility; keypoints are not evaluated.
        allow_cached_coco: reuse an earlier conversion of a data set without `json_file`.

    Raises:
        KeyError: an annotation of the ground truth has no area or `iscrowd`.
        ValueError: unknown task, `max_dets_per_image` below 1, no `output_dir` for a data set
            without `json_file`, or an annotation of the ground truth cannot be scored.

    Reference: Lin et al. 2014, arXiv 1405.0312, and the metrics of cocodataset.org.
    """

    rules = "COCO"
    metrics = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    required_keys = {"annotations": {"area", "iscrowd"}}
    default_max_dets = 100

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
        use_fast_impl: bool = True,
        kpt_oks_sigmas: Sequence[float] = (),
        allow_cached_coco: bool = True,
    ):
        self._allow_cached = allow_cached_coco
        super().__init__(
            dataset_name, tasks, distributed, output_dir, max_dets_per_image=max_dets_per_image
        )

    def _read_truth(self) -> dict[str, Any]:
        return own_entries(read_coco_file(self._json_file))

    def _ground_truth_file(self) -> str:
        dataset_name, json_file = self._metadata.name, self._metadata.get("json_file")
        if json_file is not None:
            return json_file
        if self._output_dir is None:
            raise ValueError(
                f"data set {dataset_name!r} is not in COCO format (its metadata has no json_file): "
                "output_dir must be given to COCOEvaluator, for the converted ground truth"
            )
        json_file = os.path.join(self._output_dir, f"{dataset_name}_coco_format.json")
        convert_to_coco_json(dataset_name, json_file, allow_cached=self._allow_cached)
        return json_file

    def evaluate(self, img_ids: Sequence[int] | None = None) -> dict[str, dict[str, float]]:
        """Write the result files, compute the metrics and drop the predictions.

        Args:
            img_ids: ids of the images to evaluate on; None takes all of the ground truth.

        Returns:
            `{"bbox": {"AP": ..., "AP50": ..., "AP-<class>": ...}, "segm": {...}}` in percent, NaN
            where undefined. Empty on ranks other than the main process, if nothing was processed,
            and if the ground truth has no annotations.

        Raises:
            AssertionError: a predicted class is not one of the data set.
            ValueError: a task has no predictions of its kind, or an image id is not in the
                ground truth.
        """
        return self._evaluate(img_ids) or {}

    def _dataset_ids(self) -> Mapping[int, int] | None:
        contiguous = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if contiguous is None:
            return None
        return {number: dataset_id for dataset_id, number in contiguous.items()}

    def _more_metrics(self, task: str, precision: np.ndarray) -> dict[str, float]:
        """The precision of each class, where there are several."""
        class_names = self._metadata.get("thing_classes")
        if class_names is None or len(class_names) < 2:
            return {}
        assert len(class_names) == precision.shape[2], (
            f"the metadata has {len(class_names)} thing_classes, "
            f"{self._json_file} has {precision.shape[2]} categories"
        )
        average = {
            # The first area is "all", the last limit is `max_dets_per_image`.
            name: 100 * mean_precision(precision[:, :, k, 0, -1])
            for k, name in enumerate(class_names)
        }
        table = create_wide_table(average.items(), ("category", "AP"), floatfmt=".3f")
        self._logger.info(f"Per-category {task} AP: \n" + table)
        return {f"AP-{name}": value for name, value in average.items()}
