"""Metrics of semantic segmentation."""

import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.evaluation.evaluator import DatasetEvaluator, write_results
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table

__all__ = ["SemSegEvaluator", "load_image_into_numpy_array"]


def load_image_into_numpy_array(
    filename: str, copy: bool = False, dtype: np.dtype | None = None
) -> np.ndarray:
    """Read a label map.

    Args:
        filename: an image of one channel of 8 bits.
        copy: always true here; upstream's argument.
        dtype: of the result; None keeps uint8.

    Returns:
        (H, W).
    """
    return read_image(filename, "L")[:, :, 0].astype(dtype or np.uint8, copy=True)


class SemSegEvaluator(DatasetEvaluator):
    """Intersection over union, and accuracy, of all pixels of a data set.

    Args:
        dataset_name: registered data set; its entries say where the label map of an image is, its
            metadata `stuff_classes` and `ignore_label`.
        distributed: sum up what all ranks have processed, on the main process. False: this
            process evaluates what it has processed itself.
        output_dir: folder for `sem_seg_evaluation.pth` and `sem_seg_predictions.json`; None writes
            nothing.
        sem_seg_loading_fn: reads a label map, called with the file and `dtype`.
        num_classes: that of the metadata, which says it anyway.
        ignore_label: label of pixels that do not count; None takes that of the metadata.
        save_predictions: write `sem_seg_predictions.json`, which takes most of the time of many
            classes.

    Raises:
        AssertionError: if `num_classes` is not that of the metadata.
    """

    def __init__(
        self,
        dataset_name: str,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        sem_seg_loading_fn: Callable[..., np.ndarray] = load_image_into_numpy_array,
        num_classes: int | None = None,
        ignore_label: int | None = None,
        save_predictions: bool = True,
    ):
        self._logger = logging.getLogger(__name__)
        metadata = MetadataCatalog.get(dataset_name)
        self._class_names = list(metadata.stuff_classes)
        self._num_classes = len(self._class_names)
        assert num_classes in (None, self._num_classes), (
            f"num_classes must be that of {dataset_name!r}, which has {self._num_classes} "
            f"stuff_classes, got {num_classes}"
        )
        self._ignore_label = metadata.ignore_label if ignore_label is None else ignore_label
        dataset_ids = metadata.get("stuff_dataset_id_to_contiguous_id") or {}
        self._dataset_ids = {number: id_ for id_, number in dataset_ids.items()}
        self._label_files = {
            entry["file_name"]: entry["sem_seg_file_name"]
            for entry in DatasetCatalog.get(dataset_name)
        }
        self._distributed = distributed
        self._output_dir = output_dir
        self._load = sem_seg_loading_fn
        self._save_predictions = save_predictions and output_dir is not None
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        # Rows: predicted. Columns: true, the last one for ignored pixels.
        self._confusion = np.zeros((self._num_classes + 1,) * 2, dtype=np.int64)
        self._predictions: list[dict[str, Any]] = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Count the pixels of a batch.

        Args:
            inputs: dicts with `file_name`.
            outputs: dicts with `sem_seg`: scores (K, H, W), or the classes themselves (H, W).

        Raises:
            KeyError: the data set has no such image.
            ValueError: prediction and label map differ in size, or have a class out of range.
        """
        for image, output in zip(inputs, outputs, strict=True):
            file_name = image["file_name"]
            predicted = output["sem_seg"]
            predicted = (predicted.argmax(dim=0) if predicted.ndim == 3 else predicted).cpu()
            classes = predicted.numpy().astype(np.int64)
            self._count(file_name, classes, self._truth(file_name, classes.shape))
            if self._save_predictions:
                self._predictions.extend(self._encode(file_name, classes))

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Sum up, and write the result files.

        Returns:
            `{"sem_seg": {"mIoU": ..., "fwIoU": ..., "IoU-<class>": ..., "mACC": ..., "pACC": ...,
            "ACC-<class>": ...}}` in percent. A class without true pixels is NaN and not part of
            the means. None on ranks other than the main process.
        """
        confusion, predictions = self._confusion, self._predictions
        if self._distributed:
            comm.synchronize()
            confusion = sum(comm.gather(confusion, dst=0))
            predictions = list(itertools.chain(*comm.gather(predictions, dst=0)))
            if not comm.is_main_process():
                return None
        metrics = self._metrics(confusion[:-1, :-1])
        if self._save_predictions:
            write_results(self._output_dir, "sem_seg_predictions.json", predictions)
        write_results(self._output_dir, "sem_seg_evaluation.pth", metrics)
        main = {name: value for name, value in metrics.items() if "-" not in name}
        self._logger.info("Evaluation results for sem_seg: \n" + create_small_table(main))
        return OrderedDict(sem_seg=metrics)

    def _truth(self, file_name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The label map of an image, ignored pixels as class K."""
        if file_name not in self._label_files:
            raise KeyError(f"image {file_name} is not in the data set; was another one loaded?")
        label_file = self._label_files[file_name]
        truth = self._load(label_file, dtype=np.int64)
        if truth.shape != shape:
            raise ValueError(
                f"the prediction of image {file_name} must have the size of its label map "
                f"{label_file}, {truth.shape}, got {shape}"
            )
        ignored = truth == self._ignore_label
        if (wrong := truth[~ignored & ((truth < 0) | (truth >= self._num_classes))]).size:
            raise ValueError(
                f"label map {label_file} of image {file_name} must have labels below "
                f"{self._num_classes}, or {self._ignore_label} for ignored pixels, got {wrong[0]}"
            )
        return np.where(ignored, self._num_classes, truth)

    def _count(self, file_name: str, predicted: np.ndarray, truth: np.ndarray) -> None:
        if predicted.min() < 0 or predicted.max() >= self._num_classes:
            raise ValueError(
                f"the prediction of image {file_name} must have classes below "
                f"{self._num_classes}, got {predicted.min()} to {predicted.max()}; check "
                "num_classes of the model"
            )
        side = self._num_classes + 1
        # A pair of classes as one number, so that a single count fills the matrix.
        cells = np.bincount((side * predicted + truth).ravel(), minlength=side**2)
        self._confusion += cells.reshape(side, side)

    def _metrics(self, confusion: np.ndarray) -> dict[str, float]:
        """Percentages from the (K, K) counts."""
        hit = confusion.diagonal().astype(np.float64)
        true, predicted = confusion.sum(axis=0), confusion.sum(axis=1)
        if not true.any():
            self._logger.warning("No pixel of the data set has a class, so all metrics are NaN.")
        with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of a class without true pixels
            accuracy = hit / true
            iou = np.where(true > 0, hit / (true + predicted - hit), np.nan)
            there = true > 0
            metrics = {
                "mIoU": iou[there].sum() / there.sum(),
                "fwIoU": (iou[there] * true[there]).sum() / true.sum(),
                **{f"IoU-{name}": x for name, x in zip(self._class_names, iou, strict=True)},
                "mACC": accuracy[there].sum() / there.sum(),
                "pACC": hit.sum() / true.sum(),
                **{f"ACC-{name}": x for name, x in zip(self._class_names, accuracy, strict=True)},
            }
        return {name: 100 * float(value) for name, value in metrics.items()}

    def _encode(self, file_name: str, classes: np.ndarray) -> list[dict[str, Any]]:
        """One run-length encoded mask for each predicted class."""
        found = []
        for number in np.unique(classes).tolist():
            mask = np.asfortranarray(classes == number, dtype=np.uint8)
            rle = mask_util.encode(mask)
            rle["counts"] = rle["counts"].decode("ascii")
            category = self._dataset_ids.get(number, number)
            found.append({"file_name": file_name, "category_id": category, "segmentation": rle})
        return found
