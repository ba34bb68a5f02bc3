"""COCO metrics for boxes and masks."""

import importlib.metadata
import importlib.util
import itertools
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_json, load_coco_api
from detectron2.structures import BoxMode, Instances, ROIMasks
from detectron2.utils import comm
from detectron2.utils.file_io import atomic_write
from detectron2.utils.logger import create_small_table, create_wide_table, log_first_n

from .evaluator import DatasetEvaluator

_TASKS = ("bbox", "segm")
_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class InstanceEvaluator(DatasetEvaluator):
    """Collects the detections of all ranks: what the evaluators of boxes and masks share.

    A subclass sets `_json_file` and `_ground_truth`, an index with the images by id in `imgs`.

    Args:
        tasks: of "bbox" and "segm"; None takes bbox, and segm where predictions have masks.
        distributed: gather the predictions of all ranks on the main process.
        output_dir: folder for result files; None writes nothing.
        max_dets: predictions per image that count, by score.

    Raises:
        ValueError: unknown task, or `max_dets` below 1.
    """

    _json_file: str
    _ground_truth: Any

    def __init__(
        self, tasks: Sequence[str] | None, distributed: bool, output_dir: str | None, max_dets: int
    ):
        if unknown := set(tasks or ()) - set(_TASKS):
            raise ValueError(f"tasks must be of {_TASKS}, got {sorted(unknown)}")
        if max_dets < 1:
            raise ValueError(f"max_dets_per_image must be at least 1, got {max_dets}")
        self._logger = logging.getLogger(type(self).__module__)
        self._tasks = tasks
        self._distributed = distributed
        self._output_dir = output_dir
        self._max_dets = max_dets
        self._predictions: list[dict[str, Any]] = []

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

    def _write(self, name: str, content: list[dict[str, Any]]) -> None:
        """Write a result file, whole or not at all: JSON, or by torch."""
        if not self._output_dir:
            return
        os.makedirs(self._output_dir, exist_ok=True)
        path = os.path.join(self._output_dir, name)
        if name.endswith(".json"):
            self._logger.info(f"Saving results to {path}")
            with atomic_write(path) as f:
                json.dump(content, f)
        else:
            with atomic_write(path, "wb") as f:
                torch.save(content, f)

    def _check_image_ids(self, results: list[dict[str, Any]]) -> None:
        unknown = {result["image_id"] for result in results} - self._ground_truth.imgs.keys()
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
        max_dets_per_image: predictions per image that count, by score; None means 100 as in COCO.
        use_fast_impl: evaluate with the package faster-coco-eval, which gives the same numbers,
            where it is installed and image ids are integers; otherwise with pycocotools. The log
            says which one evaluates.
        kpt_oks_sigmas: accepted for compatibility; keypoints are not evaluated.
        allow_cached_coco: reuse an earlier conversion of a data set without `json_file`.

    Raises:
        KeyError: an annotation of the ground truth has no area or `iscrowd`.
        ValueError: unknown task, `max_dets_per_image` below 1, or no `output_dir` for a data set
            without `json_file`.

    Reference: Lin et al. 2014, arXiv 1405.0312, and the metrics of cocodataset.org.
    """

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
        super().__init__(
            tasks,
            distributed,
            output_dir,
            100 if max_dets_per_image is None else max_dets_per_image,
        )
        self._metadata = MetadataCatalog.get(dataset_name)
        self._json_file = self._ground_truth_file(dataset_name, allow_cached_coco)
        self._ground_truth = load_coco_api(self._json_file)
        self._check_ground_truth()
        self._use_fast_impl = use_fast_impl and self._can_be_fast()

    def _ground_truth_file(self, dataset_name: str, allow_cached: bool) -> str:
        json_file = self._metadata.get("json_file")
        if json_file is not None:
            return json_file
        if self._output_dir is None:
            raise ValueError(
                f"data set {dataset_name!r} is not in COCO format (its metadata has no json_file): "
                "output_dir must be given to COCOEvaluator, for the converted ground truth"
            )
        json_file = os.path.join(self._output_dir, f"{dataset_name}_coco_format.json")
        convert_to_coco_json(dataset_name, json_file, allow_cached=allow_cached)
        return json_file

    def _can_be_fast(self) -> bool:
        if importlib.util.find_spec("faster_coco_eval") is None:
            log_first_n(
                logging.INFO,
                "pycocotools evaluates; the package faster-coco-eval would do so several times as "
                "fast (pip install 'detectron2[fast]')",
                name=__name__,
                key="message",
            )
            return False
        return all(isinstance(image_id, int) for image_id in self._ground_truth.imgs)

    def _check_ground_truth(self) -> None:
        """Refuse at once what pycocotools would stumble over after hours of inference."""
        for annotation in self._ground_truth.anns.values():
            if missing := {"area", "iscrowd"} - annotation.keys():
                raise KeyError(
                    f"evaluation needs 'area' and 'iscrowd' in each annotation, but annotation "
                    f"{annotation['id']} in {self._json_file} has no {min(missing)!r}"
                )

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
        predictions = self._gather()
        if not comm.is_main_process() and self._distributed:
            return {}
        if not predictions:
            self._logger.warning("COCOEvaluator did not receive valid predictions.")
            return {}
        self._write("instances_predictions.pth", predictions)
        results = list(itertools.chain(*(p["instances"] for p in predictions)))
        return self._evaluate_results(results, img_ids)

    def _evaluate_results(
        self, results: list[dict[str, Any]], img_ids: Sequence[int] | None
    ) -> dict[str, dict[str, float]]:
        self._logger.info("Preparing results for COCO format ...")
        self._to_dataset_ids(results)
        self._write("coco_instances_results.json", results)
        if "annotations" not in self._ground_truth.dataset:
            self._logger.info("Annotations are not available for evaluation.")
            return {}
        self._check_image_ids(results)
        kind, package = (
            ("unofficial", "faster-coco-eval")
            if self._use_fast_impl
            else ("official", "pycocotools")
        )
        version = importlib.metadata.version(package)
        self._logger.info(f"Evaluating predictions with {kind} COCO API... ({package} {version})")
        return OrderedDict(
            (task, self._evaluate_task(task, results, img_ids)) for task in self._tasks_of(results)
        )

    def _to_dataset_ids(self, results: list[dict[str, Any]]) -> None:
        """Replace contiguous classes by the category ids of the data set, in place."""
        contiguous = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if contiguous is None:
            return
        dataset_ids = {number: dataset_id for dataset_id, number in contiguous.items()}
        for result in results:
            number = result["category_id"]
            assert number in dataset_ids, (
                f"image {result['image_id']} has a prediction of class {number}, but data set "
                f"{self._metadata.get('name')!r} has {len(dataset_ids)} classes, numbered from 0; "
                "check num_classes of the model"
            )
            result["category_id"] = dataset_ids[number]

    def _evaluate_task(
        self, task: str, results: list[dict[str, Any]], img_ids: Sequence[int] | None
    ) -> dict[str, float]:
        if not results:
            self._logger.warning("No predictions from the model!")
            return dict.fromkeys(_METRICS, float("nan"))
        coco_eval = _run_coco_eval(
            self._ground_truth, results, task, self._max_dets, img_ids, self._use_fast_impl
        )
        metrics = {
            name: float(100 * value) if value >= 0 else float("nan")
            for name, value in zip(_METRICS, coco_eval.stats, strict=False)
        }
        self._logger.info(f"Evaluation results for {task}: \n" + create_small_table(metrics))
        if any(np.isnan(value) for value in metrics.values()):
            self._logger.info("Some metrics cannot be computed and is shown as NaN.")
        class_names = self._metadata.get("thing_classes")
        if class_names is not None and len(class_names) > 1:
            metrics.update(self._per_class(task, coco_eval, class_names))
        return metrics

    def _per_class(
        self, task: str, coco_eval: COCOeval, class_names: Sequence[str]
    ) -> dict[str, float]:
        precision = coco_eval.eval["precision"]  # (T, R, K, areas, max_dets)
        assert len(class_names) == precision.shape[2], (
            f"the metadata has {len(class_names)} thing_classes, "
            f"{self._json_file} has {precision.shape[2]} categories"
        )
        average = {
            name: float(100 * _mean_where_defined(precision[:, :, k, 0, -1], float("nan")))
            for k, name in enumerate(class_names)
        }
        table = create_wide_table(average.items(), ("category", "AP"), floatfmt=".3f")
        self._logger.info(f"Per-category {task} AP: \n" + table)
        return {f"AP-{name}": value for name, value in average.items()}


def instances_to_coco_json(instances: Instances, img_id: int) -> list[dict[str, Any]]:
    """Detections of one image as entries of a COCO result list.

    Args:
        instances: N detections on the CPU with `pred_boxes`, `scores`, `pred_classes` and
            optionally `pred_masks`, (N, H, W), zeros and ones of any type, or ROIMasks, which are
            encoded without bitmaps of the image.
        img_id: id of the image.

    Returns:
        N dicts with `image_id`, `category_id` (the class as it is), `bbox` (x, y, width, height),
        `score` and, where there are masks, `segmentation` (run lengths as text).
    """
    if len(instances) == 0:
        return []
    boxes = BoxMode.convert(instances.pred_boxes.tensor, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    columns = zip(
        instances.pred_classes.tolist(), boxes.tolist(), instances.scores.tolist(), strict=True
    )
    results = [
        {"image_id": img_id, "category_id": category, "bbox": box, "score": score}
        for category, box, score in columns
    ]
    if instances.has("pred_masks"):
        for result, rle in zip(results, _encode_masks(instances), strict=True):
            result["segmentation"] = rle
    return results


def _encode_masks(instances: Instances) -> list[dict[str, Any]]:
    """Run-length encode the masks of N instances, all in one call."""
    masks = instances.pred_masks
    if isinstance(masks, ROIMasks):
        rles = masks.to_rle(instances.pred_boxes, *instances.image_size)
    else:
        rles = mask_util.encode(np.asfortranarray(masks.permute(1, 2, 0).numpy(), dtype=np.uint8))
    for rle in rles:
        rle["counts"] = rle["counts"].decode("ascii")  # json cannot hold bytes
    return rles


def _run_coco_eval(
    ground_truth: COCO,
    results: list[dict[str, Any]],
    task: str,
    max_dets: int,
    img_ids: Sequence[int] | None,
    fast: bool,
) -> COCOeval:
    """Evaluate one task; the 12 summary lines go to stdout, the numbers are in `.stats`."""
    # Without a box pycocotools takes the area of a mask, not of its box, for small/medium/large.
    dropped = "bbox" if task == "segm" else None
    detections = [
        {key: value for key, value in result.items() if key != dropped} for result in results
    ]
    implementation = COCOeval
    if fast:
        from faster_coco_eval import COCOeval_faster as implementation
    evaluation_class = type("_COCOEval", (_SummaryOfAnyLimit, implementation), {})
    coco_eval = evaluation_class(ground_truth, ground_truth.loadRes(detections), task)
    # Sorted by pycocotools: a limit below 10 must stay the last one.
    coco_eval.params.maxDets = [min(1, max_dets), min(10, max_dets), max_dets]
    if img_ids is not None:
        coco_eval.params.imgIds = list(img_ids)
    coco_eval.evaluate()
    coco_eval.accumulate()
    coco_eval.summarize()
    return coco_eval


class _SummaryOfAnyLimit:
    """Mixed into COCOeval: a summary that holds for any limit of detections.

    The original looks for 100 detections in its first line, and reports -1 for another limit.
    """

    def summarize(self) -> None:
        """Print the 12 lines and set `stats`: six precisions, six recalls, -1 if undefined."""
        small_medium_large = ("small", "medium", "large")
        stats = [self._precision(), self._precision(iou=0.5), self._precision(iou=0.75)]
        stats += [self._precision(area=area) for area in small_medium_large]
        stats += [self._recall(limit=limit) for limit in range(3)]
        stats += [self._recall(area=area) for area in small_medium_large]
        self.stats = np.array(stats)

    def _precision(self, iou: float | None = None, area: str = "all") -> float:
        values = self.eval["precision"][..., self.params.areaRngLbl.index(area), -1]
        if iou is not None:
            values = values[np.isclose(self.params.iouThrs, iou)]
        return self._report("Average Precision", "(AP)", iou, area, -1, values)

    def _recall(self, limit: int = -1, area: str = "all") -> float:
        values = self.eval["recall"][..., self.params.areaRngLbl.index(area), limit]
        return self._report("Average Recall", "(AR)", None, area, limit, values)

    def _report(
        self, title: str, short: str, iou: float | None, area: str, limit: int, values: np.ndarray
    ) -> float:
        first, last = self.params.iouThrs[[0, -1]]
        iou_text = f"{first:.2f}:{last:.2f}" if iou is None else f"{iou:.2f}"
        mean = _mean_where_defined(values, -1.0)
        print(
            f" {title:<18} {short} @[ IoU={iou_text:<9} | area={area:>6} | "
            f"maxDets={self.params.maxDets[limit]:>3} ] = {mean:.3f}"
        )
        return mean


def _mean_where_defined(values: np.ndarray, otherwise: float) -> float:
    """Mean of the entries that are not -1, which is pycocotools' mark for "undefined"."""
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else otherwise
