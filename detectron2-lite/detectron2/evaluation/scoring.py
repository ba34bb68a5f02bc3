"""Average precision by the rules of COCO and of LVIS, computed by faster-coco-eval."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from detectron2.data.datasets.coco_file import sorted_ids
from detectron2.evaluation.truth import has_mask, name_of, scorable_annotations

logger = logging.getLogger(__name__)


class GroundTruth:
    """The annotations that detections are scored against.

    Args:
        content: of an annotation file; its entries are changed.
        json_file: for messages.
        required: the keys that evaluation needs in each entry, by section.
        tasks: of "bbox" and "segm", those that will be scored; None if that is not known yet.

    Attributes:
        category_ids: the ids of all categories, ascending.
        annotated: whether there is a list of annotations, of which the files of test sets have
            none.

    Raises:
        KeyError, ValueError: an entry lacks a key or has a value that cannot be scored, which would
            otherwise be found after hours of inference.
    """

    def __init__(
        self,
        content: dict[str, Any],
        json_file: str | os.PathLike,
        required: Mapping[str, set[str]],
        tasks: Sequence[str] | None = None,
    ):
        _check_keys(content, json_file, required)
        self.annotated = "annotations" in content
        self.category_ids = sorted_ids(content.get("categories", []), "categories", json_file)
        known = scorable_annotations(content, json_file, tasks or ("bbox", "segm"))
        without = (name_of(a, json_file) for a in known if not has_mask(a))
        self._without_mask = next(without, None)
        if "segm" in (tasks or ()):
            self._check_masks()
        # The engine takes integers only. Numbers in the order of the ids keep the order of ties.
        self._numbers = _numbers(sorted_ids(content["images"], "images", json_file))
        # LVIS names categories in its images too, by ids that are integers already.
        whole = all(isinstance(category_id, int) for category_id in self.category_ids)
        self._categories = {} if whole else _numbers(self.category_ids)
        for image in content["images"]:
            image["id"] = self._numbers[image["id"]]
        for category in content.get("categories", []):
            category["id"] = self._category(category["id"])
        for annotation in known:
            annotation["image_id"] = self._numbers[annotation["image_id"]]
            annotation["category_id"] = self._category(annotation["category_id"])
        self._index = COCO({**content, "annotations": known})

    @property
    def image_ids(self) -> set[Any]:
        """The ids of all images."""
        return set(self._numbers)

    def _category(self, category_id: Any) -> int:
        return self._categories.get(category_id, category_id)

    def _check_masks(self) -> None:
        if self._without_mask is not None:
            raise ValueError(
                f"{self._without_mask} has no segmentation (run lengths, or polygons of at least "
                "three points) to be scored in task 'segm'; add it, or evaluate with "
                "tasks=('bbox',)"
            )

    def score(
        self,
        results: Sequence[Mapping[str, Any]],
        task: str,
        max_dets: int,
        image_ids: Sequence[Any] | None = None,
        lvis: bool = False,
    ) -> tuple[dict[str, float], np.ndarray]:
        """Score detections; a summary goes to stdout.

        Args:
            results: entries of a COCO result list, whose images are all known.
            task: "bbox" or "segm".
            max_dets: so many detections of each category count in an image, by score.
            image_ids: the images to score on; None takes all.
            lvis: whether a detection counts only where its category is known to be present or
                absent.

        Returns:
            Shares of 1, or -1 where undefined, by name: AP_all, AP_50, AP_75, AP_small, AP_medium,
            AP_large, and with `lvis` APr, APc, APf. And the precision (T, R, K, A, M) at T
            overlaps, R recalls, for K categories, A areas and M limits.

        Raises:
            ValueError: the task is "segm", and an annotation has no mask.
        """
        if task == "segm":
            self._check_masks()
        # Without a box the engine takes the area of a mask, not of its box, for small, medium and
        # large.
        dropped = "bbox" if task == "segm" else "segmentation"
        detections = [
            {k: v for k, v in result.items() if k != dropped}
            | {
                "image_id": self._numbers[result["image_id"]],
                "category_id": self._category(result["category_id"]),
            }
            for result in results
        ]
        engine = COCOeval_faster(
            self._index,
            self._index.loadRes(detections),
            task,
            print_function=logger.debug,
            lvis_style=lvis,
        )
        # COCO counts recall at 1 and 10 too. A limit below stays the last one, that of precision.
        fewer = [] if lvis else [min(1, max_dets), min(10, max_dets)]
        engine.params.maxDets = [*fewer, max_dets]
        if image_ids is not None:
            engine.params.imgIds = [self._numbers[image_id] for image_id in image_ids]
        engine.evaluate()
        engine.accumulate()
        lines: list[str] = []
        engine.print_function = lines.append
        engine.summarize()
        # The last two are not among those of COCO: recall at a single overlap.
        print(*lines[:-2], sep="\n")
        return engine.stats_as_dict, engine.eval["precision"]


def _check_keys(
    content: dict[str, Any], json_file: str | os.PathLike, required: Mapping[str, set[str]]
) -> None:
    for section, keys in required.items():
        for entry in content.get(section, []):
            if missing := keys - entry.keys():
                raise KeyError(
                    f"evaluation needs {sorted(keys)} in each of the {section}, but id "
                    f"{entry.get('id')} in {json_file} has no {min(missing)!r}"
                )


def _numbers(ids: Sequence[Any]) -> dict[Any, int]:
    return {entry_id: number for number, entry_id in enumerate(ids)}


def mean_precision(precision: np.ndarray) -> float:
    """The mean of the entries that are defined, not -1; NaN if none is."""
    defined = precision[precision > -1]
    return float(np.mean(defined)) if defined.size else float("nan")
